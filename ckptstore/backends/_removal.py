"""Removing many files of the local backend: blocking, with one flush for each directory."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Sequence

from ckptstore.backends._files import TEMPORARY, Root, fsync, mapped, split_key, translated
from ckptstore.errors import BackendError

__all__ = ["remove_many", "sweep"]

_OURS = re.compile(re.escape(TEMPORARY) + "[0-9a-f]{16}")


def remove_many(root: Root, keys: Sequence[str], *, durable: bool) -> dict[str, BackendError]:
    """Remove the files of these keys; return what could not be removed, with why.

    ``durable``: the directories are flushed before this returns; where that
    fails, every key of the directory counts as not removed.
    """
    failed: dict[str, BackendError] = {}
    folders: dict[str, list[tuple[str, str]]] = {}
    for key in keys:
        directory, name = split_key(key, root.url)
        folders.setdefault(directory, []).append((key, name))
    for directory, files in folders.items():
        try:
            folder = root.open_directory(directory)
        except FileNotFoundError:
            root.check_present()
            continue
        except OSError as exc:
            failed |= {key: translated(exc, "cannot delete", key, root.url) for key, _ in files}
            continue
        try:
            for key, name in files:
                try:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=folder)
                except OSError as exc:
                    failed[key] = translated(exc, "cannot delete", key, root.url)
            if durable:
                fsync(folder)
        except OSError as exc:
            failed |= {
                key: translated(exc, "deleted, but cannot make durable,", key, root.url) for key, _ in files
            }
        finally:
            os.close(folder)
    return failed


def sweep(root: Root, prefix: str, before_s: float, *, dry_run: bool) -> tuple[int, int]:
    """Remove unfinished files below the directory ``prefix`` that were last written before then.

    Return how many, and their bytes. Raises BackendError.
    """
    n_files = n_bytes = 0
    with mapped("cannot look for unfinished files under", prefix, root.url):
        try:
            top = root.open_directory(prefix.removesuffix("/"))
        except FileNotFoundError:
            root.check_present()
            return 0, 0
        for folder, name in _unfinished(top):
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISREG(found.st_mode) and found.st_mtime < before_s:
                    if not dry_run:
                        os.unlink(name, dir_fd=folder)
                    n_files += 1
                    n_bytes += found.st_size
    return n_files, n_bytes


def _unfinished(fd: int) -> Iterator[tuple[int, str]]:
    """Yield the open directory and the name of each unfinished file in ``fd``, which it closes, and below."""
    try:
        with os.scandir(fd) as entries:
            names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in names:
            if is_directory:
                with contextlib.suppress(FileNotFoundError):
                    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                    yield from _unfinished(os.open(name, flags, dir_fd=fd))
            elif _OURS.fullmatch(name):
                yield fd, name
    finally:
        os.close(fd)
