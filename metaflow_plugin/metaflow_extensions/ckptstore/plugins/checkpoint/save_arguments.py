"""The first argument of ``save``: a checkpoint's name, or the path of files to save."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from .errors import CheckpointArgumentError

__all__ = ["StrPath", "name_and_path"]

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


def _is_path(first: StrPath) -> bool:
    return isinstance(first, os.PathLike) or (isinstance(first, str) and first.startswith(_PATH_STARTS))
