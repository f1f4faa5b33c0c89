from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ddit_batch.cluster_file import WorkerSlot
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import Addresses, ClusterPlan, planned_services
from ddit_batch.embedded.process import Service
from ddit_batch.job import Phase

PLAN = ClusterPlan(
    dit_workers=2,
    models=("tiny-wan", "other"),
    flower=True,
    torch_threads=3,
    devices=("cuda:0", "cuda:1"),
    extra_env=(("DDIT_LEASE_S", "9"), ("DDIT_DRAIN_S", "1.5")),
)
AT = Addresses(database_url="db", broker_url="broker", artifacts_url="/store", flower_port=4711)


def services(tmp_path: Path, plan: ClusterPlan) -> dict[str, Service]:
    return {service.name: service for service in planned_services(Home(tmp_path), plan, AT)}


SLOTS = (
    WorkerSlot(phase=Phase.DIT, name="dit-0", device="cuda:3", node="left"),
    WorkerSlot(phase=Phase.DIT, name="dit-1", device="cpu", node="right"),
    WorkerSlot(phase=Phase.VAE, name="vae-0", device="cuda:3"),
)


@pytest.mark.parametrize("plan", [PLAN, replace(PLAN, slots=SLOTS, is_deployed=True)])
def test_plan_survives_its_way_to_the_supervisor(plan: ClusterPlan) -> None:
    """A plan written as JSON reads back as the same plan."""
    assert ClusterPlan.from_json(plan.to_json()) == plan


def test_slots_of_a_cluster_file_are_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those and no others, each with its device and its node."""
    monkeypatch.setenv("DDIT_NODE", "outer")

    planned = services(tmp_path, replace(PLAN, slots=SLOTS))

    assert [name for name in planned if name not in {"scheduler-0", "flower"}] == [
        slot.name for slot in SLOTS
    ]
    env = {slot.name: planned[slot.name].env for slot in SLOTS}
    assert [env[slot.name]["DDIT_DEVICE"] for slot in SLOTS] == ["cuda:3", "cpu", "cuda:3"]
    assert [env[slot.name]["DDIT_NODE"] for slot in SLOTS] == ["left", "right", "outer"]


def test_plan_names_its_children_and_their_commands(tmp_path: Path) -> None:
    """Schedulers come first, then a worker for each slot of each phase, then Flower."""
    planned = services(tmp_path, PLAN)

    names = ["scheduler-0", "dit-0", "dit-1", "encode-0", "vae-0", "flower"]
    assert list(planned) == names
    assert planned["scheduler-0"].argv[1:] == ("-m", "ddit_batch.cli", "scheduler")
    assert planned["dit-1"].argv[3:] == ("worker", "--phase", "dit", "--name", "dit-1")
    assert planned["flower"].argv[3:] == ("flower", "--port", "4711")
    assert planned["flower"].url == "http://127.0.0.1:4711"


def test_children_get_the_settings_of_the_cluster(tmp_path: Path) -> None:
    """Every child knows where the services are; what the plan adds wins."""
    env = services(tmp_path, PLAN)["encode-0"].env

    assert env["DDIT_DATABASE_URL"] == "db"
    assert env["DDIT_BROKER_URL"] == "broker"
    assert env["DDIT_ARTIFACTS_URL"] == "/store"
    assert env["DDIT_MODELS"] == "tiny-wan,other"
    assert env["DDIT_BUILT_MODELS_FOLDER"] == str(tmp_path / "models")
    assert env["DDIT_TORCH_THREADS"] == env["OMP_NUM_THREADS"] == "3"
    assert env["DDIT_LEASE_S"] == "9"


def test_each_dit_worker_gets_a_device_of_its_own_first(tmp_path: Path) -> None:
    """Devices go round, starting with the DiT workers; the scheduler gets none."""
    planned = services(tmp_path, PLAN)

    workers = ("dit-0", "dit-1", "encode-0", "vae-0")
    given = [planned[name].env["DDIT_DEVICE"] for name in workers]
    assert given == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]
    assert "DDIT_DEVICE" not in planned["scheduler-0"].env


def test_workers_stop_last_and_may_drain(tmp_path: Path) -> None:
    """The scheduler stops first, so that nothing new comes; workers get their drain time."""
    planned = services(tmp_path, PLAN)

    assert planned["scheduler-0"].stop_order < planned["flower"].stop_order
    assert planned["flower"].stop_order < planned["dit-0"].stop_order
    assert planned["dit-0"].grace_s > 1.5


def test_plan_without_devices_or_threads_leaves_the_choice_to_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is set that the plan does not ask for."""
    for name in ("DDIT_DEVICE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)

    env = services(tmp_path, ClusterPlan(dit_workers=1, models=("tiny-wan",)))["dit-0"].env

    assert "DDIT_DEVICE" not in env
    assert "OMP_NUM_THREADS" not in env


@pytest.mark.parametrize(("policy", "expected"), [("static:dop=2", "static:dop=2"), ("", "dp")])
def test_policy_of_the_plan_goes_before_that_of_the_environment(
    policy: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that names none leaves it to the setting."""
    monkeypatch.setenv("DDIT_POLICY", "dp")

    scheduler, *_ = planned_services(Home(tmp_path), replace(PLAN, policy=policy), AT)

    assert scheduler.env["DDIT_POLICY"] == expected
