from __future__ import annotations

from sim_worlds import COSTS, Scripted, a_workload, always, an_arrival

from ddit_batch.job import Phase
from ddit_batch.simulator import Cluster, Config, Fault, Result, simulate


def run(dop: int, fault: Fault, *, gpus: int = 2, **config: int) -> Result:
    """One job of four steps, and what becomes of it."""
    return simulate(
        a_workload(an_arrival(1)),
        COSTS,
        always(dop),
        Cluster(gpus=gpus),
        Config(**config),
        faults=(fault,),
    )


def spans(result: Result) -> list[tuple[str, float, float, int, int]]:
    """Of each segment its leader, when it was, and its steps."""
    return [
        (s.workers[0].partition("@")[0], s.begun_s, s.ended_s, s.from_step, s.to_step)
        for s in result.segments
    ]


def test_job_of_a_lost_leader_goes_on_from_its_checkpoint_on_another_worker() -> None:
    """Lost in the fourth step, with checkpoints after every second: one step is done again."""
    result = run(1, Fault(worker=0, lost_s=35.0), checkpoint_every_steps=2)

    assert spans(result) == [
        ("dit-0", 0.0, 35.0, 0, 3),
        ("dit-1", 35.0, 55.0, 2, 4),
        ("dit-1", 55.0, 58.0, 4, 4),
    ]
    assert result.jobs[0].resizes == 1


def test_job_without_a_checkpoint_starts_again() -> None:
    """The fifth step would have been the first to be kept."""
    assert spans(run(1, Fault(worker=0, lost_s=35.0)))[1] == ("dit-1", 35.0, 75.0, 0, 4)


def test_job_waits_for_the_next_incarnation_if_there_is_no_other_worker() -> None:
    """Lost at 25, back at 50: two more steps, and the decode."""
    result = run(1, Fault(worker=0, lost_s=25.0, back_s=50.0), gpus=1, checkpoint_every_steps=1)

    assert spans(result)[1:] == [("dit-0", 50.0, 70.0, 2, 4), ("dit-0", 70.0, 73.0, 4, 4)]


def test_worker_that_is_back_at_once_has_lost_its_job_all_the_same() -> None:
    """It is another incarnation, which knows nothing."""
    result = run(1, Fault(worker=0, lost_s=25.0, back_s=25.0), gpus=1, checkpoint_every_steps=1)

    assert spans(result)[1] == ("dit-0", 25.0, 45.0, 2, 4)


def test_lost_follower_costs_the_step_at_hand() -> None:
    """The leader goes on alone from the second step, which had just ended: 2 of 4 at 6 s each."""
    result = run(2, Fault(worker=1, lost_s=15.0, back_s=1000.0))

    assert spans(result)[:2] == [("dit-0", 0.0, 15.0, 0, 2), ("dit-0", 15.0, 35.0, 2, 4)]
    assert [len(segment.workers) for segment in result.segments] == [2, 1, 1]


def test_survivors_form_the_widest_legal_group() -> None:
    """Of three workers two go on: there is no step of three."""
    result = run(4, Fault(worker=1, lost_s=5.0), gpus=4)

    assert result.segments[1].workers == (
        result.segments[0].workers[0],
        result.segments[0].workers[2],
    )


def test_decode_of_a_lost_worker_is_done_again() -> None:
    """Lost two seconds into the three of the decode."""
    result = run(1, Fault(worker=0, lost_s=42.0))

    assert [s.phase for s in result.segments] == [Phase.DIT, Phase.VAE, Phase.VAE]
    assert spans(result)[1:] == [("dit-0", 40.0, 42.0, 4, 4), ("dit-1", 42.0, 45.0, 4, 4)]
    assert result.jobs[0].finished_s == 45.0


def test_worker_that_was_to_join_and_is_lost_joins_nobody() -> None:
    """Told at 13 to grow at 20 with a worker that dies at 15."""
    grow = Scripted(wish=lambda _job, snapshot: 2 if len(snapshot.jobs) == 1 else 1)
    result = simulate(
        a_workload(an_arrival(1), an_arrival(2, steps=1)),
        COSTS,
        grow,
        Cluster(gpus=2),
        faults=(Fault(worker=1, lost_s=15.0, back_s=1000.0),),
    )

    assert result.jobs[0].finished_s == 43.0
    assert result.jobs[0].resizes == 0
