from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil
import psycopg
import pytest
from sqlalchemy import create_engine, text

from ddit_batch.embedded.home import Home
from ddit_batch.embedded.lock import hold
from ddit_batch.embedded.postgres import running_postgres
from ddit_batch.errors import ServiceError

NOBODY = 65534
Descendants = Callable[[], list[psutil.Process]]


def ask(url: str, query: str) -> object:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
    return row and row[0]


def test_postgres_starts_cold_and_warm(tmp_path: Path, descendants: Descendants) -> None:
    """The first start makes the data, past what a killed initdb left; the next finds them."""
    home = Home(tmp_path / "home")
    half_made = home.data / "postgres.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")

    with running_postgres(home) as postgres:
        ask(postgres.service.url, "CREATE TABLE kept AS SELECT 42 AS word")
    assert not half_made.exists()
    assert descendants() == []
    assert list((home.path / "run").iterdir()) == []

    with running_postgres(home) as postgres:
        assert ask(postgres.service.url, "SELECT word FROM kept") == 42
    shutil.rmtree(home.data)


def test_url_is_for_sqlalchemy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """The URL leads to the right server, whatever the user's environment says of another."""
    monkeypatch.setenv("PGPORT", "5433")
    monkeypatch.setenv("PGDATABASE", "elsewhere")

    with running_postgres(home) as postgres:
        engine = create_engine(postgres.service.url)
        with engine.connect() as connection:
            assert connection.scalar(text("SELECT current_database()")) == "ddit"
            assert connection.scalar(text("SHOW synchronous_commit")) == "on"
            assert connection.scalar(text("SHOW listen_addresses")) == ""
        engine.dispose()


def test_committed_rows_survive_a_killed_server(home: Home) -> None:
    """After SIGKILL the next start recovers what was committed."""
    with running_postgres(home) as postgres:
        ask(postgres.service.url, "CREATE TABLE committed AS SELECT 42 AS word")
        assert postgres.process is not None
        os.kill(postgres.process.pid, signal.SIGKILL)
        postgres.process.wait()

        postgres.start(lock_timeout_s=10.0)

    with running_postgres(home) as postgres:
        assert ask(postgres.service.url, "SELECT word FROM committed") == 42


def test_process_id_that_lives_again_does_not_prevent_a_start(home: Home) -> None:
    """The files of a killed server name a process that is now something else: it starts anyway."""
    stale = f"{os.getpid()}\n{home.data / 'postgres'}\n"
    (home.data / "postgres" / "postmaster.pid").write_text(stale)
    (home.socket_folder() / ".s.PGSQL.5432.lock").write_text(stale)

    with running_postgres(home) as postgres:
        assert ask(postgres.service.url, "SELECT 1") == 1


def test_second_user_of_the_same_home_is_told_who_has_it(home: Home) -> None:
    """Two servers never run on the same data; the error names the process and the cure."""
    with hold(home.data / "postgres.lock"), pytest.raises(ServiceError) as raised:  # noqa: SIM117
        with running_postgres(home, timeout_s=0.1):
            pass

    assert f"process {os.getpid()}" in str(raised.value)
    assert "ddit down" in str(raised.value)


def test_broken_data_are_reported_with_the_end_of_the_log(home: Home) -> None:
    """A server that cannot start says why in the error itself."""
    control = home.data / "postgres" / "global" / "pg_control"
    control.rename(home.path / "pg_control")

    with pytest.raises(ServiceError, match="pg_control"), running_postgres(home):
        pass

    (home.path / "pg_control").rename(control)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone needs the namespace")
def test_root_without_user_namespaces_is_told_the_cure(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the namespace is forbidden the error says so before anything starts."""
    fake = tmp_path / "bin" / "unshare"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\necho unshare failed: Operation not permitted >&2\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)

    with pytest.raises(ServiceError) as raised, running_postgres(home):
        pass

    assert "not permitted" in str(raised.value)
    assert "normal user" in str(raised.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="a normal user runs all the other tests as one")
def test_postgres_runs_as_a_normal_user() -> None:
    """A user without any privilege gets the same Postgres."""
    other_user = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    same_user_under_another_number = ("unshare", "--user", "--map-user=1000")
    for as_user in (other_user, same_user_under_another_number):
        can_import = (*as_user, sys.executable, "-c", "import ddit_batch, psycopg")
        if not subprocess.run(can_import, check=False, capture_output=True, cwd="/").returncode:
            break
    else:
        pytest.skip("no other user can run this Python installation")
    program = (
        "import sys; from pathlib import Path; from ddit_batch.embedded.home import Home\n"
        "from ddit_batch.embedded.postgres import running_postgres\n"
        "with running_postgres(Home(Path(sys.argv[1]))) as postgres:\n"
        "    print(postgres.process.args[0])\n"
    )
    folder = Path(tempfile.mkdtemp())
    if as_user is other_user:
        os.chown(folder, NOBODY, NOBODY)

    done = subprocess.run(
        (*as_user, sys.executable, "-c", program, str(folder / "home")),
        check=False,
        capture_output=True,
        text=True,
        cwd="/",
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("/postgres\n"), "it is started directly, without a namespace"
    assert (folder / "home").stat().st_uid == folder.stat().st_uid
    shutil.rmtree(folder)
