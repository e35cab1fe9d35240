"""The arguments of ``save``: what is none, and whether the first is a name or the path of files to save."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from .artifact import STORAGE_FORMAT
from .errors import CheckpointArgumentError

__all__ = ["StrPath", "check_save", "check_storage_format", "name_and_path"]

StrPath = str | os.PathLike[str]

_PATH_STARTS = (os.sep, os.curdir + os.sep, os.pardir + os.sep)


def name_and_path(
    first: StrPath | None,
    *,
    name: str | None,
    path: StrPath | None,
    default: str,
    log: Callable[[str], None],
) -> tuple[str, Path | None]:
    """Return the name of a checkpoint and the files to save in it (None: the directory's).

    ``first``, given by its place alone, is a path if it is a path object, if a
    name is given beside it, or if it is written like one: ``/…``, ``./…`` or
    ``../…``. Any other text is a name; ``log`` is told if a file is called so,
    as one may have been meant. Raises CheckpointArgumentError.
    """
    if first is not None and path is not None:
        raise CheckpointArgumentError(f"save was given two paths or names, {first!r} and path={path!r}.")
    if first is not None and (name is not None or _is_path(first)):
        path = first
    elif first is not None:
        name = os.fspath(first)
        if os.path.exists(name):
            log(
                f"{name!r} is the checkpoint's name, not the path of the file that is called so; "
                f"save(path={name!r}) saves that file"
            )
    name = default if name is None else name
    if path is None:
        return name, None
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise CheckpointArgumentError(f"path must be the path of a file or a directory, not {path!r}.")
    if not os.path.exists(path):
        raise CheckpointArgumentError(
            f"there is no file or directory {os.fspath(path)!r} to save. (The first argument of save is a path "
            "when name= is given too, when it is a path object, or when it starts with '/', './' or '../'.)"
        )
    return name, Path(path)


def check_storage_format(value: object, log: Callable[[str], None]) -> None:
    """Accept the formats of metaflow-checkpoint, so that its calls need no change: ``log`` tells what they get.

    Raises CheckpointArgumentError for any other.
    """
    if value in ("files", "tar"):
        log(f"storage_format={value!r} is metaflow-checkpoint's: here there is one format, {STORAGE_FORMAT}")
    elif value not in (None, STORAGE_FORMAT):
        raise CheckpointArgumentError(
            f"storage_format must be left out, or be {STORAGE_FORMAT!r}, the one there is, not {value!r}."
        )


def check_save(name: object, metadata: object, latest: object, wait: object) -> None:
    """Raise CheckpointArgumentError unless these are arguments of a save."""
    if not isinstance(name, str) or not name:
        raise CheckpointArgumentError(f"a checkpoint's name must be a text, not {name!r}.")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise CheckpointArgumentError(f"metadata must be a mapping, not {type(metadata).__name__}.")
    if latest is not None and not isinstance(latest, bool):
        raise CheckpointArgumentError(f"latest must be True, False or None, not {latest!r}.")
    if wait is not None and not isinstance(wait, bool):
        raise CheckpointArgumentError(f"wait must be True, False or None, not {wait!r}.")


def _is_path(first: StrPath) -> bool:
    return isinstance(first, os.PathLike) or (isinstance(first, str) and first.startswith(_PATH_STARTS))
