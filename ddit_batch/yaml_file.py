"""Read a YAML file into a pydantic value; whatever is wrong with it becomes one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ddit_batch.errors import ConfigError

Value = TypeVar("Value", bound=BaseModel)


def read_yaml(path: Path, kind: type[Value], *, what: str, cure: str = "") -> Value:
    """The *kind* that stands in the file, which messages call a *what*.

    Raises:
        ConfigError: Not there, not YAML, or a field is wrong; the message names file, field and
            rule, and the *cure* if there is one.
    """
    try:
        return kind.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except OSError as exc:
        raise ConfigError(f"{what} {path}: {exc.strerror}") from exc
    except yaml.YAMLError as exc:
        raise ConfigError(f"{what} {path} is not YAML: {exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{what} {path} is not UTF-8 (byte {exc.start})") from exc
    except ValidationError as exc:
        first = exc.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "file"
        problem = first["msg"].removeprefix("Value error, ")
        hint = f"; {cure}" if cure else ""
        raise ConfigError(f"{what} {path}: {field}: {problem}{hint}") from exc
