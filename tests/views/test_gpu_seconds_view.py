from __future__ import annotations

from itertools import pairwise

import pytest
from farm import STEPS, Farm, request

from ddit_batch.job import JobState, Phase

LAST = {"encode": 2, "dit": 10, "vae": 3}
"""Seconds that each phase takes in these tests."""


def with_fixed_times(farm: Farm) -> None:
    """Have every attempt and segment last as long as ``LAST`` says."""
    for phase, seconds in LAST.items():
        farm.execute(
            f"UPDATE attempts SET ended_at = claimed_at + interval '{seconds} s' "
            f"WHERE phase = '{phase}' AND ended_at IS NOT NULL"
        )
    farm.execute(
        f"UPDATE segments SET ended_at = started_at + interval '{LAST['dit']} s' "
        "WHERE ended_at IS NOT NULL"
    )


def test_gpu_seconds_add_up_by_job_batch_phase_and_worker(farm: Farm) -> None:
    """However they are summed, it is what the attempts and segments took, times dop."""
    workers = farm.workers()
    one, two = farm.submit(request(1), request(2))
    (other,) = farm.submit()
    for job in (one, two, other):
        farm.bring(job, JobState.SUCCEEDED, workers)
    with_fixed_times(farm)
    farm.execute(
        "UPDATE segments SET dop = 2, workers = '{dit-0@gpu-a,dit-1@gpu-a}' "
        f"WHERE job_id = '{two}'"
    )

    def total(by: str, more: str = "") -> dict[object, object]:
        query = f"SELECT {by} AS what, sum(gpu_seconds) AS s FROM gpu_seconds {more} GROUP BY 1"
        return {row["what"]: row["s"] for row in farm.rows(query)}

    assert total("job_id") == {one: 15, two: 25, other: 15}
    assert sorted(total("batch_id").values()) == [15, 40]
    assert total("phase") == {"encode": 6, "dit": 40, "vae": 9}
    by_worker = farm.rows(
        "SELECT worker, sum(seconds) AS s FROM gpu_seconds, unnest(workers) AS worker "
        "GROUP BY worker ORDER BY worker"
    )
    assert by_worker == [
        {"worker": "dit-0@gpu-a", "s": 30},
        {"worker": "dit-1@gpu-a", "s": 10},
        {"worker": "encode-0@gpu-a", "s": 6},
        {"worker": "vae-0@gpu-a", "s": 9},
    ]


def test_row_says_who_worked_when_and_on_which_steps(farm: Farm) -> None:
    """One row for each phase; steps and segment are those of DiT alone."""
    (job,) = farm.submit(request(1, custom_id="cat"))
    farm.bring(job, JobState.SUCCEEDED, farm.workers())

    encode, dit, vae = farm.rows("SELECT * FROM gpu_seconds ORDER BY started_at")

    assert [row["phase"] for row in (encode, dit, vae)] == ["encode", "dit", "vae"]
    assert all(row["job_id"] == job and row["custom_id"] == "cat" for row in (encode, dit, vae))
    assert (dit["from_step"], dit["to_step"], dit["reason"]) == (0, STEPS, "start")
    assert (dit["workers"], dit["dop"], dit["attempt"]) == (["dit-0@gpu-a"], 1, 1)
    for row in (encode, vae):
        nothing = ("segment", "reason", "from_step", "to_step")
        assert [row[name] for name in nothing] == [None] * 4
        assert (row["workers"], row["dop"]) == ([f"{row['phase']}-0@gpu-a"], 1)


def test_what_runs_counts_until_now(farm: Farm) -> None:
    """An open segment has no end, the steps of now, and seconds that grow."""
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    farm.progress(farm.claims.claim(job, Phase.DIT, 1, workers[Phase.DIT]), step=3, step_s=1.0)
    farm.execute("UPDATE segments SET started_at = now() - interval '100 s'")

    (found,) = farm.rows("SELECT * FROM gpu_seconds WHERE phase = 'dit'")

    assert (found["ended_at"], found["to_step"]) == (None, 3)
    assert 100 <= float(str(found["seconds"])) < 160


def test_resumed_job_has_a_row_for_each_segment(farm: Farm) -> None:
    """What a lost worker had done beyond the checkpoint can be read off: it is done again."""
    workers = farm.workers()
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    claim = farm.claims.claim(job, Phase.DIT, 1, workers[Phase.DIT])
    farm.claims.save_checkpoint(claim, key="checkpoint", step=4)
    farm.progress(claim, step=6, step_s=1.0)
    farm.lose(workers[Phase.DIT])
    farm.store.rescue(farm.view(job))
    again = farm.worker("dit-1@gpu-a", Phase.DIT)
    farm.finish(farm.claim(job, again, to="dit-1@gpu-a"))

    found = farm.rows(
        "SELECT attempt, workers, from_step, to_step, reason FROM gpu_seconds "
        "WHERE phase = 'dit' ORDER BY segment"
    )

    assert [tuple(row.values()) for row in found] == [
        (1, ["dit-0@gpu-a"], 0, 6, "start"),
        (2, ["dit-1@gpu-a"], 4, STEPS, "resume"),
    ]


def test_message_that_nobody_claimed_used_nobody(farm: Farm) -> None:
    """An attempt without a claim is no work."""
    farm.workers()
    (job,) = farm.submit()
    farm.send(job)

    assert farm.rows("SELECT * FROM gpu_seconds") == []


def test_group_that_changes_has_a_row_for_each_of_its_forms(farm: Farm) -> None:
    """Without a gap in steps or time; the plan says which decision made it."""
    workers = farm.workers()
    for number in (1, 2):
        farm.worker(f"dit-{number}@gpu-a", Phase.DIT)
    (job,) = farm.submit()
    farm.bring(job, JobState.DENOISING, workers)
    claim = farm.claims.claim(job, Phase.DIT, 1, workers[Phase.DIT])
    lead, *others = (f"dit-{number}@gpu-a" for number in range(3))
    grown = farm.group(claim, lead, *others, step=2)
    shrunk = farm.group(claim, lead, others[0], step=5, reason="shrink")
    farm.finish(claim)

    found = farm.rows("SELECT * FROM gpu_seconds WHERE phase = 'dit' ORDER BY segment")

    columns = ("dop", "workers", "from_step", "to_step", "reason", "plan")
    assert [tuple(row[column] for column in columns) for row in found] == [
        (1, [lead], 0, 2, "start", 0),
        (3, [lead, *others], 2, 5, "grow", grown),
        (2, [lead, others[0]], 5, STEPS, "shrink", shrunk),
    ]
    ends = [(row["started_at"], row["ended_at"]) for row in found]
    assert all(end == start for (_, end), (start, _) in pairwise(ends))
    assert all(row["gpu_seconds"] == pytest.approx(row["seconds"] * row["dop"]) for row in found)
