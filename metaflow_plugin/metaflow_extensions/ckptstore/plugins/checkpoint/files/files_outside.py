"""Writing the files of a checkpoint into a directory of the user's."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import ckptstore

from ..errors import CheckpointArgumentError, CheckpointException
from .directory_names import INDEX
from .directory_restore import restore_files

__all__ = ["write_files"]


def write_files(store: ckptstore.CheckpointStore, manifest: ckptstore.Manifest, path: Path) -> None:
    """Write a checkpoint's files into a new or empty directory, all of them or none.

    Raises CheckpointArgumentError if there is something at ``path`` already,
    CheckpointException if the checkpoint has no files or they cannot be
    written, and the store's errors.
    """
    if INDEX not in manifest.fields:
        raise CheckpointException(
            f"checkpoint {manifest.checkpoint.label!r} holds no files, as it was saved without "
            "current.checkpoint.directory: load(reference) gives its attributes."
        )
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise CheckpointArgumentError(
            f"{str(path)!r} is not an empty directory: give a new one, or empty it. Nothing was written."
        )
    is_new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Within the directory, so that it is on the same file system, whatever is mounted there.
        staging = tempfile.mkdtemp(prefix=".ckptstore-", dir=path)
    except OSError as error:
        raise CheckpointException(f"the files of the checkpoint cannot be written: {error}") from error
    try:
        restore_files(
            manifest.fields,
            lambda names: store.load(manifest.checkpoint.ref, fields=names),
            Path(staging),
        )
        for name in os.listdir(staging):
            os.rename(os.path.join(staging, name), path / name)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        if is_new:
            shutil.rmtree(path, ignore_errors=True)
        raise
    os.rmdir(staging)
