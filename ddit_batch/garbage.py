"""What the artifact store holds and nobody needs: found from the store and from Postgres.

Files stay behind where an attempt could not tidy up after itself: its worker died, it was fenced
before its output was named, its job was cancelled while nobody held it. Everything else deletes
what it does not need any more.

Rule 1: only files that the project writes are looked at, by their keys; whatever else lies in the
store's folder is somebody else's.
Rule 2: what Postgres says that somebody may yet ask for (``db/needed_keys.py``) is kept.
Rule 3: the store is listed first, then Postgres is asked. So what was named meanwhile is seen, and
what was just written and will be named is younger than any grace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ddit_batch.artifact import ArtifactStore, Stored
from ddit_batch.artifact_keys import is_made_here
from ddit_batch.db.needed_keys import needed_keys
from ddit_batch.db.reading import Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """What could be deleted, in order of name."""

    files: tuple[Stored, ...]
    too_young: int
    """Files beside those that nobody names either, but that somebody may be about to."""

    @property
    def size_bytes(self) -> int:
        """Of all of them."""
        return sum(file.size_bytes for file in self.files)


def find_garbage(
    store: ArtifactStore, source: Source, *, now: datetime, grace: timedelta
) -> Garbage:
    """What *store* has had for longer than *grace* and the database of *source* does not need.

    Raises:
        RetryablePhaseError: The storage could not be read.
    """
    held = [file for file in store.files() if is_made_here(file.path)]
    needed = needed_keys(source) if held else frozenset()
    unneeded = [file for file in held if file.path not in needed]
    old = tuple(file for file in unneeded if now - file.written_at > grace)
    return Garbage(files=old, too_young=len(unneeded) - len(old))


def delete(store: ArtifactStore, files: Sequence[Stored]) -> None:
    """Delete *files*; one that is gone by now is fine.

    Raises:
        RetryablePhaseError: The storage refused; those before it are gone.
    """
    for file in files:
        store.discard(file)
