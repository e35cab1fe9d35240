"""Many small chunks are read several at a time, and each is verified and healed as if it were alone."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import Executor

import numpy as np
import pytest

from ckptstore import CheckpointStore, StoreConfig
from ckptstore.backends.memory import MemoryBackend, MemorySpace
from ckptstore.errors import ChunkCorruptError

VALUES = {"data": np.arange(64_000)}
CONFIG = StoreConfig(codec="raw", chunk_bytes=4096, inline_bytes=0)


class Counting(MemoryBackend):
    """Counts the reads of each chunk, and gives a wrong byte in the first read of one of them."""

    def __init__(self, space: MemorySpace) -> None:
        super().__init__(space)
        self.reads: Counter[str] = Counter()
        self.wrong_once = ""
        self.get_in_worker = self._counted

    def _counted(self, key: str, into: memoryview) -> int:
        self.reads[key] += 1
        size = self._get_in_worker(key, into)
        if key == self.wrong_once and self.reads[key] == 1:
            into[0] ^= 1
        return size


def opened(space: MemorySpace) -> tuple[CheckpointStore, Counting]:
    backend = Counting(space)

    async def storage(_: Executor) -> MemoryBackend:
        return backend

    return CheckpointStore.open(storage, config=CONFIG), backend


def chunks(space: MemorySpace) -> list[str]:
    return sorted(key for key in space if key.startswith("chunks/"))


def test_each_of_many_small_chunks_is_read_once() -> None:
    space: MemorySpace = {}
    store, backend = opened(space)
    with store:
        store.save("c", VALUES)
        np.testing.assert_array_equal(store.load("c")["data"], VALUES["data"])
    assert backend.reads == Counter(chunks(space))
    assert len(backend.reads) > 100


def test_only_the_one_that_was_read_wrong_is_read_again() -> None:
    space: MemorySpace = {}
    store, backend = opened(space)
    with store:
        store.save("c", VALUES)
        backend.wrong_once = chunks(space)[70]
        np.testing.assert_array_equal(store.load("c")["data"], VALUES["data"])
    assert backend.reads - Counter(chunks(space)) == {backend.wrong_once: 1}


def test_the_one_that_is_damaged_is_named() -> None:
    space: MemorySpace = {}
    store, _ = opened(space)
    with store:
        store.save("c", VALUES)
        key = chunks(space)[70]
        data, modified_s = space[key]
        space[key] = (bytes([data[0] ^ 1]) + data[1:], modified_s)
        with pytest.raises(ChunkCorruptError, match=f"field 'data'.*{key}"):
            store.load("c")
