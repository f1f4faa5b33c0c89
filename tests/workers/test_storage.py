"""A store that fails is tried again for a while, and a full one leaves nothing half."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_server import BucketServer, bucket_server
from small_disk import fill, needs_mounts, small_disk

from ddit_batch.errors import ArtifactError, StorageFailed
from workers.storage import PatientStore

DATA = b"d" * 20_000


@needs_mounts
def test_full_disk_is_a_failure_after_the_patience_and_leaves_no_file(tmp_path: Path) -> None:
    """The message says what to do; the older value is still there."""
    with small_disk(tmp_path, size_kib=256):
        store = PatientStore(str(tmp_path / "store"), patience_s=0.5)
        store.put("a/b", b"old")
        filler = fill(tmp_path)

        begun_s = time.monotonic()
        with pytest.raises(StorageFailed, match=r"No space left on device: free some space"):
            store.put("a/b", DATA)
        took_s = time.monotonic() - begun_s

        assert 0.1 < took_s < 2.0
        assert [path.name for path in (tmp_path / "store/a").iterdir()] == ["b"]
        assert store.get("a/b") == b"old"
        filler.unlink()
        store.put("a/b", DATA)
        assert store.get("a/b") == DATA


@needs_mounts
def test_disk_that_has_room_again_in_time_is_no_failure(tmp_path: Path) -> None:
    """The write waits for it."""
    with small_disk(tmp_path, size_kib=256):
        store = PatientStore(str(tmp_path), patience_s=20.0)
        filler = fill(tmp_path)
        freeing = threading.Timer(0.5, filler.unlink)
        freeing.start()

        store.put("a/b", DATA)

        freeing.join()
        assert store.get("a/b") == DATA


@pytest.fixture
def server() -> Iterator[BucketServer]:
    """A store behind HTTP."""
    with bucket_server() as server:
        yield server


@pytest.mark.parametrize("fault", ["refusals", "truncations"])
def test_remote_store_that_fails_for_a_moment_is_asked_again(
    server: BucketServer, fault: str
) -> None:
    """Too many requests, or a connection that breaks in the middle of an object."""
    store = PatientStore(server.url, patience_s=10.0)
    store.put("a/b", DATA)
    setattr(server, fault, 2)

    assert store.get("a/b") == DATA
    setattr(server, fault, 2)
    store.put("a/c", DATA)
    assert store.get("a/c") == DATA


@pytest.mark.parametrize(
    ("fault", "said"), [("refusals", "503"), ("truncations", "IncompleteRead")]
)
def test_remote_store_that_goes_on_failing_is_a_failure_of_the_store(
    server: BucketServer, fault: str, said: str
) -> None:
    """Whatever class its library has for that; half an object is never taken for the whole."""
    store = PatientStore(server.url, patience_s=0.3)
    store.put("a/b", DATA)
    setattr(server, fault, 1000)

    with pytest.raises(StorageFailed, match=f"cannot read bucket://.*{said}"):
        store.get("a/b")


def test_what_is_missing_is_not_waited_for(tmp_path: Path) -> None:
    """It will not come by itself."""
    store = PatientStore(str(tmp_path), patience_s=60.0)

    begun_s = time.monotonic()
    with pytest.raises(ArtifactError, match="is missing"):
        store.get("a/b")
    assert not store.exists("a/b")

    assert time.monotonic() - begun_s < 1.0
