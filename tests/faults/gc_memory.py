"""A collection over a storage of many chunks that exist only while they are listed; prints what it took.

    python gc_memory.py FOLDER N_CHUNKS

Half of the chunks are named by manifests, which are files in the folder; the other half is garbage.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from ckptstore import StoreConfig
from ckptstore._clock import Clock
from ckptstore._collect import collect
from ckptstore._keys import CheckpointName, chunk_key, manifest_key
from ckptstore._table import ChunkEntry, ChunkTable, StoredBuffer
from ckptstore._upload import Engine
from ckptstore._workers import WorkerPool
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.backends.memory import MemoryBackend
from ckptstore.checkpoint import FieldInfo
from ckptstore.config import Limits
from ckptstore.errors import BackendError
from ckptstore.manifest import Draft, encode

STORE_ID = "ab" * 16
GRACE_S = 86_400.0
CHUNK_BYTES = 1000
PER_MANIFEST = 20_000


def digest(number: int, n_chunks: int) -> bytes:
    """Spread over all first bytes, and ascending with the number."""
    return (number * (2**32 // n_chunks)).to_bytes(4, "big") + number.to_bytes(4, "big") * 7


def nonce(number: int) -> bytes:
    return (number % 97).to_bytes(8, "big")


def build(folder: Path, n_chunks: int) -> None:
    """Write the manifests: every second chunk is in use."""
    used = range(0, n_chunks, 2)
    for seq, start in enumerate(range(0, len(used), PER_MANIFEST)):
        chunks = tuple(
            ChunkEntry(digest(number, n_chunks), nonce(number), "raw", CHUNK_BYTES, CHUNK_BYTES)
            for number in used[start : start + PER_MANIFEST]
        )
        segments = tuple((at, 0, CHUNK_BYTES) for at in range(len(chunks)))
        nbytes = CHUNK_BYTES * len(chunks)
        table = ChunkTable(
            nonce(0), chunks, ((StoredBuffer(1, b"g", ()), StoredBuffer(nbytes, None, segments)),)
        )
        (cost,) = table.costs()
        name = CheckpointName(1, seq, None, None, f"{seq:032x}")
        draft = Draft(
            store_id=STORE_ID,
            collection="c",
            name=name,
            created_ns=1,
            parent=None,
            metadata={},
            attributes={},
            fields=[FieldInfo("f", "int", "tree", cost.raw_bytes, cost.stored_bytes, cost.new_bytes, (), ())],
            table=table,
        )
        (folder / name.text).write_bytes(encode(draft, Limits()))


class ManyChunks(Backend):
    """The manifests of a folder, and chunks that are made up as they are listed; counts what is deleted."""

    def __init__(self, folder: Path, n_chunks: int) -> None:
        self._folder, self._n_chunks = folder, n_chunks
        self._others = MemoryBackend()
        self.deleted = 0

    @property
    def url(self) -> str:
        return "many://"

    async def get(self, key: str, **options: Any) -> bytes:
        return (self._folder / key.rpartition("/")[2]).read_bytes()

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        return await self._others.put(key, data)

    async def head(self, key: str) -> ObjectInfo:
        return await self._others.head(key)

    async def delete(self, key: str) -> None:
        await self._others.delete(key)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        self.deleted += sum(key.endswith(".raw") for key in keys)
        return {}

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        old = time.time() - 2 * GRACE_S
        if prefix == "manifests/":
            for path in sorted(self._folder.iterdir()):
                yield ObjectInfo(manifest_key("c", path.name), path.stat().st_size, old)
        elif prefix == "chunks/":
            for number in range(self._n_chunks):
                key = chunk_key(digest(number, self._n_chunks), nonce(number), "raw")
                yield ObjectInfo(key, CHUNK_BYTES, old)
        async for info in self._others.list(prefix):
            yield info

    async def sync(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


async def main(folder: Path, n_chunks: int) -> dict[str, float]:
    workers = WorkerPool(3)
    engine = Engine.of(ManyChunks(folder, n_chunks), StoreConfig(encode_workers=2), workers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    report = await collect(
        engine, store_id=STORE_ID, grace_s=GRACE_S, clock=Clock(), dry_run=False, force=True
    )
    seconds = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    workers.shutdown()
    engine.background.shutdown()
    assert isinstance(engine.backend, ManyChunks)
    return {
        "n_chunks": report.n_chunks,
        "n_garbage": report.n_garbage,
        "deleted": engine.backend.deleted,
        "grown_mib": (after - before) / 1024,
        "seconds": seconds,
    }


if __name__ == "__main__":
    where, how_many = Path(sys.argv[1]), int(sys.argv[2])
    child = os.fork()
    if child == 0:
        build(where, how_many)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    print(json.dumps(asyncio.run(main(where, how_many))))
