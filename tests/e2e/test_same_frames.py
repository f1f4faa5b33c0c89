from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_tools import Batch, Figure, Sums
from e2e_prompts import ALL, EULER, LINES

from ddit_batch.manifest import sha256_hex

Shown = Callable[[dict[str, Any]], tuple[Any, bytes]]
"""From a line to the frames (F, H, W, 3) that plain diffusers shows, and an mp4 file of them."""


@pytest.fixture(scope="module")
def plain(undisturbed_batch: Batch, model_folders: dict[str, Path]) -> dict[str, Shown]:
    """The pipeline of each model, whole, in this process."""
    from plain_pipeline import PlainPipeline  # noqa: PLC0415 -- seconds of imports

    tiny_wan = undisturbed_batch.cluster.home.models / "tiny-wan"
    return {
        "tiny-wan": PlainPipeline(tiny_wan, max_sequence_length=64).show,
        EULER: PlainPipeline(model_folders[EULER], max_sequence_length=512).show,
    }


@pytest.mark.parametrize("custom_id", ALL)
def test_videos_are_those_of_one_plain_call_of_diffusers(
    custom_id: str, undisturbed_batch: Batch, plain: dict[str, Shown]
) -> None:
    """Through three processes, frames and file are the plain pipeline's, bit for bit."""
    line: dict[str, Any] = LINES[custom_id]

    frames, video = plain[line["model"]](line)

    assert frames.shape == (line["num_frames"], line["height"], line["width"], 3)
    expected = Sums(frames=sha256_hex(frames.tobytes()), video=sha256_hex(video))
    assert Sums.of(undisturbed_batch.manifest(custom_id)) == expected
    assert (undisturbed_batch.out / f"{custom_id}.mp4").read_bytes() == video


def test_each_phase_ran_once_in_a_process_of_its_own(
    undisturbed_batch: Batch, undisturbed: dict[str, Sums], figure: Figure
) -> None:
    """The attempts of every job name three processes, and nothing was done twice."""
    rows = undisturbed_batch.cluster.rows(
        "SELECT j.custom_id, array_agg(a.phase::text ORDER BY a.claimed_at), "
        "       count(DISTINCT w.pid), array_agg(DISTINCT a.outcome) "
        "FROM attempts a JOIN jobs j ON j.id = a.job_id JOIN workers w USING (incarnation) "
        "WHERE batch_id = %s GROUP BY 1",
        undisturbed_batch.batch_id,
    )

    assert {row[0] for row in rows} == set(ALL)
    for _custom_id, phases, processes, outcomes in rows:
        assert (phases, processes, outcomes) == (["encode", "dit", "vae"], 3, ["finish"])
    undisturbed_batch.assert_undisturbed(undisturbed)
    figure("videos equal to plain diffusers, bit for bit", len(ALL), f"of {len(ALL)}")
