from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import compose_model
import psutil
import pytest
from deployed import LOOPBACK, Deployment, wait_until
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from ddit_batch.db.engine import make_engine
from ddit_batch.db.status import running_jobs, workers_online
from ddit_batch.job import BatchId, JobState, Phase

GIVEN = {
    "POSTGRES_PASSWORD": "postgres0secret",
    "VALKEY_PASSWORD": "valkey0secret",
    "FLOWER_PASSWORD": "flower0secret",
    "DDIT_HOST": "unit",
    "DDIT_MODELS": "tiny-wan",
    "DDIT_LOG_LEVEL": "DEBUG",
}
SECRETS = [value for name, value in GIVEN.items() if name.endswith("_PASSWORD")]
SMALL = {"prompt": "a fox", "model": "tiny-wan", "height": 32, "width": 32, "num_frames": 5}
SHORT = SMALL | {"custom_id": "short", "num_inference_steps": 4}
LONG = SMALL | {"custom_id": "long", "num_inference_steps": 1000}


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """The services of the file, started in its order; all of them end with the test."""
    deployment = Deployment(compose_model.read(GIVEN), tmp_path)
    try:
        deployment.start_postgres()
        deployment.start_valkey()
        migrated = deployment.run("migrate", *deployment.compose.services["migrate"].command)
        assert migrated.exit_code == 0, migrated.stderr
        for replica in range(deployment.compose.services["scheduler"].deploy.replicas):
            deployment.start("scheduler", scheduler=replica)
        for service in ("encode", "dit-0", "vae", "flower"):
            deployment.start(service)
        yield deployment
    finally:
        deployment.stop()


def metrics_of(port: int) -> dict[str, float]:
    """Name and labels, these in alphabetical order, to value, as one scheduler says."""
    text = urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5).read().decode()
    return {
        " ".join((sample.name, *dict(sorted(sample.labels.items())).values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def is_denoising(engine: Engine, batch: str) -> bool:
    """Whether a job of the batch is in its DiT phase."""
    return any(job.state is JobState.DENOISING for job in running_jobs(engine, BatchId(batch)))


def flower_says(request: Request, credentials: str | None) -> tuple[int, str]:
    """Status and body of an answer of Flower."""
    if credentials:
        request.add_header(
            "Authorization", f"Basic {base64.b64encode(credentials.encode()).decode()}"
        )
    try:
        with urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except HTTPError as exc:
        return exc.code, ""


def test_services_of_the_compose_file_make_a_video(deployment: Deployment) -> None:
    """A job goes through all of them, another is cancelled; they say so, and tell no password."""
    database_url = deployment.environment("cli")["DDIT_DATABASE_URL"]
    engine = make_engine(database_url)
    wait_until(
        lambda: deployment.assert_running() or len(workers_online(engine)) == len(Phase),
        "every phase has a worker",
    )

    lines = f"{json.dumps(SHORT)}\n{json.dumps(LONG)}\n"
    submitted = deployment.run("cli", "submit", "-", "--out", str(deployment.folder), text=lines)
    assert submitted.exit_code == 0, submitted.stderr
    batch = submitted.stdout.strip()
    wait_until((deployment.folder / "short.mp4").exists, "the video is there")
    wait_until(lambda: is_denoising(engine, batch), "the other job is under way")
    cancelled = deployment.run("cli", "cancel", f"{batch}-000002")
    assert cancelled.exit_code == 0, cancelled.stderr

    _check_health(deployment)
    _check_metrics(deployment)
    _check_flower(deployment, batch)
    _check_logs(deployment)
    deployment.assert_running()
    engine.dispose()


def _check_health(deployment: Deployment) -> None:
    """The health check of each service, run in its container's environment, is content."""
    for name, service in deployment.compose.ours().items():
        if service.healthcheck is not None:
            checked = deployment.run(name, *service.healthcheck.test[2:])
            assert checked.exit_code == 0, checked.stderr
    stopped = deployment.run("vae", "worker", "--phase", "vae", "--name", "vae-1", "--check")
    assert stopped.exit_code == 1
    assert "vae-1@unit has no lease" in stopped.stderr


def _check_metrics(deployment: Deployment) -> None:
    """One of two schedulers leads, and has seen the job and the workers."""
    wait_until(
        lambda: any(
            metrics_of(port).get("ddit_jobs cancelled") == 1.0 for port in deployment.metrics_ports
        ),
        "the end of both jobs is counted",
    )
    leader, other = sorted(
        (metrics_of(port) for port in deployment.metrics_ports),
        key=lambda metrics: -metrics["ddit_scheduler_leads"],
    )
    assert (leader["ddit_scheduler_leads"], other["ddit_scheduler_leads"]) == (1.0, 0.0)
    assert leader["ddit_scheduler_term"] == 1.0
    assert leader["ddit_jobs succeeded"] == 1.0
    assert leader["ddit_step_seconds_count 1 tiny-wan 32x32x5"] >= 1.0
    assert [leader[f"ddit_workers {phase} idle"] for phase in Phase] == [1.0] * 3
    assert not any(name.startswith("ddit_jobs ") for name in other)


def _check_flower(deployment: Deployment, batch: str) -> None:
    """It asks for its password and tells none, shows how tasks ended, and lets nobody act."""
    port, good = deployment.flower_port, f"ddit:{GIVEN['FLOWER_PASSWORD']}"
    ask = Request(f"http://{LOOPBACK}:{port}/api/tasks")
    assert flower_says(ask, None)[0] == 401
    assert flower_says(ask, "ddit:wrong")[0] == 401
    first, second = f"{batch}-000001", f"{batch}-000002"
    wait_until(lambda: '"IGNORED"' in flower_says(ask, good)[1], "Flower knows how all ended")
    tasks = json.loads(flower_says(ask, good)[1])
    assert {task_id: task["state"] for task_id, task in tasks.items()} == {
        f"{first}.encode.a1": "SUCCESS",
        f"{first}.dit.a1": "SUCCESS",
        f"{first}.vae.a1": "SUCCESS",
        f"{second}.encode.a1": "SUCCESS",
        f"{second}.dit.a1": "IGNORED",
    }
    assert tasks[f"{second}.dit.a1"]["exception"].startswith("cancelled at step")
    assert {tasks[f"{first}.{phase}.a1"]["root_id"] for phase in Phase} == {f"{first}.encode.a1"}
    for path in ("/api/workers?refresh=1", "/worker/dit-0@unit", "/broker"):
        status, page = flower_says(Request(f"http://{LOOPBACK}:{port}{path}"), good)
        assert status == 200
        assert "redis://:" in page, path
        assert not any(secret in page for secret in SECRETS), path
    shutdown = Request(f"http://{LOOPBACK}:{port}/api/worker/shutdown/dit-0@unit", method="POST")
    assert flower_says(shutdown, good)[0] == 403


def _check_logs(deployment: Deployment) -> None:
    """Lines are JSON with ids, and neither they nor a command line have a password."""
    lines = [json.loads(line) for line in deployment.logs().splitlines() if line.startswith("{")]
    claimed = [line for line in lines if line.get("action") == "claimed"]
    assert {line["phase"]: line["worker"] for line in claimed} == {
        "encode": "encode-0@unit",
        "dit": "dit-0@unit",
        "vae": "vae-0@unit",
    }
    assert all({"job_id", "attempt", "incarnation"} <= set(line) for line in claimed)
    assert any("Connected to redis://:***@" in line["message"] for line in lines)
    for secret in SECRETS:
        assert secret not in deployment.logs()
        for process in deployment.processes.values():
            assert secret not in " ".join(psutil.Process(process.pid).cmdline())
