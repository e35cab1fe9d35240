"""Reading a directory into the fields of a save."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import CheckpointException
from .directory_names import INDEX, Entries, FileFacts, encode, is_link_target, shown

__all__ = ["collect_files"]

_TRIES = 5
_PAUSE_S = 0.01


class _ChangingError(Exception):
    """What is read changes, or is gone since it was listed."""

    def __init__(self, path: bytes) -> None:
        super().__init__(path)
        self.path = path


def collect_files(root: Path, *, log: Callable[[str], None]) -> dict[str, object]:
    """Return the fields that hold a directory, or a single file, as it is now.

    They are one field for each file's content and the index, see
    ``directory_names``. Kept are names, contents, permission bits and mtimes,
    empty directories too, and links that lead to somewhere in it. A link to a
    file elsewhere becomes a file with that content, which ``log`` is told.
    Owners, times of links and permissions of directories are not kept.

    All contents are in memory when this returns, as ``bytes`` that a save does
    not copy again; they go when the save is done. Every file is read each time,
    changed or not: the store notices what it has.

    Raises CheckpointException naming what cannot be saved: a socket, pipe or
    device, a link to a directory elsewhere or to nothing, a name that is too
    long, what cannot be read, and what keeps changing while it is read.
    """
    where = os.fsencode(os.path.abspath(root))
    changed = where
    for _ in range(_TRIES):
        try:
            return _File(where).fields() if os.path.isfile(where) else _Tree(where, log).fields()
        except _ChangingError as change:
            changed = change.path
            time.sleep(_PAUSE_S)
        except OSError as error:
            raise CheckpointException(
                f"the files of the checkpoint cannot be read, so nothing was saved: {error}."
            ) from error
    raise CheckpointException(
        f"{shown(changed)} changed each of the {_TRIES} times that it was read, so nothing was saved. Nothing "
        "may write to the files of a checkpoint while current.checkpoint.save() reads them: pause the writer, "
        "or let it write elsewhere."
    )


class _File:
    """One file that is to stand alone in the checkpoint's directory."""

    def __init__(self, path: bytes) -> None:
        self._path = path

    def fields(self) -> dict[str, object]:
        content, facts = _read(self._path, follow=True)
        name = os.path.basename(self._path)
        return {INDEX: Entries({name: facts}, {}, {}).to_index(), INDEX + encode(name): content}


class _Tree:
    """One reading of a directory."""

    def __init__(self, root: bytes, log: Callable[[str], None]) -> None:
        self._root = os.path.realpath(root)
        self._log = log
        self._contents: dict[bytes, bytes] = {}
        self._found = Entries({}, {}, {})

    def fields(self) -> dict[str, object]:
        waiting = [b""]
        while waiting:
            folder = waiting.pop()
            for entry in self._entries(folder):
                try:
                    path = os.path.join(folder, entry.name)
                    self._add(entry, path)
                except FileNotFoundError as error:
                    raise _ChangingError(entry.path) from error
                if path in self._found.directories:
                    waiting.append(path)
        contents = {INDEX + encode(path): content for path, content in self._contents.items()}
        return {INDEX: self._found.to_index(), **contents}

    def _entries(self, folder: bytes) -> list[os.DirEntry[bytes]]:
        where = os.path.join(self._root, folder)
        try:
            with os.scandir(where) as listed:
                return sorted(listed, key=lambda entry: entry.name)
        except FileNotFoundError as error:
            if not folder:
                raise
            raise _ChangingError(where) from error

    def _add(self, entry: os.DirEntry[bytes], path: bytes) -> None:
        if entry.is_symlink():
            self._add_link(path)
        elif entry.is_dir(follow_symlinks=False):
            self._found.directories[path] = entry.stat(follow_symlinks=False).st_mtime_ns
        elif entry.is_file(follow_symlinks=False):
            self._add_file(path, follow=False)
        else:
            raise _special(entry.path)

    def _add_file(self, path: bytes, *, follow: bool) -> None:
        self._contents[path], self._found.files[path] = _read(os.path.join(self._root, path), follow=follow)

    def _add_link(self, path: bytes) -> None:
        link = os.path.join(self._root, path)
        target = os.readlink(link)
        real = os.path.realpath(link)
        if os.path.commonpath([real, self._root]) == self._root:
            if not is_link_target(path, target):
                target = os.path.relpath(real, os.path.dirname(link))
            if is_link_target(path, target):
                self._found.links[path] = target
                return
        if not os.path.isfile(link):
            what = "a directory" if os.path.isdir(link) else "what is no file"
            raise CheckpointException(
                f"{shown(link)} is a link to {shown(target)}, {what} outside of the checkpoint's directory, "
                "so nothing was saved. Copy what belongs to the checkpoint, keep the link elsewhere."
            )
        self._log(
            f"{shown(link)} is a link to {shown(target)} outside of the checkpoint's directory: saved as a file"
        )
        self._add_file(path, follow=True)


def _read(path: bytes, *, follow: bool) -> tuple[bytes, FileFacts]:
    """Return a file's content and facts, all of the same moment."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode):
            raise _special(path)
        # Never mapped: a file that is cut short under a map kills the process.
        content = file.readall()
        after = os.fstat(descriptor)
    same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if not same or len(content) != after.st_size:
        raise _ChangingError(path)
    return content, FileFacts(len(content), after.st_mode & 0o777, after.st_mtime_ns)


def _special(path: bytes) -> CheckpointException:
    return CheckpointException(
        f"{shown(path)} is a socket, a pipe or a device, which no checkpoint can hold, so nothing was saved. "
        "Keep it outside of the checkpoint's directory."
    )
