"""The artifact store: handoffs, checkpoints and artifacts as whole files under keys.

Rule 1: a key holds all of its bytes or does not exist. A local write goes to a temporary name in
the same folder, to the disk, and then to its own name; an object store gets one put.
Rule 2: the store knows no job and no state. Keys are made in ``artifact_keys.py``; which one counts
is in Postgres.

Errors: what is not there is an ``ArtifactError`` (the phase before must run again); anything else
that the storage says is a ``StorageFailed`` (the disk is full, the network is down: the same
bytes may be fine later). A writer that is killed can leave a temporary file, whose name holds a
``~`` and so is no key.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from ddit_batch.artifact_keys import check_key, is_key
from ddit_batch.errors import ArtifactError, ConfigError, StorageFailed

_ABANDONED_S = 1.0
"""Who writes a file changes it more often; should one pause for longer, no harm is done."""
_CURES = {
    errno.ENOSPC: "free some space, or set DDIT_ARTIFACTS_URL to a larger place",
    errno.EDQUOT: "raise the quota, or set DDIT_ARTIFACTS_URL to a larger place",
    errno.EACCES: "let this process's user write there",
    errno.EPERM: "let this process's user write there",
    errno.EROFS: "mount it writable, or choose another place",
    errno.ENOTDIR: "choose a place that is a folder",
    errno.EISDIR: "move the folder of that name away",
}
_NOT_THERE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What a file system says of a key that nothing is under, or that is a folder of keys."""
_LIBRARIES = frozenset(
    [
        *("adlfs", "aiobotocore", "aiohttp", "azure", "botocore", "gcsfs", "google", "http"),
        *("httpx", "paramiko", "s3fs", "urllib3"),
    ]
)
"""Whose errors come through from remote storages: not all of theirs are OSErrors."""
_ANY_CURE = "check that the storage is up and reachable"


class _FileSystem(Protocol):
    """The part of fsspec's interface that is used here."""

    def cat_file(self, path: str) -> bytes: ...

    def find(self, path: str) -> list[str]: ...

    def info(self, path: str) -> dict[str, object]: ...

    def modified(self, path: str) -> datetime: ...

    def pipe_file(self, path: str, value: bytes) -> None: ...

    def rm_file(self, path: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A file of a store."""

    path: str
    """From the top of the store; its key, if it is under one."""
    size_bytes: int
    written_at: datetime


class ArtifactStore:
    """Whole files under keys, in a local folder or at any URL that fsspec knows."""

    def __init__(self, url: str) -> None:
        """*url* is a folder or, for example, ``s3://bucket/ddit``; it need not exist yet.

        Raises:
            ConfigError: *url* is empty, or no installed package knows its protocol.
        """
        self.url = url
        self._files, self._root = _open(url)

    def put(self, key: str, data: bytes) -> None:
        """Write *data* under *key*, atomically; an older value is replaced.

        Raises:
            ArtifactError: *key* is not a legal key.
            StorageFailed: The storage refused.
        """
        path = self._path(key)
        with _translated("write", self._where(key)):
            _write(self._files, path, data)

    def get(self, key: str) -> bytes:
        """What is under *key*.

        Raises:
            ArtifactError: Nothing is, or *key* is not a legal key.
            StorageFailed: The storage could not be read.
        """
        path = self._path(key)
        with _translated("read", self._where(key)):
            try:
                return self._files.cat_file(path)
            except _NOT_THERE as exc:
                raise _missing(self._where(key)) from exc

    def exists(self, key: str) -> bool:
        """Whether something is under *key*. Raises as ``get`` does, but for what is missing."""
        return self._size_bytes(key) is not None

    def size_bytes(self, key: str) -> int:
        """The size of what is under *key*. Raises as ``get`` does."""
        size_bytes = self._size_bytes(key)
        if size_bytes is None:
            raise _missing(self._where(key))
        return size_bytes

    def delete(self, key: str) -> None:
        """Remove *key*; fine if it is missing. Raises as ``put`` does."""
        path = self._path(key)
        with _translated("delete", self._where(key)), suppress(*_NOT_THERE):
            self._files.rm_file(path)

    def list(self, prefix: str = "") -> tuple[str, ...]:
        """The keys in the folder *prefix* and below it, sorted; all keys if it is empty.

        Raises as ``get`` does, but for what is missing.
        """
        top = self._path(prefix) if prefix else self._root
        with _translated("list", self._where(prefix)):
            try:
                paths = self._files.find(top)
            except FileNotFoundError:
                return ()
        keys = (path.removeprefix(self._root).lstrip("/") for path in paths if path != top)
        return tuple(sorted(key for key in keys if is_key(key)))

    def files(self) -> tuple[Stored, ...]:
        """All files of the store, sorted: those under keys, and whatever else lies there.

        Raises as ``list`` does.
        """
        with _translated("list", _shown(self.url)):
            try:
                found = self._files.find(self._root)
            except FileNotFoundError:
                return ()
            looked_at = [self._look(path) for path in sorted(found) if path != self._root]
        return tuple(file for file in looked_at if file is not None)

    def discard(self, file: Stored) -> None:
        """Remove a file that ``files`` has shown, whatever its name. Raises as ``delete`` does."""
        path = f"{self._root}/{file.path}"
        with _translated("delete", _shown(path)), suppress(*_NOT_THERE):
            self._files.rm_file(path)

    def _look(self, path: str) -> Stored | None:
        """None if it is gone by now."""
        try:
            size_bytes = cast("int", self._files.info(path)["size"])
            written_at = self._files.modified(path)
        except _NOT_THERE:
            return None
        return Stored(
            path=path.removeprefix(self._root).lstrip("/"),
            size_bytes=size_bytes,
            written_at=written_at if written_at.tzinfo else written_at.replace(tzinfo=UTC),
        )

    def deliver(self, key: str, folder_url: str, name: str, *, anew: bool = False) -> str:
        """Make the file *name* in *folder_url* from what is under *key*.

        *anew*: somebody may have died over it; what they left half made in the folder is removed.

        Returns its absolute path if it is local, else its URL.

        Atomic, and safe to repeat: an older file is replaced, and whoever reads it sees the old or
        the new one. On one local device the two are one file with two names; deleting the key
        leaves the user's name.

        Raises:
            ArtifactError: Nothing is under *key*, or *name* is no file name.
            ConfigError: No installed package knows the folder's protocol.
            StorageFailed: The storage refused.
        """
        if name in {"", ".", ".."} or not {"/", "\\", "\0"}.isdisjoint(name):
            raise ArtifactError(f"{name!r} is no file name: see artifact_keys.file_name_for")
        source = self._path(key)
        files, folder = _open(folder_url)
        target = f"{folder}/{name}"
        local = isinstance(files, LocalFileSystem)
        place = target if local else f"{folder_url.rstrip('/')}/{name}"
        if not self.exists(key):
            raise _missing(self._where(key))
        with _translated("write", _shown(place)):
            if local and isinstance(self._files, LocalFileSystem):
                _link_or_copy(Path(source), Path(target))
            else:
                _write(files, target, self.get(key))
            if local and anew:
                _sweep(Path(target))
        return place

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _where(self, key: str) -> str:
        return f"{_shown(self.url)}/{key}"

    def _size_bytes(self, key: str) -> int | None:
        """None if *key* is missing, or a folder of keys."""
        path = self._path(key)
        with _translated("look up", self._where(key)):
            try:
                info = self._files.info(path)
            except _NOT_THERE:
                return None
        return cast("int", info["size"]) if info["type"] == "file" else None


def _at_home(path: str) -> str:
    return os.path.expanduser(path)  # noqa: PTH111 -- leaves the ~name of nobody alone


def _open(url: str) -> tuple[_FileSystem, str]:
    """The file system of *url*, and the path in it."""
    if not url:
        raise ConfigError("the place for artifacts is empty: give a folder or a URL")
    local = "://" not in url and "::" not in url
    try:
        # A listing cached in this process would hide what others write and delete.
        files, path = url_to_fs(_at_home(url) if local else url, use_listings_cache=False)
    except (ImportError, ValueError) as exc:
        raise ConfigError(
            f"no installed package opens {_shown(url)}: {exc}; use a folder, or install "
            "the package (s3fs for s3://, gcsfs for gs://, adlfs for az://)"
        ) from exc
    return files, path.rstrip("/")


def _shown(url: str) -> str:
    """*url* for a message: without a user and password."""
    return re.sub(r"://[^/@]*@", "://", url.rstrip("/"))


def _write(files: _FileSystem, path: str, data: bytes) -> None:
    if isinstance(files, LocalFileSystem):
        _replace(Path(path), lambda temporary: temporary.write_bytes(data))
    else:
        files.pipe_file(path, data)


def _replace(target: Path, fill: Callable[[Path], object]) -> None:
    """Give *target* the file that *fill* makes at a temporary path beside it, and sync both."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{_mark(target)}{uuid.uuid4().hex[:16]}~"
    try:
        fill(temporary)
        _sync(temporary)
        temporary.replace(target)
    finally:
        # After a rename between two names of one file, which does nothing, it is still there.
        temporary.unlink(missing_ok=True)
    _sync(target.parent)


def _mark(target: Path) -> str:
    """What tells the temporary files for *target* from those for others: 16 hex digits."""
    return hashlib.sha256(target.name.encode()).hexdigest()[:16]


def _sweep(target: Path) -> None:
    """Remove the temporary files for *target* at which nobody has written for a while.

    By the clock of their file system, on which *target* has just been made. Should their writer
    live, it finds its file gone and says so, and *target* is there.
    """
    made_s = target.stat().st_ctime
    for left in target.parent.glob(f".{_mark(target)}*~"):
        with suppress(FileNotFoundError):
            if left.stat().st_ctime < made_s - _ABANDONED_S:
                left.unlink()


def _link_or_copy(source: Path, target: Path) -> None:
    """Make *target* one file with *source*, or a copy of it: a link needs no temporary name."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # the name is taken, another device, or a file system without hard links
        if not (target.exists() and target.samefile(source)):
            _replace(target, lambda temporary: _linked_or_copied(source, temporary))
    _sync(target.parent)


def _linked_or_copied(source: Path, temporary: Path) -> None:
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)


def _sync(path: Path) -> None:
    """Wait until the file or folder at *path* is on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def _missing(where: str) -> ArtifactError:
    return ArtifactError(f"{where} is missing: the phase that makes it must run again")


@contextmanager
def _translated(action: str, where: str) -> Iterator[None]:
    """Turn what the storage raises into our errors, with what, where and the cure."""
    try:
        yield
    except Exception as exc:
        if not _is_of_the_storage(exc):
            raise
        errno_, strerror = (exc.errno, exc.strerror) if isinstance(exc, OSError) else (None, None)
        reason = strerror or str(exc) or type(exc).__name__
        cure = _CURES.get(errno_ or 0, _ANY_CURE)
        raise StorageFailed(f"cannot {action} {where}: {reason}: {cure}") from exc


def _is_of_the_storage(exc: Exception) -> bool:
    return isinstance(exc, OSError) or type(exc).__module__.partition(".")[0] in _LIBRARIES
