"""The shipped model through the whole platform: the videos show what their prompts say."""

from __future__ import annotations

import json
from collections import Counter
from functools import partial
from pathlib import Path

from cluster_tools import Batch, Cluster, Figure
from deciding import deciding
from e2e_prompts import DEMO
from group_cluster import spans

from ddit_batch.cost_model import CostModel
from ddit_batch.job import JobState, Phase
from ddit_batch.policy import make_policy
from ddit_batch.policy.static import Static
from ddit_batch.profile import load_profile, make_cost_model
from demo_model.card import FIGURES, claimed
from demo_model.checker import see
from demo_model.contact_sheet import read_frames
from demo_model.examples import FILE, Example, examples

SHOWN = 0.9
"""The part of the videos that is right in every attribute that the card claims."""
WITHIN_S = 150.0


def test_videos_show_their_prompts_whatever_happens_on_the_way(
    session_cluster: Cluster, figure: Figure
) -> None:
    """One worker each; then in groups that are resized, and with a worker killed: equal bytes."""
    session_cluster.mend({Phase.DIT: 2})
    with deciding(session_cluster, Static(costs=CostModel(), dop=1)):
        alone = session_cluster.submit_file(FILE, model=DEMO)
        alone.wait_done(within_s=WITHIN_S)
    sums = alone.sums()
    profile = load_profile(Path(__file__).with_name("scales_well.yaml"))
    costs = make_cost_model([profile], is_fixed=True)
    with deciding(session_cluster, partial(make_policy, "elastic"), costs=costs):
        disturbed = session_cluster.submit_file(FILE, model=DEMO)
        disturbed.catch(Phase.DIT).kill()
        session_cluster.add_spare(Phase.DIT)
        disturbed.wait_done(within_s=WITHIN_S)

    right = part_right(alone)
    figure("demo videos that show what the card claims", 100 * right, "%")
    assert right >= SHOWN
    disturbed.assert_undisturbed(sums)
    assert any(len(span.workers) > 1 for span in spans(disturbed)), "no group was made"
    assert {len(span.workers) for span in spans(alone)} == {1}
    assert "worker_lost" in outcomes(disturbed)


def part_right(batch: Batch) -> float:
    """The part of its videos in which everything is seen that the card claims."""
    assert batch.count(JobState.SUCCEEDED) == len(batch.custom_ids)
    claims = claimed(json.loads(FIGURES.read_text("utf-8")))
    right = [
        is_right(example, claims, batch.out / f"{example.custom_id}.mp4") for example in examples()
    ]
    return sum(right) / len(right)


def is_right(example: Example, claims: list[str], video: Path) -> bool:
    """Whether *video* shows what is claimed of *example*."""
    agreed = see(read_frames(video)).agrees(example.scene)
    agreed[example.scene.change] = agreed.pop("change")
    return all(ok for name, ok in agreed.items() if name in claims)


def outcomes(batch: Batch) -> Counter[str | None]:
    """How attempts at DiT ended, over all jobs."""
    found: Counter[str | None] = Counter()
    for name in batch.custom_ids:
        found.update(batch.attempts(name, Phase.DIT))
    return found
