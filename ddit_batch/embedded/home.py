"""The home folder of embedded mode: where everything is, and whether a cluster runs in it.

Only paths and the state file; nothing here starts or stops a process. Who does: ``cluster``.
"""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ddit_batch.embedded.lock import is_held
from ddit_batch.errors import ServiceError

_SOCKET_FOLDER = re.compile(r"[A-Za-z0-9_./-]{1,88}")
"""A socket's path has at most 103 bytes on macOS, 107 on Linux, of which the longest name that we
put there takes 14. Postgres and the URLs give a meaning to commas, blanks and the like."""


@dataclass(frozen=True, slots=True)
class Home:
    """The paths inside one home folder. Absolute, whatever was given."""

    path: Path = Path(".ddit")

    def __post_init__(self) -> None:
        path = os.path.expanduser(self.path)  # noqa: PTH111 -- leaves the ~name of nobody alone
        object.__setattr__(self, "path", Path(path).resolve())

    @property
    def data(self) -> Path:
        """What Postgres and Valkey keep."""
        return self.path / "data"

    @property
    def logs(self) -> Path:
        """One log a process."""
        return self.path / "logs"

    @property
    def store(self) -> Path:
        """Handoffs, checkpoints and artifacts."""
        return self.path / "store"

    @property
    def models(self) -> Path:
        """The ``builtin:`` models, built on first use."""
        return self.path / "models"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor for its life."""
        return self.path / "supervisor.lock"

    @property
    def cluster_file(self) -> Path:
        """The state that the supervisor publishes."""
        return self.path / "cluster.json"

    def log(self, name: str) -> Path:
        """The log of the process *name*."""
        return self.logs / f"{name}.log"

    def create(self) -> None:
        """Make the folders that are missing, for this user alone.

        Raises:
            ServiceError: They cannot be made here.
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in (self.data, self.logs, self.store, self.models):
                folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as exc:
            raise ServiceError(
                f"cannot make the home folder {self.path} ({exc.strerror}): "
                "choose a folder that you may write to with --home"
            ) from exc

    def socket_folder(self) -> Path:
        """The private folder for the sockets, made if it is missing.

        It is ``run`` in the home. If that path is too long for a socket, or has characters that
        a URL would trip over, it is a temporary folder whose path the home remembers.
        """
        inside = self.path / "run"
        if _SOCKET_FOLDER.fullmatch(str(inside)):
            inside.mkdir(exist_ok=True)
            inside.chmod(0o700)
            return inside
        memory = self.path / "run.path"
        if memory.exists():
            remembered = Path(memory.read_text())
            with suppress(OSError):  # it is there, or we cannot have it; the next line sees which
                remembered.mkdir(mode=0o700)
            if _is_private(remembered):
                return remembered
        usual = tempfile.gettempdir()
        fits = _SOCKET_FOLDER.fullmatch(f"{usual}/ddit-12345678")
        folder = tempfile.mkdtemp(prefix="ddit-", dir=usual if fits else "/tmp")  # noqa: S108 -- mkdtemp makes it private
        _write_atomically(memory, folder)
        return Path(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """What the supervisor says about itself and its children."""

    supervisor_pid: int
    database_url: str
    broker_url: str
    artifacts_url: str
    flower_url: str | None = None
    services: Mapping[str, int]
    """Name to process id of every child that was started, in the order of starting."""
    restarts: Mapping[str, int]
    """Name to number of restarts, of the children that had any: what keeps crashing is here."""
    ready: bool = False
    """Postgres and Valkey answer, the schema is up to date, the other children are started. False
    while the cluster starts, when URLs may still be empty, and while it stops."""


def publish(home: Home, state: ClusterState) -> None:
    """Write *state* where :func:`running_cluster` finds it. Only the supervisor calls this."""
    _write_atomically(home.cluster_file, json.dumps(asdict(state), indent=1))


def running_cluster(home: Home) -> ClusterState | None:
    """The state of the cluster that runs in *home*; None if none does.

    A state file alone proves nothing: the supervisor lives if it holds its lock. The first thing
    that it does with the lock is to write the file anew.
    """
    if not is_held(home.supervisor_lock):
        return None
    try:
        return ClusterState(**json.loads(home.cluster_file.read_text()))
    except FileNotFoundError:
        return None


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    mine = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return mine and stat.S_IMODE(status.st_mode) == stat.S_IRWXU


def _write_atomically(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.write_text(text)
    new.replace(path)
