"""The physical limits: what the machine itself needs to move the same bytes."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from blake3 import blake3

from bench.systems.base import System
from bench.workloads.compare import Values, raw_buffers

__all__ = ["DiskLimit", "Hashing", "MemoryCopy"]

WRITE_BYTES = 1 << 20
HASHED_BYTES = 8 << 20


class MemoryCopy(System):
    """Copies the state's bytes into memory that is there and warm: the least a consistent snapshot blocks."""

    def prepare(self, values: Values) -> None:
        sources = raw_buffers(values)
        # A bytearray is zeroed when it is made, so every page of it is there already.
        room = memoryview(bytearray(sum(source.nbytes for source in sources)))
        self._copies: list[tuple[memoryview, memoryview]] = []
        for source in sources:
            self._copies.append((room[: source.nbytes], source))
            room = room[source.nbytes :]

    def save(self, values: Values) -> None:
        for target, source in self._copies:
            target[:] = source


class Hashing(System):
    """BLAKE3 of all bytes, a call per 8 MiB, on all cores: the least that a look for changes costs."""

    def prepare(self, values: Values) -> None:
        self._pieces = [
            buffer[start : start + HASHED_BYTES]
            for buffer in raw_buffers(values)
            for start in range(0, buffer.nbytes, HASHED_BYTES)
        ]
        self._pool = ThreadPoolExecutor(os.cpu_count())
        list(self._pool.map(hash, range(64)))

    def save(self, values: Values) -> None:
        for _ in self._pool.map(lambda piece: blake3(piece).digest(), self._pieces):
            pass

    def close(self) -> None:
        self._pool.shutdown()


class DiskLimit(System):
    """One file written and fdatasynced; a load reads it into new memory and verifies nothing."""

    def prepare(self, values: Values) -> None:
        self._buffers = raw_buffers(values)

    def save(self, values: Values) -> None:
        with open(self.new_path(".raw"), "wb", buffering=WRITE_BYTES) as file:
            for buffer in self._buffers:
                file.write(buffer)
            file.flush()
            os.fdatasync(file.fileno())

    def load(self) -> None:
        with open(self.last_path(".raw"), "rb", buffering=0) as file:
            target = np.empty(os.fstat(file.fileno()).st_size, np.uint8).data
            while target.nbytes:
                target = target[file.readinto(target) :]
