"""The listing of the local backend: directories read one by one, in the order of the keys."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

from ckptstore.backends._files import TEMPORARY, Root, mapped, split_key
from ckptstore.backends.base import ObjectInfo
from ckptstore.errors import BackendError

__all__ = ["scan"]


def scan(root: Root, prefix: str, after: str) -> Generator[ObjectInfo, None, None]:
    """Yield what stands under ``prefix`` and after ``after``, ascending by key. Blocking.

    Unfinished files are left out. A special file or a link in the place of an
    object is listed as itself, so that nothing that stands there goes
    unnoticed; reading it is an error. A file is examined only when it is
    reached, so the first few of many are cheap.

    Raises BackendError where a directory cannot be read or is a link: what
    cannot be seen is not "nothing there".
    """
    directory, slash, _ = prefix.rpartition("/")
    if slash:
        split_key(directory, root.url)
    with mapped("cannot list", prefix or "all objects", root.url):
        try:
            fd = root.open_directory(directory)
        except FileNotFoundError:
            pass
        else:
            yield from _scan(root, fd, directory + slash, prefix, after)
        root.check_present()


def _scan(root: Root, fd: int, base: str, prefix: str, after: str) -> Iterator[ObjectInfo]:
    """Yield the objects below the directory ``fd``, which it closes."""
    try:
        for key in sorted(_entries(root, fd, base, prefix, after)):
            name = key[len(base) :]
            try:
                if key.endswith("/"):
                    child = os.open(
                        name[:-1], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd
                    )
                else:
                    found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            except FileNotFoundError:
                continue  # deleted since the directory was read
            if key.endswith("/"):
                yield from _scan(root, child, key, prefix, after)
            else:
                yield ObjectInfo(key, found.st_size, found.st_mtime)
    finally:
        os.close(fd)


def _entries(root: Root, fd: int, base: str, prefix: str, after: str) -> Iterator[str]:
    """Yield the keys in a directory; a directory's ends in a slash, and sorts as its contents do."""
    with os.scandir(fd) as entries:
        for entry in entries:
            key = base + entry.name
            if entry.name.startswith(TEMPORARY):
                continue
            if entry.is_dir(follow_symlinks=False):
                key += "/"
                passed = key <= after and not after.startswith(key)
            else:
                passed = key <= after
            if passed or not key.startswith(prefix):
                continue
            if entry.is_symlink() and entry.is_dir():
                raise BackendError(
                    f"cannot list {key} in {root.url}: a link to a directory, and links are not followed"
                )
            yield key
