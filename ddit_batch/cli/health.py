"""What ``--check`` of the services asks: is the one that runs here well?

For health checks of containers and probes of orchestrators. They start nothing, and answer with
their exit code and one sentence.
"""

from __future__ import annotations

from urllib.error import URLError
from urllib.request import urlopen

import click
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.exc import SQLAlchemyError

from ddit_batch.config import Settings
from ddit_batch.db.census import is_alive
from ddit_batch.db.engine import make_engine
from ddit_batch.errors import ServiceError
from ddit_batch.job import WorkerName
from ddit_batch.metrics import metrics_url

LONGEST_IDLE_S = 15.0
"""A scheduler that has done nothing for this long is stuck, or without its database."""
ANSWER_S = 5.0
"""How long to wait for an answer."""

check_option = click.option(
    "--check", is_flag=True, help="Ask whether the one that runs is well: exit 0, or 1. Start none."
)


def check_scheduler(settings: Settings) -> None:
    """Ask the scheduler of this host by its metrics.

    Raises:
        ConfigError: It does not serve its metrics at a known address.
        ServiceError: It does not answer, or has not decided lately.
    """
    url = metrics_url(settings.metrics_address)
    families = {family.name: family for family in text_string_to_metric_families(_get(url))}
    idle_s, leads = (
        families[name].samples[0].value
        for name in ("ddit_scheduler_idle_seconds", "ddit_scheduler_leads")
    )
    if idle_s > LONGEST_IDLE_S:
        raise ServiceError(
            f"the scheduler has finished no round for {idle_s:.0f} s: see its log; "
            "it waits if the database is away"
        )
    click.echo("leads" if leads else "ready to take the lead", err=True)


def check_worker(settings: Settings, worker: WorkerName) -> None:
    """Ask the database whether the worker renews its lease.

    Raises:
        ServiceError: It does not, or the database does not answer.
    """
    engine = make_engine(settings.database_url.get_secret_value())
    try:
        alive = is_alive(engine, worker)
    except SQLAlchemyError as exc:
        raise ServiceError("the database does not answer") from exc
    finally:
        engine.dispose()
    if not alive:
        raise ServiceError(
            f"{worker} has no lease: it still loads its models, or is gone; see its log"
        )
    click.echo(f"{worker} renews its lease", err=True)


def check_flower(port: int) -> None:
    """Ask the Flower of this host.

    Raises:
        ServiceError: It does not answer.
    """
    _get(f"http://127.0.0.1:{port}/healthcheck")
    click.echo("Flower answers", err=True)


def _get(url: str) -> str:
    try:
        with urlopen(url, timeout=ANSWER_S) as response:  # noqa: S310 -- always http, of this host
            return str(response.read().decode())
    except (URLError, OSError) as exc:
        raise ServiceError(f"{url} does not answer: {getattr(exc, 'reason', exc)}") from exc
