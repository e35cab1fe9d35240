"""What a power cut may leave of a folder, worked out from the system calls that were made in it.

``Recorder`` writes down what a process does to a folder; ``cuts`` gives every
state that a disk may be in when the power fails: whatever was issued and not
yet flushed is there or not, in any combination that is tried, and bytes that
were not flushed are there, half there or not there.
"""

from __future__ import annotations

import os
import random
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest


@dataclass
class Step:
    """Something that was done, or said, and from which step on it is on the disk for certain.

    ``entries``: names that changed together, each with its file or None for none.
    ``data``: the bytes of ``file`` from now on. ``said``: what the store has acknowledged.
    """

    entries: dict[tuple[str, str], int | None] = field(default_factory=dict)
    file: int | None = None
    data: bytes = b""
    said: Any = None
    durable_from: int | None = None

    @property
    def where(self) -> Any:
        """What has to be flushed for it: a file's number, or a folder."""
        return self.file if self.file is not None else next(iter(self.entries))[0]


class Recorder:
    """Writes down, in order, what is done below ``root`` from now on; ``root`` itself is on the disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Any) -> None:
        self.root = str(root)
        self.steps: list[Step] = []
        self._lock = threading.RLock()
        self._files: dict[int, int] = {}
        self._last: dict[int, bytes] = {}
        for name in ("open", "mkdir", "rename", "link", "unlink", "write", "fsync"):
            monkeypatch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))

    def say(self, what: Any) -> None:
        """Note that the store has acknowledged something."""
        with self._lock:
            self.steps.append(Step(said=what))

    def _path(self, name: str, dir_fd: int | None) -> tuple[str, str] | None:
        """Folder below the root, and name; None for what is elsewhere."""
        path = name if dir_fd is None else f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{name}"
        if not path.startswith(self.root + "/"):
            return None
        folder, _, name = path[len(self.root) + 1 :].rpartition("/")
        return folder, name

    def _entries(self, **changes: Any) -> None:
        self.steps.append(Step(entries=dict(changes["entries"])))

    def _open(self, real: Any) -> Any:
        def call(name: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            with self._lock:
                fd: int = real(name, flags, mode, dir_fd=dir_fd)
                if flags & os.O_CREAT and (place := self._path(name, dir_fd)):
                    number = self._files[os.fstat(fd).st_ino] = len(self.steps)
                    self._entries(entries={place: number})
                return fd

        return call

    def _mkdir(self, real: Any) -> Any:
        def call(name: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
            with self._lock:
                real(name, mode, dir_fd=dir_fd)
                if place := self._path(name, dir_fd):
                    self._entries(entries={place: -1})

        return call

    def _number(self, name: str, dir_fd: int) -> int:
        return self._files[os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino]

    def _rename(self, real: Any) -> Any:
        def call(one: str, two: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            with self._lock:
                number = self._number(one, src_dir_fd)
                self._note_data(number, f"/proc/self/fd/{src_dir_fd}/{one}")
                real(one, two, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
                old, new = self._path(one, src_dir_fd), self._path(two, dst_dir_fd)
                assert old is not None
                assert new is not None
                assert old[0] == new[0]
                self._entries(entries={old: None, new: number})

        return call

    def _link(self, real: Any) -> Any:
        def call(one: str, two: str, *, src_dir_fd: int, dst_dir_fd: int, follow_symlinks: bool) -> None:
            with self._lock:
                number = self._number(one, src_dir_fd)
                self._note_data(number, f"/proc/self/fd/{src_dir_fd}/{one}")
                real(one, two, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
                self._entries(entries={self._path(two, dst_dir_fd): number})

        return call

    def _unlink(self, real: Any) -> Any:
        def call(name: Any, *, dir_fd: int | None = None) -> None:
            with self._lock:
                real(name, dir_fd=dir_fd)
                if place := self._path(name, dir_fd):
                    self._entries(entries={place: None})

        return call

    def _write(self, real: Any) -> Any:
        def call(fd: int, data: Any) -> int:
            n: int = real(fd, data)
            self._note_written(fd)
            return n

        return call

    def _note_written(self, fd: int) -> int | None:
        with self._lock:
            found = os.fstat(fd)
            number = self._files.get(found.st_ino) if stat.S_ISREG(found.st_mode) else None
            path = f"/proc/self/fd/{fd}"
            if number is not None and os.readlink(path).startswith(self.root):
                self._note_data(number, path)
                return number
            return None

    def _note_data(self, number: int, path: str) -> None:
        """Note a file's bytes, wherever they came from."""
        with open(path, "rb") as file:
            data = file.read()
        if self._last.get(number, b"") != data:
            self._last[number] = data
            self.steps.append(Step(file=number, data=data))

    def _fsync(self, real: Any) -> Any:
        def call(fd: int) -> None:
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.startswith(self.root):
                where: Any = self._note_written(fd)
                if where is None:
                    where = path[len(self.root) + 1 :]
            else:
                where = None
            begun = len(self.steps)  # what comes while it is under way may miss it
            real(fd)
            with self._lock:
                for step in self.steps[:begun]:
                    if step.said is None and step.where == where and step.durable_from is None:
                        step.durable_from = len(self.steps)

        return call


@dataclass
class Cut:
    """One state of the disk, as paths and their bytes, and all that was said before the cut."""

    n_steps: int
    files: dict[str, bytes]
    said: list[Any]


def cuts(steps: list[Step], *, seed: int = 0, n_random: int = 3) -> Iterator[Cut]:
    """Yield the states that a cut after each of the steps may leave, each different one once for what was said."""
    rng = random.Random(seed)
    seen: set[Any] = set()
    for n in range(len(steps) + 1):
        said = [step.said for step in steps[:n] if step.said is not None]
        loose = [
            i
            for i, step in enumerate(steps[:n])
            if step.said is None and (step.durable_from is None or step.durable_from > n)
        ]
        for lost in _choices(loose, rng, n_random):
            for torn in (False, True):
                files = _state(steps[:n], lost, torn=torn)
                mark = (len(said), frozenset((path, hash(data)) for path, data in files.items()))
                if mark not in seen:
                    seen.add(mark)
                    yield Cut(n, files, said)


def _choices(loose: list[int], rng: random.Random, n_random: int) -> Iterator[set[int]]:
    """Yield which of these steps are lost: none, all, each alone, all but each, and some at random."""
    yield set()
    yield set(loose)
    for one in loose:
        yield {one}
        yield set(loose) - {one}
    for _ in range(n_random if len(loose) > 2 else 0):
        yield {one for one in loose if rng.random() < 0.5}


def _state(steps: list[Step], lost: set[int], *, torn: bool) -> dict[str, bytes]:
    """Return paths and bytes; ``torn``: of bytes that were lost the first half is there."""
    names: dict[tuple[str, str], int | None] = {}
    data: dict[int, bytes] = {}
    for i, step in enumerate(steps):
        if step.file is not None:
            if i not in lost:
                data[step.file] = step.data
            elif torn:
                data[step.file] = step.data[: len(step.data) // 2]
        elif i not in lost:
            names.update(step.entries)
    folders = {"": True}

    def is_there(folder: str) -> bool:
        if folder not in folders:
            parent, _, name = folder.rpartition("/")
            folders[folder] = is_there(parent) and names.get((parent, name)) is not None
        return folders[folder]

    return {
        f"{folder}/{name}".lstrip("/"): data.get(number, b"")
        for (folder, name), number in names.items()
        if number is not None and number >= 0 and is_there(folder)
    }
