"""Writing the files of a checkpoint into a directory, and telling of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ckptstore

from ..errors import CheckpointException
from .directory_names import INDEX, Entries, FileFacts, decode, encode, is_file_field, read_index, shown

__all__ = ["describe_files", "restore_files"]

Load = Callable[[Sequence[str]], Mapping[str, Any]]
"""Gives the values of these fields, whole and verified."""

BATCH_BYTES = 256 * 1024 * 1024


def restore_files(fields: Mapping[str, ckptstore.FieldInfo], load: Load, into: Path) -> None:
    """Write the files of a checkpoint below ``into``, an empty directory.

    ``fields`` are the checkpoint's, attributes among them are passed over. The
    files are loaded in groups of at most 256 MiB, or one larger file. They get
    their permission bits within the process's umask, and their mtimes.

    Raises CheckpointException if the list of files is not sound (then nothing
    was written), or if they cannot be written; what ``load`` raises goes on.
    What was written until then stays, for the caller to remove.
    """
    entries = _entries(fields, load)
    root = os.fsencode(into)
    try:
        for path in entries.directories:
            os.mkdir(os.path.join(root, path))
        for batch in _batches(fields, entries):
            _write_batch(root, batch, load, entries)
        for path, target in entries.links.items():
            os.symlink(target, os.path.join(root, path))
        for path, mtime_ns in entries.directories.items():
            os.utime(os.path.join(root, path), ns=(mtime_ns, mtime_ns))
    except OSError as error:
        if isinstance(error, ckptstore.errors.CheckpointStoreError):
            raise
        raise CheckpointException(
            f"the files of the checkpoint cannot be written: {error}. "
            "@checkpoint(temp_dir_root=...) says on which disk current.checkpoint.directory is."
        ) from error


def describe_files(fields: Mapping[str, ckptstore.FieldInfo], load: Load) -> dict[str, dict[str, Any]]:
    """Return what a checkpoint holds of files, by relative path; only their index is loaded.

    Each is a mapping with ``bytes``, ``stored_bytes``, ``new_bytes``, ``mode``
    and ``link``, where a link leads to (None: it is a file). Raises as ``restore_files``.
    """
    if not any(map(is_file_field, fields)):
        return {}
    entries = _entries(fields, load)
    described: dict[str, dict[str, Any]] = {}
    for path, facts in entries.files.items():
        field = fields[INDEX + encode(path)]
        described[os.fsdecode(path)] = {
            "bytes": facts.n_bytes,
            "stored_bytes": field.stored_bytes,
            "new_bytes": field.new_bytes,
            "mode": facts.mode,
            "link": None,
        }
    for path, target in entries.links.items():
        described[os.fsdecode(path)] = {
            "bytes": 0,
            "stored_bytes": 0,
            "new_bytes": 0,
            "mode": 0o777,
            "link": os.fsdecode(target),
        }
    return dict(sorted(described.items()))


def _entries(fields: Mapping[str, ckptstore.FieldInfo], load: Load) -> Entries:
    names = [name for name in fields if is_file_field(name)]
    return read_index(load([INDEX])[INDEX] if INDEX in fields else None, names)


def _batches(fields: Mapping[str, ckptstore.FieldInfo], entries: Entries) -> Iterator[list[str]]:
    batch: list[str] = []
    n_bytes = 0
    for name in (INDEX + encode(path) for path in entries.files):
        if batch and n_bytes + fields[name].raw_bytes > BATCH_BYTES:
            yield batch
            batch, n_bytes = [], 0
        batch.append(name)
        n_bytes += fields[name].raw_bytes
    if batch:
        yield batch


def _write_batch(root: bytes, batch: Sequence[str], load: Load, entries: Entries) -> None:
    # A function of its own: its contents are gone when the next are loaded.
    contents = load(batch)
    for name in batch:
        path = decode(name[len(INDEX) :])
        _write(os.path.join(root, path), contents[name], entries.files[path])


def _write(path: bytes, content: object, facts: FileFacts) -> None:
    if type(content) is not bytes or len(content) != facts.n_bytes:
        raise CheckpointException(
            "the files of this checkpoint cannot be restored: the content of "
            f"{shown(os.path.basename(path))} is not the {facts.n_bytes} bytes that its index says."
        )
    # Never over or through what is there already: names may be one on a file system that folds case.
    descriptor = os.open(
        path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, facts.mode
    )
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.utime(descriptor, ns=(facts.mtime_ns, facts.mtime_ns))
