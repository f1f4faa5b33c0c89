import errno
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pytest

from ddit_batch.artifact import ArtifactStore
from ddit_batch.errors import ArtifactError, ConfigError, RetryablePhaseError


@pytest.fixture(params=["folder", "file url", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param != "memory":
        yield f"{'file://' if request.param == 'file url' else ''}{tmp_path}/store"
        return
    root = f"memory://{uuid.uuid4().hex}"
    yield root
    files, path = fsspec.core.url_to_fs(root)
    if files.exists(path):
        files.rm(path, recursive=True)


@pytest.fixture
def store(url: str) -> ArtifactStore:
    return ArtifactStore(url)


@pytest.fixture
def folder_store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"))


def failing(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Every kind of storage


@pytest.mark.parametrize("data", [b"", b"\x00\xffbytes", b"x" * 3_000_000], ids=len)
def test_what_was_put_is_there(store: ArtifactStore, data: bytes) -> None:
    """What goes in comes out, byte for byte."""
    store.put("jobs/j/dit.a1/latents.safetensors", data)

    assert store.get("jobs/j/dit.a1/latents.safetensors") == data
    assert store.exists("jobs/j/dit.a1/latents.safetensors")
    assert store.size_bytes("jobs/j/dit.a1/latents.safetensors") == len(data)


def test_another_process_sees_what_was_put_and_deleted(url: str) -> None:
    """A store remembers nothing of its own."""
    writer, reader = ArtifactStore(url), ArtifactStore(url)
    assert not reader.exists("a/b")
    assert reader.list("a") == ()

    writer.put("a/b", b"1")
    assert reader.get("a/b") == b"1"
    assert reader.list("a") == ("a/b",)

    writer.delete("a/b")
    assert not reader.exists("a/b")
    assert reader.list() == ()


def test_a_second_put_replaces_the_first(store: ArtifactStore) -> None:
    """Writing again is harmless."""
    store.put("a", b"long old value")
    store.put("a", b"new")

    assert store.get("a") == b"new"
    assert store.list() == ("a",)


@pytest.mark.parametrize("key", ["missing", "folder/missing", "folder", "folder/key/below"])
def test_what_is_missing_is_an_artifact_error(store: ArtifactStore, key: str) -> None:
    """A missing key is told from a storage that does not answer; a folder is no key."""
    store.put("folder/key", b"1")

    assert not store.exists(key)
    for ask in (store.get, store.size_bytes):
        with pytest.raises(ArtifactError, match=f"{key} is missing"):
            ask(key)


def test_deleting_twice_is_fine(store: ArtifactStore) -> None:
    """Cleaning up may be repeated, and may meet what is gone."""
    store.put("a/b", b"1")

    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")

    assert store.list() == ()


def test_keys_are_listed_by_folder_in_order(store: ArtifactStore) -> None:
    """A prefix is a folder: a neighbour whose name only begins alike is not in it."""
    for key in ("j/a2/x", "j/a1/y", "j/a1/x", "j/a10/x", "k"):
        store.put(key, b"")

    assert store.list("j/a1") == ("j/a1/x", "j/a1/y")
    assert store.list("j") == ("j/a1/x", "j/a1/y", "j/a10/x", "j/a2/x")
    assert store.list() == ("j/a1/x", "j/a1/y", "j/a10/x", "j/a2/x", "k")
    assert store.list("nothing/there") == ()


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "..",
        "a/../b",
        "a/./b",
        "a//b",
        "a/",
        "a b",
        "a\\b",
        "a\n",
        "a\0",
        "ä",
        "a~",
    ],
)
def test_a_key_that_could_lead_out_is_refused(tmp_path: Path, key: str) -> None:
    """No key reaches a file outside the store, whatever is asked."""
    (tmp_path / "b").write_bytes(b"secret")
    store = ArtifactStore(str(tmp_path / "store"))

    for ask in (store.get, store.exists, store.size_bytes, store.delete):
        with pytest.raises(ArtifactError, match="a key is relative"):
            ask(key)
    with pytest.raises(ArtifactError, match="a key is relative"):
        store.put(key, b"")
    with pytest.raises(ArtifactError, match="a key is relative"):
        store.deliver(key, str(tmp_path), "x")

    assert contents(tmp_path) == {"b": b"secret"}


def test_a_place_that_cannot_be_opened_is_a_config_error() -> None:
    """A URL that nothing here can open says what to install, and keeps its password."""
    with pytest.raises(ConfigError, match=r"no installed package opens nope://x: .* install"):
        ArtifactStore("nope://user:secret@x")
    with pytest.raises(ConfigError, match=r"is empty: give a folder or a URL"):
        ArtifactStore("")


# Atomicity on a local disk


def test_a_writer_killed_in_the_middle_leaves_no_key(tmp_path: Path) -> None:
    """A SIGKILL while bytes are on their way to the disk: the old value stands, or nothing does."""
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from ddit_batch.artifact import ArtifactStore

        def write_half(self, data):
            with self.open("wb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)

        store = ArtifactStore(sys.argv[1])
        store.put("a/old", b"old value")
        Path.write_bytes = write_half
        store.put(sys.argv[2], b"new value" * 1000)
        """
    )

    for key in ("a/old", "a/new"):
        died = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path), key], check=False, timeout=60
        )
        assert died.returncode == -signal.SIGKILL

    store = ArtifactStore(str(tmp_path))
    assert store.list() == ("a/old",)
    assert store.get("a/old") == b"old value"
    assert len(contents(tmp_path)) == 3  # the two temporary files, which are no keys


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_put_that_fails_leaves_the_old_value_and_no_litter(
    folder_store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A disk that fills up half-way costs only the new value."""
    folder_store.put("a/b", b"old")
    monkeypatch.setattr(
        *{"fsync": (os, "fsync"), "replace": (Path, "replace")}[step], failing(errno.ENOSPC)
    )

    with pytest.raises(RetryablePhaseError, match="No space left on device: free some space"):
        folder_store.put("a/b", b"new")

    monkeypatch.undo()
    assert contents(tmp_path) == {"store/a/b": b"old"}


def test_a_put_is_on_the_disk_before_it_has_its_name(
    folder_store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order is: bytes, sync, name, sync of the folder."""
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(opened: int) -> None:
        events.append("sync folder" if stat.S_ISDIR(os.fstat(opened).st_mode) else "sync file")
        fsync(opened)

    def noting_replace(self: Path, target: Path) -> Path:
        events.append("name")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    folder_store.put("a", b"1")

    assert events == ["sync file", "name", "sync folder"]


@pytest.mark.parametrize(
    ("code", "cure"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "raise the quota"),
        (errno.EACCES, "let this process's user write there"),
        (errno.EROFS, "mount it writable"),
        (errno.EIO, "check that the storage is up"),
    ],
)
def test_what_the_storage_says_becomes_what_where_and_cure(
    folder_store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, code: int, cure: str
) -> None:
    """A storage error can be retried, and tells a person what to do."""
    monkeypatch.setattr(Path, "write_bytes", failing(code))

    with pytest.raises(RetryablePhaseError) as caught:
        folder_store.put("a/b", b"1")

    assert f"cannot write {folder_store.url}/a/b: {os.strerror(code)}: {cure}" in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_storage_that_does_not_answer_is_not_taken_for_a_missing_key(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network fault must not make the phase before run again."""
    store.put("a", b"1")
    for method in ("info", "cat_file", "find"):
        monkeypatch.setattr(type(store._files), method, failing(errno.ETIMEDOUT))

    for ask in (store.get, store.exists, store.size_bytes, store.list):
        with pytest.raises(RetryablePhaseError, match="timed out: check that the storage"):
            ask("a")


# Delivery


@pytest.fixture(params=["folder", "memory"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "folder":
        return str(tmp_path / "out" / "videos")
    return f"memory://{uuid.uuid4().hex}/videos"


def read(place: str) -> bytes:
    with fsspec.open(place, "rb") as file:
        data = file.read()
    assert isinstance(data, bytes)
    return data


def test_a_delivered_file_holds_the_artifact_under_the_users_name(
    store: ArtifactStore, out: str
) -> None:
    """From any storage to any place."""
    store.put("jobs/j/vae.a1/video.mp4", b"video")

    place = store.deliver("jobs/j/vae.a1/video.mp4", out, "a cät.mp4")

    assert place.endswith("/videos/a cät.mp4")
    assert read(place) == b"video"


def test_delivering_again_changes_nothing(store: ArtifactStore, out: str) -> None:
    """A delivery may be repeated after any crash."""
    store.put("a/video.mp4", b"video")

    places = {store.deliver("a/video.mp4", out, "x.mp4") for _ in range(3)}

    assert len(places) == 1
    assert read(places.pop()) == b"video"
    assert store.get("a/video.mp4") == b"video"


def test_an_older_delivery_is_replaced(store: ArtifactStore, out: str) -> None:
    """A job that was run again shows its new video, and the old artifact is untouched."""
    store.put("a1/video.mp4", b"old")
    store.put("a2/video.mp4", b"new")

    store.deliver("a1/video.mp4", out, "x.mp4")
    place = store.deliver("a2/video.mp4", out, "x.mp4")

    assert read(place) == b"new"
    assert store.get("a1/video.mp4") == b"old"


def test_delivering_what_is_missing_is_an_artifact_error(store: ArtifactStore, out: str) -> None:
    """A lost artifact is said to be lost, and no file appears."""
    with pytest.raises(ArtifactError, match=r"a/video\.mp4 is missing"):
        store.deliver("a/video.mp4", out, "x.mp4")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../b", "a\\b", "a\0"])
def test_a_delivered_name_cannot_leave_its_folder(
    folder_store: ArtifactStore, tmp_path: Path, name: str
) -> None:
    """A name with a separator is refused."""
    folder_store.put("a", b"1")

    with pytest.raises(ArtifactError, match="is no file name"):
        folder_store.deliver("a", str(tmp_path / "out"), name)


def test_a_local_delivery_takes_no_second_space_and_outlives_its_key(
    folder_store: ArtifactStore, tmp_path: Path
) -> None:
    """On one device the user's file is a hard link; repeated deliveries leave no litter."""
    folder_store.put("a", b"video")

    for _ in range(2):
        place = folder_store.deliver("a", str(tmp_path / "out"), "x.mp4")
    assert Path(place).samefile(tmp_path / "store" / "a")
    folder_store.delete("a")

    assert contents(tmp_path) == {"out/x.mp4": b"video"}


def test_a_name_that_is_a_link_to_nowhere_is_replaced(
    folder_store: ArtifactStore, tmp_path: Path
) -> None:
    """What the user's folder holds under the name is an older file, whatever it is."""
    folder_store.put("a", b"video")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "x.mp4").symlink_to(tmp_path / "gone")

    place = folder_store.deliver("a", str(tmp_path / "out"), "x.mp4")

    assert Path(place).read_bytes() == b"video"
    assert not Path(place).is_symlink()


def test_what_a_killed_deliverer_left_half_made_goes_when_another_delivers(tmp_path: Path) -> None:
    """Where files are copied, they have a name of their own until they are whole."""
    script = textwrap.dedent(
        """
        import os, shutil, signal, sys
        from ddit_batch.artifact import ArtifactStore

        def link(source, target):
            raise OSError("no links here")

        def copy_half(source, target):
            target.write_bytes(b"vid")
            os.kill(os.getpid(), signal.SIGKILL)

        store = ArtifactStore(sys.argv[1])
        store.put("a", b"video")
        os.link, shutil.copyfile = link, copy_half
        store.deliver("a", sys.argv[2], "x.mp4")
        """
    )
    out = tmp_path / "out"
    words = [sys.executable, "-c", script, str(tmp_path / "store"), str(out)]
    died = subprocess.run(words, check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert len(contents(out)) == 1
    (out / ".other~").write_bytes(b"of somebody else")

    time.sleep(1.2)  # so long a living writer may pause

    ArtifactStore(str(tmp_path / "store")).deliver("a", str(out), "x.mp4", anew=True)

    assert contents(out) == {"x.mp4": b"video", ".other~": b"of somebody else"}


def test_a_new_artifact_under_an_old_key_does_not_change_the_delivered_file(
    folder_store: ArtifactStore, tmp_path: Path
) -> None:
    """A late writer cannot reach the user's file through the link."""
    folder_store.put("a", b"video")
    place = folder_store.deliver("a", str(tmp_path / "out"), "x.mp4")

    folder_store.put("a", b"late")

    assert Path(place).read_bytes() == b"video"


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_a_place_without_hard_links_gets_a_copy(
    folder_store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """Another device, or a file system that knows no links, gets the bytes, whole or not at all."""
    folder_store.put("a", b"video")
    monkeypatch.setattr(os, "link", failing(code))

    for _ in range(2):
        place = folder_store.deliver("a", str(tmp_path / "out"), "x.mp4")

    assert not Path(place).samefile(tmp_path / "store" / "a")
    assert contents(tmp_path / "out") == {"x.mp4": b"video"}


def test_a_delivery_that_fails_leaves_the_old_file_and_no_litter(
    folder_store: ArtifactStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user sees the old video or the new one, never a part."""
    folder_store.put("a1", b"old")
    folder_store.put("a2", b"new")
    folder_store.deliver("a1", str(tmp_path / "out"), "x.mp4")
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    monkeypatch.setattr("shutil.copyfile", failing(errno.ENOSPC))

    with pytest.raises(RetryablePhaseError, match=r"cannot write .*out/x.mp4: No space left"):
        folder_store.deliver("a2", str(tmp_path / "out"), "x.mp4")

    assert contents(tmp_path / "out") == {"x.mp4": b"old"}


# What lies in a store


def test_all_files_are_shown_with_size_and_age(store: ArtifactStore, url: str) -> None:
    """Under keys or not; none in a store that is not there yet."""
    assert store.files() == ()
    before = datetime.now(UTC) - timedelta(seconds=2)
    store.put("jobs/j/dit.a1/latents.safetensors", b"123")
    files, path = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{path}/jobs/.a b~", b"12345")

    found = store.files()

    assert [(f.path, f.size_bytes) for f in found] == [
        ("jobs/.a b~", 5),
        ("jobs/j/dit.a1/latents.safetensors", 3),
    ]
    assert all(before < f.written_at < datetime.now(UTC) + timedelta(seconds=2) for f in found)


def test_what_was_shown_can_be_discarded_whatever_its_name(store: ArtifactStore, url: str) -> None:
    """Once or twice; its neighbour stays."""
    store.put("kept", b"1")
    files, path = fsspec.core.url_to_fs(url)
    files.pipe_file(f"{path}/.a b~", b"12345")
    (odd,) = (file for file in store.files() if file.path != "kept")

    store.discard(odd)
    store.discard(odd)

    assert [file.path for file in store.files()] == ["kept"]
