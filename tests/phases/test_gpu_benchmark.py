"""The measuring of ``benchmarks/gpu.py``, on a tiny model without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY / "benchmarks"))

import gpu  # noqa: E402 -- a script, not a package
import gpu_results  # noqa: E402

from ddit_batch.job import Phase  # noqa: E402

WORDS = ("--tiny", "--device", "cpu", "--no-profile", "--steps", "3", "--repeats", "1")


def test_the_gpu_benchmark_measures_both_loops_and_all_phases_and_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both loops give the same latents; a second run shows what the first one has kept."""
    file = tmp_path / "results.json"

    gpu.main([*WORDS, "--results", str(file)])

    shown = capsys.readouterr().out
    results = gpu_results.load(file)
    assert [row.size for row in results.steps] == ["small", "large"]
    assert all(row.is_same and row.ratio > 0 for row in results.steps)
    assert {row.phase for row in results.memory} == set(Phase)
    assert torch.__version__ in shown
    monkeypatch.setattr(gpu, "measured", lambda *_: pytest.fail("measured again"))
    gpu.main([*WORDS, "--results", str(file)])
    assert capsys.readouterr().out == shown == gpu_results.page(results)


def test_the_page_that_was_not_measured_says_so() -> None:
    """And names the one command; it is written by the benchmark, like the one that was."""
    page = (REPOSITORY / "docs" / "gpu.md").read_text("utf-8")

    assert gpu_results.COMMAND in page
    assert ("Not run" in page) == (page == gpu_results.page(None))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_benchmark_says_what_is_missing(tmp_path: Path) -> None:
    """And measures nothing."""
    with pytest.raises(SystemExit, match="nothing was measured: device 'cuda:0' is not here"):
        gpu.main(["--results", str(tmp_path / "results.json")])

    assert not list(tmp_path.iterdir())
