"""Which faults a soak inflicts, and when: a function of the seed alone."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Fault(StrEnum):
    """What is done to the cluster."""

    KILL_ENCODE = "kill -9 of an encode worker"
    KILL_LEADER = "kill -9 of a leader"
    KILL_FOLLOWER = "kill -9 of a follower"
    KILL_VAE = "kill -9 of a VAE worker"
    KILL_SCHEDULER = "kill -9 of the leading scheduler"
    FREEZE_ENCODE = "SIGSTOP of an encode worker beyond its lease"
    FREEZE_LEADER = "SIGSTOP of a leader beyond its lease"
    FREEZE_FOLLOWER = "SIGSTOP of a follower beyond the group timeout"
    FREEZE_VAE = "SIGSTOP of a VAE worker beyond its lease"
    FREEZE_SCHEDULER = "SIGSTOP of the leading scheduler"
    FLUSH_BROKER = "broker emptied by FLUSHALL"
    KILL_BROKER = "kill -9 of the broker"
    STOP_BROKER = "broker stopped for 30 s"
    KILL_POSTGRES = "kill -9 of Postgres"
    CUT_CONNECTIONS = "all connections to Postgres cut"
    DUPLICATES = "every message under way delivered three times more"
    FULL_DISK = "disk full for 8 s"
    CORRUPT_CHECKPOINT = "newest checkpoint damaged, then its leader killed"


TIMES_IN_A_DECK = {
    Fault.KILL_LEADER: 2,
    Fault.KILL_FOLLOWER: 2,
    Fault.FREEZE_LEADER: 2,
    Fault.CORRUPT_CHECKPOINT: 2,
}
"""More often than once: what a job of many steps meets most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One fault."""

    at_s: float
    """After the beginning; the one before may last longer, then it is as soon as that is over."""
    fault: Fault
    dice: float
    """0 to 1: which of several workers or jobs it hits."""


def plan(*, minutes: float, interval_s: float, seed: int) -> tuple[Planned, ...]:
    """Faults until *minutes* are over, one in each interval, each kind about equally often."""
    rolls = random.Random(seed)
    deck: list[Fault] = []
    planned = []
    for number in range(int(minutes * 60 / interval_s)):
        if not deck:
            deck = [fault for fault in Fault for _ in range(TIMES_IN_A_DECK.get(fault, 1))]
            rolls.shuffle(deck)
        at_s = (number + rolls.uniform(0.0, 0.6)) * interval_s
        planned.append(Planned(at_s=at_s, fault=deck.pop(), dice=rolls.random()))
    return tuple(planned)
