"""Where the data files that travel with the code are: ``migrations/`` and ``configs/``.

In a checkout they stand beside the package, in a wheel inside it.
"""

from __future__ import annotations

from pathlib import Path

from ddit_batch.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parent


def data_folder(name: str) -> Path:
    """The folder *name* (``migrations`` or ``configs``) of this installation.

    Raises:
        ConfigError: The installation lacks it.
    """
    for parent in (_PACKAGE, _PACKAGE.parent):
        if (folder := parent / name).is_dir():
            return folder
    raise ConfigError(
        f"the folder {name!r} is missing beside and inside {_PACKAGE}: "
        "the installation is incomplete; install ddit-batch again"
    )
