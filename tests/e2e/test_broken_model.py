"""A model that a worker cannot load: it serves the others, and says why not this one."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_tools import Cluster, Sums
from e2e_processes import wait_until
from e2e_prompts import EULER

from ddit_batch.cli.prompts import load_prompts, submit_prompts
from ddit_batch.db.engine import make_engine
from ddit_batch.embedded.plan import Addresses, planned_services
from ddit_batch.embedded.process import Child

LOST = "weights-lost"
WHY = "SELECT waiting_because FROM job_status WHERE batch_id = %s"


def worker_with(cluster: Cluster, model: Path) -> Child:
    """A second DiT worker, for ``tiny-wan`` and *model*."""
    state = cluster.state
    at = Addresses(
        database_url=state.database_url,
        broker_url=state.broker_url,
        artifacts_url=state.artifacts_url,
        flower_port=0,
    )
    plan = replace(cluster.plan, dit_workers=2, models=("tiny-wan", str(model)))
    return Child({s.name: s for s in planned_services(cluster.home, plan, at)}["dit-1"])


def submit_to(cluster: Cluster, model: Path, folder: Path) -> str:
    """The batch of one line for *model*."""
    file = folder / "prompts.jsonl"
    file.write_text(json.dumps({"custom_id": "lost", "prompt": "a letter"}))
    prompts = load_prompts(str(file), model=str(model), overrides={}, models_folder=None)
    engine = make_engine(cluster.state.database_url)
    submission = submit_prompts(engine, prompts, out=folder / "out", new=True)
    engine.dispose()
    return submission.batch_id


@pytest.mark.chaos
def test_worker_serves_what_it_can_load_and_says_what_not(
    cluster: Cluster, model_folders: dict[str, Path], undisturbed: dict[str, Sums], tmp_path: Path
) -> None:
    """A job of the other model does not wait in silence.

    Given a pipeline whose transformer has no weights, and a worker that is to serve it too.
    When the worker has started.
    Then it serves the good model, and a job of the broken one waits with the cause in its reason.
    """
    folder = tmp_path / LOST
    shutil.copytree(model_folders[EULER], folder)
    for weights in (folder / "transformer").glob("*.safetensors"):
        weights.unlink()
    cluster.mend()
    cluster.rows("DELETE FROM model_problems")
    worker = worker_with(cluster, folder)
    worker.start()
    try:
        wait_until(
            lambda: cluster.rows(
                "SELECT pid FROM workers WHERE pid = %s AND state = 'online' "
                "AND models = ARRAY['tiny-wan']",
                worker.process and worker.process.pid,
            ),
            "it serves what it can",
            within_s=120.0,
        )
        batch = cluster.submit("fox")
        batch.wait_done()
        batch.assert_undisturbed(undisturbed)
        wait_until(
            lambda: cluster.rows("SELECT model FROM model_problems WHERE model = %s", LOST),
            "it says what it cannot",
        )
        (why,) = cluster.rows(WHY, submit_to(cluster, folder, tmp_path))[0]
        assert "serves the model weights-lost" in why
        assert re.search(
            r"dit-1@\S+ could not load weights-lost \d+ s ago: model weights-lost", why
        )
    finally:
        worker.stop()
