"""What a soak has shown: how soon things went on, and what was done again."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from soak_faults import DISK_FULL_S, Cluster, Inflicted
from soak_plan import Fault, Planned

CHECKPOINT_EVERY_STEPS = 5
"""The setting of the soak's cluster, and what a lost worker may cost."""
FOUND_LOST_S = 8.0
"""A worker that dies is known to be lost within this: a lease, and the scheduler's rounds."""


def recovery_s(cluster: Cluster, inflicted: Inflicted) -> float | None:
    """Seconds until what it hit went on: its job, or else any job; None if nothing did any more."""
    rows = cluster.rows(
        "SELECT min(at) FROM ("
        "  SELECT extract(epoch FROM at)::float8 AS at FROM job_events "
        "  WHERE trigger IN ('claim', 'finish') AND (%s::text IS NULL OR job_id = %s)"
        "  UNION ALL SELECT extract(epoch FROM started_at)::float8 FROM segments "
        "  WHERE %s::text IS NULL OR job_id = %s"
        ") AS went_on WHERE at > %s",
        *[inflicted.job_id] * 4,
        inflicted.at_s,
    )
    return None if rows[0][0] is None else float(rows[0][0]) - inflicted.at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """What one DiT attempt that was broken off has cost its job."""

    custom_id: str
    steps: int
    """Done again."""
    lost_s: float
    """When the attempt was given up, by the clock of the database."""
    is_resumed: bool
    """From the newest checkpoint, which could be read."""


def repeats(cluster: Cluster) -> list[Repeat]:
    """One for each DiT attempt whose worker was lost."""
    rows = cluster.rows(
        "SELECT j.custom_id, before.to_step - after.from_step, "
        "    extract(epoch FROM a.ended_at)::float8, after.reason IN ('start', 'resume') "
        "FROM attempts a JOIN jobs j ON j.id = a.job_id "
        "JOIN LATERAL (SELECT to_step FROM segments s WHERE s.job_id = a.job_id "
        "    AND s.attempt = a.number ORDER BY id DESC LIMIT 1) before ON true "
        "JOIN LATERAL (SELECT from_step, reason FROM segments s WHERE s.job_id = a.job_id "
        "    AND s.attempt > a.number ORDER BY id LIMIT 1) after ON true "
        "WHERE a.phase = 'dit' AND a.outcome = 'worker_lost'"
    )
    return [
        Repeat(custom_id=row[0], steps=int(row[1]), lost_s=float(row[2]), is_resumed=row[3])
        for row in rows
    ]


def too_many_repeats(cluster: Cluster, done: Sequence[Inflicted]) -> list[str]:
    """Attempts that cost more than a checkpoint interval, though a checkpoint could be kept."""
    full = [each.at_s for each in done if each.fault is Fault.FULL_DISK]
    return [
        f"{each.custom_id}: {each.steps} steps were done again, more than {CHECKPOINT_EVERY_STEPS}"
        for each in repeats(cluster)
        if each.steps > CHECKPOINT_EVERY_STEPS
        and each.is_resumed
        and not any(0.0 < each.lost_s - at_s < DISK_FULL_S + FOUND_LOST_S for at_s in full)
    ]


def report(
    cluster: Cluster, done: Sequence[Inflicted], left_out: Sequence[Planned], *, head: str
) -> str:
    """The figures as a page, under *head*."""
    times: dict[Fault, list[float]] = defaultdict(list)
    for each in done:
        found = recovery_s(cluster, each)
        if found is not None:
            times[each.fault].append(found)
    counts = Counter(each.fault for each in done)
    steps = [each.steps for each in repeats(cluster)]
    lines = [
        head,
        "",
        "| fault | times | goes on after, median | worst |",
        "|---|---|---|---|",
    ]
    for fault in Fault:
        if counts[fault]:
            found = times[fault]
            median = f"{statistics.median(found):.1f} s" if found else "not seen"
            worst = f"{max(found):.1f} s" if found else "not seen"
            if found and len(found) < counts[fault]:
                worst += f" ({counts[fault] - len(found)} not seen)"
            lines.append(f"| {fault} | {counts[fault]} | {median} | {worst} |")
    lines.append(
        f"\n{len(steps)} broken attempts at DiT cost {sum(steps)} steps that were done again: "
        f"{statistics.median(steps or [0]):g} in the median, {max(steps or [0])} at most, with a "
        f"checkpoint every {CHECKPOINT_EVERY_STEPS} steps."
    )
    if left_out:
        names = ", ".join(f"{each.fault} at {each.at_s:.0f} s" for each in left_out)
        lines.append(f"Left out, because there was nothing to hit: {names}.")
    return "\n".join(lines) + "\n"
