"""``elastic``: its constants. The rule is told at the head of ``elastic.py``."""

from __future__ import annotations

from dataclasses import dataclass

MIDDLE_LOAD = 0.75
"""The load at which powers that change with it have their stated value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """The constants of ``elastic``: what they mean, and where the values come from.

    Found by a search (CMA-ES) over simulated Poisson arrivals at loads 0.5 to 0.95 on three
    published profiles (DDiT on 8 GPUs, HunyuanVideo on 8 and 32, CogVideoX1.5 on 32), seeds 101 to
    112, and rounded to two digits; ``docs/elastic.md`` tells what was tried, and on which seeds.
    """

    price: float = 1.0
    """Seconds that a GPU-second costs those who wait, for each job behind and worker, at load 0."""
    price_power: float = 1.4
    """How it rises with the load: by ``(1 - load) ** -price_power``."""
    price_to_come: float = 0.57
    """So many jobs are always taken to be still to come, and behind every job ..."""
    price_at_hand: float = 0.23
    """... and this share of the jobs at hand: the longer it takes until all is done, the more."""
    behind_weight: float = 0.27
    """The weight of a job behind is 1, and so much of what its own seconds count beyond that: what
    helps a late job is to be wide itself, not that those before it are narrow."""
    late_order: float = 2.4
    """How much a late job comes forward ..."""
    late_order_power: float = 2.8
    """... by this power of its lateness ..."""
    late_order_power_load: float = 2.1
    """... which is higher by so much times the usual load above ``MIDDLE_LOAD`` ..."""
    late_order_load: float = 1.9
    """... and by this power of 0.2 / (1 - usual load) ..."""
    late_order_now: float = 0.39
    """... and by this one of 0.2 / (1 - load)."""
    late_forward: float = 0.026
    """Beside that, its lateness times this share of a slow job's size is taken off its own."""
    late_width: float = 10.0
    """How much more a late job's own seconds count when its dop is chosen ..."""
    late_width_power: float = 3.9
    """... by this power of its lateness."""
    large_width: float = 0.38
    """A large job's own seconds count more: by this power of its work over what is slow of late.
    It is the one that will be late, and splits best."""
    size_power: float = 0.6
    """Shortest remaining first by this power of the work left; 1 is the plain rule ..."""
    size_power_load: float = 0.16
    """... which is higher by so much times the usual load above ``MIDDLE_LOAD``."""
    keep: float = 1.1
    """A running job's present dop counts as so much better than it is: resizing has a price."""
    idle_step: float = 2.7
    """Steps for which workers that join stand idle, waiting for the boundary, on average."""
    gain_power: float = 1.3
    """Idle workers go to the largest gain over this power of the time left."""
    min_gain_steps: float = 1.9
    """They go to nobody who would gain less than so many of its present steps."""
    hand_over_s: float = 1.0
    """What giving a job back and starting it again costs: a checkpoint, a message, a read. Running
    jobs count as so much shorter, so that none is preempted for less. Measured: 0.4 s from a
    release to the next job's first step (tiny model, 2 CPU cores, November 2026); larger models
    have larger states."""
    patience: float = 50.0
    """A job that has been here for so many times its own work is overdue."""
