"""Durable beside durable: what a peer that flushes nothing lacks, added behind its save."""

from __future__ import annotations

import os
from collections.abc import Callable

from bench.systems.base import System, flush
from bench.workloads.compare import Values

__all__ = ["Flushed"]


class Flushed(System):
    """Another system, and after each of its saves an fsync of every new file and of the directories around it."""

    def __init__(self, directory: str, *, make: Callable[[str], System]) -> None:
        super().__init__(directory)
        self._inner = make(directory)
        self._flushed: set[tuple[str, int]] = set()
        self._is_flushed = True

    def prepare(self, values: Values) -> None:
        self._inner.prepare(values)

    def save(self, values: Values) -> None:
        self._inner.save(values)
        self._is_flushed = False
        if self._inner.is_settled():
            self._flush()

    def is_settled(self) -> bool:
        return self._is_flushed

    def settle(self) -> None:
        self._inner.settle()
        if not self._is_flushed:
            self._flush()

    def reopen(self) -> None:
        self._inner.reopen()

    def load(self) -> Values | None:
        return self._inner.load()

    def close(self) -> None:
        self._inner.close()

    def _flush(self) -> None:
        for folder, folders, names in os.walk(self.directory):
            # A file that took another's name has another inode.
            entries = {(path, os.lstat(path).st_ino) for path in (os.path.join(folder, one) for one in names)}
            entries |= {(os.path.join(folder, one), 0) for one in folders}
            new = entries - self._flushed
            for path, inode in new:
                if inode:
                    flush(path)
            if new or not self._flushed:
                flush(folder)
            self._flushed |= new
        self._is_flushed = True
