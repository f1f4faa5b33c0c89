from __future__ import annotations

import pytest

from ddit_batch import environment
from ddit_batch.config import load_settings
from ddit_batch.errors import ConfigError


def by_settings() -> str:
    return load_settings().database_url.get_secret_value()


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"DDIT_DATABASE_URL": ""},
        {"DDIT_DATABASE_URL": "postgresql+psycopg://ddit:s%40cret@db:5432/ddit?sslmode=require"},
        {"DDIT_DATABASE_URL": " postgresql+psycopg://ddit@db/ddit "},
        {"DDIT_DATABASE_URL": "not one"},
        {"ddit_database_url": "postgresql+psycopg://ddit@db/ddit"},
        {"Ddit_Database_Url": "postgresql+psycopg://ddit@db/ddit"},
        {"DATABASE_URL": "postgresql+psycopg://ddit@db/ddit"},
    ],
)
def test_url_of_the_database_is_that_of_the_settings(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    """A command that only looks finds the database where all others find it."""
    monkeypatch.delenv("DDIT_DATABASE_URL", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    assert environment.database_url() == by_settings()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://ddit:secret/x@db/ddit",
        "postgresql+psycopg://ddit@db:port/ddit",
        "postgresql+psycopg://ddit@[db/ddit",
    ],
)
def test_url_that_is_none_is_refused_as_the_settings_do(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """The same sentence, with nothing of the URL in it."""
    monkeypatch.setenv("DDIT_DATABASE_URL", url)

    with pytest.raises(ConfigError) as refused:
        environment.database_url()
    with pytest.raises(ConfigError) as refused_by_settings:
        by_settings()

    assert str(refused.value) == str(refused_by_settings.value)
    assert "secret" not in str(refused.value)
    assert "secret" not in str(refused.value.__cause__)
