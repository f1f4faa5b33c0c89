from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from random_clusters import S, Scene, scenes

from ddit_batch.policy.placement import Placement
from ddit_batch.snapshot import JobView


def placed(scene: Scene, dice: object) -> list[JobView]:
    """Jobs that have a group, in any order; now and then two that claim the same workers."""
    jobs = [job for job in scene.world.jobs if job.next_group and job.state is S.DENOISING]
    dice.shuffle(jobs)
    if len(jobs) > 1 and dice.random() < 0.5:
        jobs[0] = replace(
            jobs[0], **dice.choice([{"group": jobs[1].group}, {"pending": jobs[1].group}])
        )
    return jobs


@settings(max_examples=300)
@given(scenes, st.randoms(use_true_random=False))
def test_groups_that_are_kept_at_once_are_those_that_are_kept_in_order(
    scene: Scene, dice: object
) -> None:
    """Whoever comes first; where that matters, nothing is kept at once."""
    jobs = placed(scene, dice)
    together = [job for job in jobs if dice.random() < 0.6]
    claimed = [
        n for job in jobs for n in job.group if job not in together or n not in job.next_group
    ]
    claimed += [
        n for job in jobs if job not in together for n in job.next_group if n not in job.group
    ]
    at_once, in_order = Placement(scene.world), Placement(scene.world)

    if at_once.keep_all({job.job_id: job.next_group for job in together}, claimed):
        for job in jobs:
            if job not in together:
                at_once.keep(job)
        for job in jobs:
            in_order.keep(job)

        assert at_once.groups == in_order.groups
        assert at_once.idle == in_order.idle
    else:
        assert not at_once.groups
        assert at_once.idle == in_order.idle
        wanted = [*claimed, *(name for job in together for name in job.next_group)]
        assert len(set(wanted)) < len(wanted) or not at_once.knows(wanted)
