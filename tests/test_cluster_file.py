"""The cluster file: what may stand in it, and which workers follow from it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
import yaml
from fake_costs import COSTS
from hypothesis import given
from hypothesis import strategies as st

from ddit_batch.cluster_file import WorkerSlot, load_cluster_file
from ddit_batch.errors import ConfigError
from ddit_batch.job import Incarnation, JobId, JobState, Phase, Shape, WorkerName
from ddit_batch.policy import make_policy
from ddit_batch.resources import data_folder
from ddit_batch.snapshot import JobView, Snapshot, Whereabouts, WorkerView

ROOT = Path(__file__).parents[1]
TWO_NODES = """
hosts:
- name: one
  nodes:
  - {name: left, devices: [cpu, cpu, cpu]}
  - {name: right, devices: [cpu, cpu]}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "cluster.yaml"
    path.write_text(text)
    return path


def slots(path: Path, host: str) -> list[tuple[str, str, str]]:
    """Name, device and node of the host's workers."""
    found = load_cluster_file(path).host(host).slots()
    return [(slot.name, slot.device, slot.node) for slot in found]


def test_shipped_example_has_what_its_comments_say() -> None:
    """A host of one node, one of two, and one without a GPU."""
    path = data_folder("configs") / "cluster.yaml"

    assert slots(path, "gpu-a") == [
        *((f"dit-{i}", f"cuda:{i}", "gpu-a") for i in range(4)),
        ("encode-0", "cuda:0", ""),
        ("vae-0", "cuda:3", ""),
    ]
    assert slots(path, "gpu-b") == [
        ("dit-0", "cuda:0", "gpu-b-left"),
        ("dit-1", "cuda:1", "gpu-b-left"),
        ("dit-2", "cuda:2", "gpu-b-right"),
        ("dit-3", "cuda:3", "gpu-b-right"),
        ("encode-0", "cpu", ""),
    ]
    assert [(name, device) for name, device, _ in slots(path, "laptop")] == [
        ("dit-0", "cpu"),
        ("dit-1", "cpu"),
        ("encode-0", "cpu"),
        ("vae-0", "cpu"),
    ]


def test_example_of_the_docs_is_one(tmp_path: Path) -> None:
    """It can be copied from the page."""
    page = (ROOT / "docs" / "deploy.md").read_text("utf-8")
    (example,) = re.findall(r"```yaml\n(hosts:\n.*?)```", page, re.DOTALL)

    assert len(load_cluster_file(written(tmp_path, example)).hosts) == 2


def test_host_without_nodes_has_the_workers_that_it_names(tmp_path: Path) -> None:
    """And none that it does not."""
    path = written(tmp_path, "hosts: [{name: a, vae: [cuda:1, cuda:1]}, {name: b}]")

    assert slots(path, "a") == [("vae-0", "cuda:1", ""), ("vae-1", "cuda:1", "")]
    assert slots(path, "b") == []


BAD = {
    "hosts: []": r"hosts: Tuple should have at least 1 item",
    "nodes: []": r"hosts: Field required",
    "hosts: [{name: a, nodes: [{devices: []}]}]": r"hosts\.0\.nodes\.0\.devices: .* at least 1",
    "hosts: [{name: a@b}]": r"hosts\.0\.name: String should match pattern",
    "hosts: [{name: a, gpus: 4}]": r"hosts\.0\.gpus: Extra inputs are not permitted",
    "hosts: [{name: a, nodes: [{devices: [gpu0]}]}]": r"devices\.0: String should match pattern",
    "hosts: [{name: a, nodes: [{devices: [cuda:0, cuda:0]}]}]": r"host a has cuda:0 twice",
    "hosts: [{name: a, nodes: [{devices: [cuda:0, cpu]}]}]": r"has GPUs and cpu: make two nodes",
    "hosts: [{name: a}, {name: a}]": r"host a is there twice",
    "hosts: [{name: a, nodes: [{devices: [cpu]}, {name: x, devices: [cpu]}]}]": (
        r"host a has several nodes: give each a name"
    ),
    "hosts: [{name: a, nodes: [&n {name: n, devices: [cpu]}]}, {name: b, nodes: [*n]}]": (
        r"node n is there twice"
    ),
}


@pytest.mark.parametrize(("text", "problem"), BAD.items(), ids=list(BAD))
def test_wrong_file_is_refused_with_place_rule_and_cure(
    tmp_path: Path, text: str, problem: str
) -> None:
    """One sentence: file, field, what is wrong, where the format is explained."""
    path = written(tmp_path, text)

    with pytest.raises(ConfigError, match=problem) as caught:
        load_cluster_file(path)

    assert str(caught.value).startswith(f"cluster file {path}: ")
    assert str(caught.value).endswith("; docs/deploy.md has the format")


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """With what the system says of it."""
    with pytest.raises(ConfigError, match=r"cluster file .*/none\.yaml: No such file"):
        load_cluster_file(tmp_path / "none.yaml")


def test_host_that_is_not_in_the_file_is_told_which_are(tmp_path: Path) -> None:
    """And how to say that this machine is one of them."""
    file = load_cluster_file(written(tmp_path, TWO_NODES))

    with pytest.raises(ConfigError, match=r"host 'other' is not .* has one: .*DDIT_HOST"):
        file.host("other")


devices = st.lists(st.integers(0, 3).map("cuda:{}".format), min_size=1, max_size=4, unique=True)
nodes = st.one_of(devices, st.lists(st.just("cpu"), min_size=1, max_size=3))


@given(
    hosts=st.lists(st.lists(nodes, max_size=3), min_size=1, max_size=3),
    extra=st.lists(st.sampled_from(["cpu", "cuda:0"]), max_size=2),
)
def test_every_device_has_one_dit_worker_of_its_node(
    tmp_path_factory: pytest.TempPathFactory, hosts: list[list[list[str]]], extra: list[str]
) -> None:
    """Whatever the cluster: names count up on a host, in the order of the file."""
    described = [
        {
            "name": f"h{i}",
            "nodes": [{"name": f"h{i}n{j}", "devices": found} for j, found in enumerate(host)],
            "encode": extra,
        }
        for i, host in enumerate(hosts)
    ]
    gpus = [[d for node in host for d in node if d != "cpu"] for host in hosts]
    path = written(tmp_path_factory.mktemp("file"), yaml.safe_dump({"hosts": described}))

    if any(len(set(found)) < len(found) for found in gpus):
        with pytest.raises(ConfigError, match="twice"):
            load_cluster_file(path)
        return
    file = load_cluster_file(path)

    for i, host in enumerate(hosts):
        dit = [slot for slot in file.host(f"h{i}").slots() if slot.phase is Phase.DIT]
        assert [slot.name for slot in dit] == [f"dit-{n}" for n in range(len(dit))]
        assert [
            [slot.device for slot in group] for _, group in groupby(dit, key=lambda slot: slot.node)
        ] == host
        encode = [s.device for s in file.host(f"h{i}").slots() if s.phase is Phase.ENCODE]
        assert encode == extra


def workers_of(found: Iterable[WorkerSlot], host: str) -> tuple[WorkerView, ...]:
    """The slots' workers as they register."""
    return tuple(
        WorkerView(
            name=WorkerName(f"{slot.name}@{host}"),
            incarnation=Incarnation(number),
            phase=slot.phase,
            host=host,
            node=slot.node or host,
            models=frozenset({"m"}),
            draining=False,
            lease_expired=False,
        )
        for number, slot in enumerate(found)
    )


def a_job(number: int, **changes: object) -> JobView:
    job = JobView(
        job_id=JobId(f"b-{number}"),
        batch_id="b",
        state=JobState.ENCODED,
        priority=0,
        seq=number,
        model="m",
        shape=Shape(64, 64, 9),
        steps=40,
        step=0,
        attempt=0,
        dop=0,
        message=Whereabouts.NONE,
        group=(),
        holder=None,
        worker_losses=0,
        cancel_requested=False,
        arrived_s=0.0,
    )
    return replace(job, **changes)


@pytest.mark.parametrize("policy", ["elastic", "ddit", "static:dop=2", "static:dop=3", "dp"])
@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_groups_stay_inside_the_nodes_of_the_file(tmp_path: Path, policy: str, jobs: int) -> None:
    """On one machine with two nodes: a group is as wide as a node allows, and no wider."""
    crew = workers_of(load_cluster_file(written(tmp_path, TWO_NODES)).host("one").slots(), "one")
    node_of = {worker.name: worker.node for worker in crew}
    world = Snapshot(
        now_s=0.0,
        jobs=tuple(a_job(number) for number in range(jobs)),
        workers=crew,
        waiting_to_decode=0,
        may_lose_workers=True,
    )

    groups = make_policy(policy, COSTS).plan(world).values()

    assert groups
    assert all(len({node_of[name] for name in group}) == 1 for group in groups)
    assert max(map(len, groups)) <= 3
