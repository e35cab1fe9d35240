"""System calls that fail as a disk, or a process that has too much open, lets them fail."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import aiofiles.threadpool
import pytest

CALLS = (
    "open",
    "create",
    "mkdir",
    "write",
    "fsync",
    "close",
    "rename",
    "link",
    "unlink",
    "read",
    "list",
    "stat",
)


class SystemCalls:
    """Counts the calls that concern what lies below ``root``, and lets some of them fail.

    ``fail`` says which: the ``nth`` of the ``calls``, and with ``on`` all after
    it, with the number of an error; or ``None`` to take only a part of the bytes
    (``write``, ``read``). A ``close`` closes before it fails, as the system's does.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self._root = str(root)
        self._writing: set[int] = set()
        self.fail(0, ())
        for name in ("open", "mkdir", "write", "fsync", "close", "rename", "link", "unlink", "readv", "read"):
            monkeypatch.setattr(os, name, getattr(self, f"_{name}")(getattr(os, name)))
        for name in ("scandir", "stat", "fstat"):
            kind = "list" if name == "scandir" else "stat"
            monkeypatch.setattr(os, name, self._plain(kind, getattr(os, name)))
        monkeypatch.setattr(aiofiles.threadpool, "sync_open", self._file)

    def fail(self, code: int | None, calls: Iterable[str], *, nth: int = 1, on: bool = False) -> None:
        self._code, self._calls, self._nth, self._on = code, frozenset(calls), nth, on
        self.seen = self.fired = 0
        self.created: set[str] = set()

    def heal(self) -> None:
        """Let nothing fail any more. ``fired`` stays: how many calls have failed.

        So does ``created``: the folders in which files were to be made.
        """
        self._calls = frozenset()

    def strikes(self, call: str, where: int | str | None) -> bool:
        if call not in self._calls:
            return False
        try:
            path = os.readlink(f"/proc/self/fd/{where}") if isinstance(where, int) else str(where)
        except OSError:
            return False
        if not path.startswith(self._root):
            return False
        self.seen += 1
        struck = self.seen >= self._nth if self._on else self.seen == self._nth
        self.fired += struck
        return struck

    def check(self, call: str, where: int | str | None) -> None:
        if self.strikes(call, where):
            assert self._code is not None, f"{call} has no bytes to take a part of"
            raise OSError(self._code, os.strerror(self._code), "secret-path")

    def part(self, call: str, fd: int, nbytes: int) -> int:
        """Return how many bytes a call takes."""
        if self._code is None:
            return max(1, nbytes // 3) if self.strikes(call, fd) else nbytes
        self.check(call, fd)
        return nbytes

    def _plain(self, kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(where: Any = ".", *args: Any, dir_fd: int | None = None, **options: Any) -> Any:
            self.check(kind, where if dir_fd is None else dir_fd)
            return real(where, *args, **options, **({} if dir_fd is None else {"dir_fd": dir_fd}))

        return call

    def _open(self, real: Any) -> Any:
        def call(name: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            creating = bool(flags & os.O_CREAT)
            place = name if dir_fd is None else dir_fd
            self.check("open", place)
            if creating:
                folder = name if dir_fd is None else os.readlink(f"/proc/self/fd/{dir_fd}")
                self.created.add(folder[len(self._root) :])
                self.check("create", place)
            fd: int = real(name, flags, mode, dir_fd=dir_fd)
            if creating:
                self._writing.add(fd)
            return fd

        return call

    def _mkdir(self, real: Any) -> Any:
        return self._plain("mkdir", real)

    def _unlink(self, real: Any) -> Any:
        return self._plain("unlink", real)

    def _fsync(self, real: Any) -> Any:
        return self._plain("fsync", real)

    def _rename(self, real: Any) -> Any:
        def call(one: Any, two: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None) -> None:
            self.check("rename", one if src_dir_fd is None else src_dir_fd)
            real(one, two, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        return call

    def _link(self, real: Any) -> Any:
        def call(one: Any, two: Any, *, src_dir_fd: int | None = None, **options: Any) -> None:
            self.check("link", one if src_dir_fd is None else src_dir_fd)
            real(one, two, src_dir_fd=src_dir_fd, **options)

        return call

    def _write(self, real: Any) -> Any:
        def call(fd: int, data: Any) -> int:
            n: int = real(fd, memoryview(data)[: self.part("write", fd, len(data))])
            return n

        return call

    def _read(self, real: Any) -> Any:
        def call(fd: int, n: int) -> bytes:
            data: bytes = real(fd, self.part("read", fd, n))
            return data

        return call

    def _readv(self, real: Any) -> Any:
        def call(fd: int, parts: list[memoryview]) -> int:
            n: int = real(fd, [parts[0][: self.part("read", fd, len(parts[0]))]])
            return n

        return call

    def _close(self, real: Any) -> Any:
        def call(fd: int) -> None:
            written = fd in self._writing
            self._writing.discard(fd)
            struck = written and self.strikes("close", fd)
            real(fd)
            if struck:
                raise OSError(self._code, "the close failed")

        return call

    def _file(self, name: Any, mode: str, *, buffering: int, opener: Any, **_: Any) -> io.FileIO:
        """What ``aiofiles`` opens."""
        assert buffering == 0
        return _File(self, name, mode.replace("b", ""), opener=opener)


class _File(io.FileIO):
    def __init__(self, calls: SystemCalls, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._calls = calls

    def write(self, data: Any, /) -> int:
        return super().write(memoryview(data)[: self._calls.part("write", self.fileno(), len(data))])

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0:
            self._calls.check("read", self.fileno())
            return super().read()
        return super().read(self._calls.part("read", self.fileno(), size))

    def close(self) -> None:
        struck = False
        if not self.closed:
            struck = self.writable() and self._calls.strikes("close", self.fileno())
            self._calls._writing.discard(self.fileno())
        super().close()
        if struck:
            raise OSError(self._calls._code, "the close failed")
