"""One warm cluster for the session, the reference of an undisturbed run, and a list of figures."""

from __future__ import annotations

import importlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from broken_pipeline import break_vae
from cluster_tools import Batch, Cluster, Figure, Sums
from deciding import deciding
from e2e_processes import MARK
from e2e_prompts import (
    ALL,
    DEMO,
    EULER,
    EULER_CP,
    GROUP_TIMEOUT_S,
    GROUPED,
    STORE_PATIENCE_S,
    TINY_CP,
)
from group_cluster import groups, ids, spans
from installed_wheel import build_wheel, install
from scripted import Scripted

from ddit_batch.embedded.cluster import start_cluster, stop_cluster
from ddit_batch.embedded.home import Home
from ddit_batch.embedded.plan import ClusterPlan
from ddit_batch.job import Phase
from ddit_batch.resources import data_folder

Builder = tuple["subprocess.Popen[bytes]", Path]
"""A process that builds a pipeline, and where."""

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FIGURES] = []


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if config.stash[FIGURES]:
        terminalreporter.section("figures of the end-to-end tests")
        for line in config.stash[FIGURES]:
            terminalreporter.line(line)


@pytest.fixture(scope="session")
def figure(pytestconfig: pytest.Config) -> Figure:
    """Keep a measured value to be shown at the end of the session."""

    def keep(name: str, value: float, unit: str) -> None:
        pytestconfig.stash[FIGURES].append(f"{name:<72} {value:8.2f} {unit}")

    return keep


@pytest.fixture(scope="session", autouse=True)
def model_builder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """Builds a pipeline while the first tests run, which need none."""
    folder = tmp_path_factory.mktemp("models") / EULER
    words = ("-m", "ddit_batch.phases.models.tiny", str(folder), "--solver", "euler")
    with subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL) as process:
        yield process, folder
        process.kill()


@pytest.fixture(scope="session")
def model_folders(model_builder: Builder) -> dict[str, Path]:
    """Pipelines in diffusers' format: a good one, and one whose videos cannot be decoded."""
    process, folder = model_builder
    assert process.wait() == 0
    return {EULER: folder, "broken": break_vae(folder, folder.with_name("broken"))}


@pytest.fixture(scope="session")
def configs_folder(
    model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Configs of the same models for the other backend of sequence parallelism."""
    folder = tmp_path_factory.mktemp("configs")
    shipped = yaml.safe_load((data_folder("configs") / "models" / "tiny-wan.yaml").read_text())
    sources = {TINY_CP: shipped["source"], EULER_CP: str(model_folders[EULER])}
    for name, source in sources.items():
        other = {"name": name, "source": source, "parallelism": {"backend": "diffusers"}}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**shipped, **other}))
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this tree."""
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` of an environment that knows the wheel and not this tree."""
    return install(wheel, tmp_path_factory.mktemp("venv"))


@pytest.fixture(scope="session")
def session_cluster(
    tmp_path_factory: pytest.TempPathFactory,
    model_folders: dict[str, Path],
    configs_folder: Path,
) -> Iterator[Cluster]:
    """One worker for each phase and two schedulers; it ends with this process."""
    home = Home(tmp_path_factory.mktemp("cluster") / "home")
    plan = ClusterPlan(
        dit_workers=1,
        schedulers=2,
        models=(
            "tiny-wan",
            str(model_folders[EULER]),
            DEMO,
            str(model_folders["broken"]),
            TINY_CP,
            EULER_CP,
        ),
        torch_threads=1,
        devices=("cpu",),
        extra_env=(
            (MARK, str(home.path)),
            ("DDIT_MODELS_FOLDER", str(configs_folder)),
            ("DDIT_GROUP_TIMEOUT_S", str(GROUP_TIMEOUT_S)),
            ("DDIT_STORE_PATIENCE_S", str(STORE_PATIENCE_S)),
        ),
    )
    start_cluster(home, plan, with_parent=True)
    cluster = Cluster(home, plan, configs_folder)
    yield cluster
    cluster.close()
    stop_cluster(home)


@pytest.fixture
def cluster(session_cluster: Cluster) -> Cluster:
    """The cluster, whole, with one or two workers for each phase."""
    session_cluster.mend()
    return session_cluster


@pytest.fixture(scope="session")
def undisturbed_batch(session_cluster: Cluster, figure: Figure) -> Batch:
    """All requests, run once with nothing in their way."""
    session_cluster.mend()
    begun_s = time.monotonic()
    batch = session_cluster.submit(*ALL)
    importlib.import_module("plain_pipeline")  # seconds of imports, while others work
    batch.wait_done()
    batch.wait_delivered()
    figure(f"undisturbed run of {len(ALL)} jobs", time.monotonic() - begun_s, "s")
    return batch


@pytest.fixture(scope="session")
def undisturbed(undisturbed_batch: Batch) -> dict[str, Sums]:
    """The digests of every video, by custom_id, when nothing is in the way."""
    return undisturbed_batch.sums()


@pytest.fixture
def four_workers(session_cluster: Cluster) -> Cluster:
    """The cluster with DiT workers 0 to 3."""
    session_cluster.mend({Phase.DIT: 4})
    return session_cluster


@pytest.fixture(scope="session")
def alone(session_cluster: Cluster) -> dict[str, Sums]:
    """The digests of the videos of jobs for groups, denoised by one worker from end to end."""
    session_cluster.mend({Phase.DIT: 4})
    script = Scripted(stages=[{name: (i,) for i, name in enumerate(GROUPED)}])
    with deciding(session_cluster, script):
        batch = session_cluster.submit(*GROUPED)
        script.jobs = ids(batch)
        batch.wait_done()
    found = spans(batch)
    assert all([len(workers) for workers in groups(found, name)] == [1] for name in GROUPED)
    return batch.sums()
