"""What a worker that has died did not deliver, another one does."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ddit_batch.artifact import ArtifactStore
from ddit_batch.db.deliveries import Delivery
from ddit_batch.job import JobId
from workers.deliveries import AGAIN_S, Deliverer


@dataclass
class Noted:
    """In place of the database: what is due, and what was said to be made."""

    waiting: list[Delivery] = field(default_factory=list)
    done: list[Delivery] = field(default_factory=list)

    def due(self, *, older_s: float, limit: int) -> list[Delivery]:
        """What is not done."""
        assert older_s > 0
        return [delivery for delivery in self.waiting if delivery not in self.done][:limit]

    def made(self, delivery: Delivery) -> None:
        """Keep it."""
        self.done.append(delivery)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """A store with one finished job in it."""
    store = ArtifactStore(str(tmp_path / "store"))
    for key in ("video", "manifest", "latents"):
        store.put(key, key.encode())
    return store


def a_delivery(tmp_path: Path, number: int = 1) -> Delivery:
    return Delivery(
        job_id=JobId(f"b0-{number:06d}"),
        custom_id=f"clip-{number}",
        out_url=str(tmp_path / "out"),
        artifact_key="video",
        manifest_key="manifest",
        latents_key="latents",
    )


def test_what_is_due_is_made_noted_and_tidied(tmp_path: Path, store: ArtifactStore) -> None:
    """Both files under the user's name; the latents are gone."""
    noted = Noted(waiting=[a_delivery(tmp_path)])

    Deliverer(noted, store).catch_up()

    assert (tmp_path / "out/clip-1.mp4").read_bytes() == b"video"
    assert (tmp_path / "out/clip-1.json").read_bytes() == b"manifest"
    assert noted.done == noted.waiting
    assert not store.exists("latents")


def test_what_was_refused_is_tried_again_later_and_holds_up_nobody(
    tmp_path: Path, store: ArtifactStore
) -> None:
    """A folder that cannot be written is tried now and then; the others are served meanwhile."""
    (tmp_path / "closed").write_text("a file where the folder should be")
    bad = [
        replace(a_delivery(tmp_path, number), out_url=str(tmp_path / "closed"))
        for number in range(2, 20)
    ]
    good = a_delivery(tmp_path, 20)
    noted = Noted(waiting=[*bad, good])
    now_s = [0.0]
    deliverer = Deliverer(noted, store, clock=lambda: now_s[0])

    deliverer.catch_up()
    deliverer.catch_up()
    served = list(noted.done)
    (tmp_path / "closed").unlink()
    deliverer.catch_up()
    too_soon = list(noted.done)
    now_s[0] += AGAIN_S + 1.0
    deliverer.catch_up()
    deliverer.catch_up()

    assert served == too_soon == [good]
    assert {delivery.custom_id for delivery in noted.done} == {
        delivery.custom_id for delivery in noted.waiting
    }
