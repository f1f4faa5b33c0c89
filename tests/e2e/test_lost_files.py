from __future__ import annotations

import json
import os
from pathlib import Path
from signal import SIGCONT, SIGSTOP

import pytest
from cluster_tools import Cluster, Figure, Sums
from e2e_processes import ddit, wait_until
from e2e_prompts import LINES

from ddit_batch.config import Settings
from ddit_batch.job import JobState, Phase

EVERY = Settings().checkpoint_every_steps
"""Steps that a lost worker may cost: no two checkpoints that are kept are further apart."""


def flip_bit(path: Path) -> None:
    """Have the disk forget what it was given, in one bit."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damaged_checkpoint_costs_the_steps_since_the_one_before(
    session_cluster: Cluster, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """The job goes on from the older one, says so in its history, and gives the same video."""
    session_cluster.mend({Phase.DIT: 2})
    batch = session_cluster.submit("long")
    caught = batch.catch(Phase.DIT, step=24)
    job = batch.job("long")
    flip_bit(session_cluster.home.store / job["checkpoint_key"])

    figure("DiT worker frozen, checkpoint damaged", batch.recovery_s(caught, Phase.DIT), "s")
    batch.wait_done()

    first, second = batch.segments("long")
    assert first[0] == 0
    assert 0 < job["checkpoint_step"] - job["older_checkpoint_step"] <= EVERY
    assert second == (job["older_checkpoint_step"], 100, "older_checkpoint")
    batch.assert_undisturbed(undisturbed)
    spare = batch.manifest("long")["segments"][-1]["workers"][0]
    assert "goes back to the checkpoint before: the checkpoint of" in session_cluster.log(spare)


@pytest.mark.chaos
def test_job_without_a_checkpoint_that_can_be_read_starts_over(
    session_cluster: Cluster, undisturbed: dict[str, Sums]
) -> None:
    """One is damaged, the other is gone: step 0 again, with the same video.

    Who starts over leaves no checkpoint. The first worker is held up, maybe in the middle of one:
    before its file is named, or before an older one is removed. That one is garbage.
    """
    session_cluster.mend({Phase.DIT: 2})
    batch = session_cluster.submit("long")
    batch.catch(Phase.DIT, step=24)
    job, store = batch.job("long"), session_cluster.home.store
    damaged = store / job["checkpoint_key"]
    flip_bit(damaged)
    (store / job["older_checkpoint_key"]).unlink()

    batch.wait_done()

    assert batch.segments("long")[1] == (0, 100, "checkpoint_lost")
    batch.assert_undisturbed(undisturbed)
    folder = store / "jobs" / job["id"]

    def left() -> list[Path]:
        return [path for path in folder.rglob("step-*") if path.parent != damaged.parent]

    wait_until(
        lambda: not (left() or damaged.exists()),
        "no checkpoint of those that it knew is left",
        within_s=5.0,
    )
    assert len(list(damaged.parent.glob("step-*"))) <= 1


@pytest.mark.chaos
def test_damaged_handoffs_are_made_again(cluster: Cluster, undisturbed: dict[str, Sums]) -> None:
    """A bit that has flipped in embeddings or latents costs a try of the phase before."""
    for pid in (pids := cluster.worker_pids(Phase.VAE)):
        os.kill(pid, SIGSTOP)
    cluster.forget_embeddings()
    first = cluster.submit("tram")
    wait_until(lambda: first.count(JobState.DENOISED), "the job waits for VAE")
    flip_bit(cluster.home.store / first.job("tram")["latents_key"])
    flip_bit(cluster.home.store / first.job("tram")["embeddings_key"])
    second = cluster.submit("tram")  # finds the damaged embeddings

    for pid in pids:
        os.kill(pid, SIGCONT)
    first.wait_done()
    second.wait_done()

    assert "handoff_lost" in first.attempts("tram", Phase.VAE)
    assert "handoff_lost" in [
        *first.attempts("tram", Phase.DIT),
        *second.attempts("tram", Phase.DIT),
    ]
    first.assert_undisturbed(undisturbed)
    second.assert_undisturbed(undisturbed)


@pytest.mark.chaos
def test_lost_latents_are_made_again(cluster: Cluster, undisturbed: dict[str, Sums]) -> None:
    """A VAE worker that finds nothing sends the job back to DiT."""
    for pid in (pids := cluster.worker_pids(Phase.VAE)):
        os.kill(pid, SIGSTOP)
    batch = cluster.submit("fox")
    wait_until(lambda: batch.count(JobState.DENOISED), "the job waits for VAE")
    (cluster.home.store / batch.job("fox")["latents_key"]).unlink()

    for pid in pids:
        os.kill(pid, SIGCONT)
    batch.wait_done()

    assert batch.attempts("fox", Phase.DIT) == ["finish", "finish"]
    assert batch.attempts("fox", Phase.VAE)[-2:] == ["handoff_lost", "finish"]
    batch.assert_undisturbed(undisturbed)


def test_job_whose_model_raises_fails_alone(
    cluster: Cluster, undisturbed: dict[str, Sums], model_folders: dict[str, Path]
) -> None:
    """`ddit run` names the job and the cause and exits with 1; the other jobs have their videos."""
    folder = cluster.home.path.parent / "failing"
    folder.mkdir()
    bad = {**LINES["snow"], "custom_id": "bad", "model": "broken"}
    lines = [bad, LINES["fox"], LINES["tram"]]
    prompts = folder / "prompts.jsonl"
    prompts.write_text("\n".join(map(json.dumps, lines)))

    done = ddit(
        cluster.home.path,
        "run",
        str(prompts),
        *("--model", str(model_folders["broken"])),
        *("--out", str(folder / "out")),
    )

    assert done.returncode == 1, done.stderr
    assert "\nbad: unexpected_error: The size of tensor" in done.stderr
    assert "2 succeeded, 1 failed" in done.stderr
    for name in ("fox", "tram"):
        manifest = json.loads((folder / "out" / f"{name}.json").read_text())
        assert Sums.of(manifest) == undisturbed[name]
    assert not (folder / "out" / "bad.mp4").exists()
    failures = cluster.value("SELECT failures FROM jobs WHERE custom_id = 'bad'")
    assert failures == 3
