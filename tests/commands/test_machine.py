"""Which workers a machine gets: so many, by its GPUs, or as a cluster file says."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ddit_batch.cli import main
from ddit_batch.cli.gpus import devices_for, visible_gpus
from ddit_batch.errors import ConfigError

CLUSTER = """
hosts:
- name: here
  nodes:
  - {name: left, devices: [cpu]}
  - {name: right, devices: [cpu]}
  vae: []
- name: there
"""


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No GPU to be seen, and nothing set."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CUDA_VISIBLE_DEVICES", "DDIT_DEVICE", "DDIT_DATABASE_URL", "DDIT_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def with_gpus(folder: Path, *lines: str, exit_code: int = 0) -> None:
    """Have a driver's program list them."""
    program = folder / "nvidia-smi"
    said = "".join(f"echo '{line}'\n" for line in lines)
    program.write_text(f"#!/bin/sh\n{said}exit {exit_code}\n")
    program.chmod(0o755)


TWO_GPUS = ("GPU 0: H100 (UUID: GPU-1)", "  MIG 1g (UUID: MIG-1)", "GPU 1: H100 (UUID: GPU-2)")


@pytest.mark.usefixtures("machine")
def test_machine_without_a_driver_has_no_gpus() -> None:
    """Its workers run on the processor."""
    assert visible_gpus() == 0
    assert devices_for(4) == ()


@pytest.mark.usefixtures("machine")
def test_each_dit_worker_has_a_gpu_of_its_own(tmp_path: Path) -> None:
    """All GPUs are given in turn, so that encode and VAE come on those that are left over."""
    with_gpus(tmp_path, *TWO_GPUS)

    assert visible_gpus() == 2
    assert devices_for(2) == ("cuda:0", "cuda:1")


@pytest.mark.usefixtures("machine")
def test_more_workers_than_gpus_are_refused(tmp_path: Path) -> None:
    """With both numbers, and what can be done instead."""
    with_gpus(tmp_path, *TWO_GPUS)

    with pytest.raises(ConfigError, match=r"3 DiT workers need 3 GPUs.* has 2: .*DDIT_DEVICE=cpu"):
        devices_for(3)


@pytest.mark.parametrize(("chosen", "count"), [("", 0), ("-1", 0), ("3", 1), ("GPU-1, GPU-2", 2)])
def test_gpus_that_are_hidden_do_not_count(
    machine: pytest.MonkeyPatch, tmp_path: Path, chosen: str, count: int
) -> None:
    """As CUDA itself sees it."""
    with_gpus(tmp_path, *TWO_GPUS)
    machine.setenv("CUDA_VISIBLE_DEVICES", chosen)

    assert visible_gpus() == count


@pytest.mark.usefixtures("machine")
def test_driver_that_does_not_answer_has_no_gpus(tmp_path: Path) -> None:
    """As on a machine whose GPU was taken away."""
    with_gpus(tmp_path, "GPU 0: H100", exit_code=9)

    assert visible_gpus() == 0


def test_one_worker_and_a_chosen_device_need_no_look_at_the_gpus(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One worker finds its device itself, and a device in the environment is everybody's."""
    with_gpus(tmp_path, *TWO_GPUS)
    assert devices_for(1) == ()

    machine.setenv("DDIT_DEVICE", "cpu")
    assert devices_for(3) == ()


def up(folder: Path, *words: str, command: str = "up") -> Result:
    """`ddit up` with a cluster file in an empty home; nothing of this is to start anything."""
    file = folder / "cluster.yaml"
    file.write_text(CLUSTER)
    home = ("--home", str(folder / "home"), "--cluster", str(file))
    done = CliRunner().invoke(main, [command, *words, *home])
    assert not (folder / "home").exists()
    return done


@pytest.mark.usefixtures("machine")
def test_number_and_file_exclude_each_other(tmp_path: Path) -> None:
    """Each says which workers to start."""
    done = up(tmp_path, "--workers", "1")

    assert done.exit_code == 2
    assert "--workers and --cluster both say" in done.stderr


@pytest.mark.usefixtures("machine")
def test_machine_that_is_not_in_the_file_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    done = up(tmp_path)

    assert done.exit_code == 1
    assert "is not in the cluster file, which has here, there" in done.stderr


def test_run_wants_a_worker_of_every_phase_here(
    machine: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No other host will help it; it would wait for ever."""
    machine.setenv("DDIT_HOST", "here")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a cat"}\n')

    done = up(tmp_path, str(prompts), "--out", str(tmp_path / "out"), command="run")

    assert done.exit_code == 1
    assert "no vae worker for host here" in done.stderr


@pytest.mark.parametrize("missing", ["DDIT_BROKER_URL", "DDIT_ARTIFACTS_URL"])
def test_half_a_deployment_is_none(
    machine: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    """Workers for the database of one cluster and the broker of another would be nobody's."""
    machine.setenv("DDIT_HOST", "here")
    for name in ("DDIT_DATABASE_URL", "DDIT_BROKER_URL", "DDIT_ARTIFACTS_URL"):
        machine.setenv(name, "redis://nobody/0")
    machine.delenv(missing)

    done = up(tmp_path)

    assert done.exit_code == 1
    assert f"{missing} is not set" in done.stderr
