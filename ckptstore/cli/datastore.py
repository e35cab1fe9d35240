"""Where Metaflow keeps checkpoints: the one place of the package that knows of Metaflow, and only when asked."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from ckptstore.errors import ConfigError

__all__ = ["datastore_opening"]

_PLACE = "metaflow_extensions.ckptstore.plugins.checkpoint.storage.place"


def datastore_opening() -> tuple[Any, dict[str, Any]]:
    """Return what the store of Metaflow's configured datastore is opened with. Not on a loop: it imports Metaflow.

    Raises ConfigError where Metaflow is not installed, or has no datastore.
    """
    try:
        metaflow_error = import_module("metaflow.exception").MetaflowException
    except ModuleNotFoundError as exc:
        raise ConfigError(
            f"--datastore needs Metaflow, and {exc.name!r} is not installed here: python -m pip install metaflow, "
            "or give the URL of the store"
        ) from exc
    try:
        place = import_module(_PLACE).configured_place(
            lambda line: click.echo(line, err=True), kind=None, root=None
        )
        opening: tuple[Any, dict[str, Any]] = place.opening()
    except metaflow_error as exc:
        raise ConfigError(f"Metaflow's datastore cannot be used: {exc}") from exc
    return opening
