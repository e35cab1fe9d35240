"""The data's part of a save: each chunk is digested, reused or encoded, and put, in one worker hop."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import NamedTuple

from ckptstore._budget import ByteBudget
from ckptstore._chunking import PlannedChunk, digest
from ckptstore._copying import copy
from ckptstore._encoding import EncodingChoice
from ckptstore._memory import BufferPool, Scratch
from ckptstore._signing import Keyring
from ckptstore._snapshot import Snapshot
from ckptstore._table import ChunkEntry, ChunkTable, Segment, StoredBuffer
from ckptstore._tasks import for_each, in_worker
from ckptstore._trust import Trust
from ckptstore._workers import WorkerPool
from ckptstore.backends.base import Backend, Buffer
from ckptstore.codecs import REDUNDANT, ChunkCoder
from ckptstore.config import StoreConfig
from ckptstore.errors import BackendError

__all__ = ["Engine", "Progress", "Upload", "Urgency", "discard"]

_NICENESS = 10
"""Of the threads of background saves: where training takes all processors, they get a tenth of one each."""

_ADAPTIVE_BYTES = 64 * 1024 * 1024
"""Smaller saves are always encoded: they cost little, and take the same room every time."""


@dataclass(slots=True)
class Progress:
    """How far a save is: raw bytes done (stored or found) of the total, and bytes sent."""

    raw_bytes_total: int = 0
    raw_bytes_done: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class Urgency:
    """Whether somebody waits for a save: from the start, or since they said so, from any thread."""

    urgent: bool


@dataclass(frozen=True, slots=True)
class Engine:
    """What saves and loads of one store share."""

    backend: Backend
    config: StoreConfig
    coder: ChunkCoder
    choice: EncodingChoice
    workers: Executor
    background: Executor
    budget: ByteBudget
    scratch: Scratch
    buffers: BufferPool
    trust: Trust
    keyring: Keyring | None
    damaged: set[str]
    """Keys of chunks that were found damaged: no save builds on them."""

    def may_reuse(self, chunk: ChunkEntry) -> bool:
        """Tell whether a stored chunk is not known to be damaged. Thread-safe."""
        return not self.damaged or chunk.key not in self.damaged

    @classmethod
    def of(
        cls, backend: Backend, config: StoreConfig, workers: Executor, keyring: Keyring | None = None
    ) -> Engine:
        """Return the engine of a new store."""
        return cls(
            backend=backend,
            config=config,
            coder=ChunkCoder(config.codec),
            choice=EncodingChoice(config.encode_workers),
            workers=workers,
            background=WorkerPool(
                max(1, config.encode_workers - 1), "ckptstore-background", niceness=_NICENESS
            ),
            budget=ByteBudget(config.memory_bytes),
            scratch=Scratch(),
            buffers=BufferPool(),
            trust=Trust(warn=config.warn_untrusted),
            keyring=keyring,
            damaged=set(),
        )


class _Made(NamedTuple):
    """What a worker has made of a chunk. Times are in seconds, 0 for what was not done or tells nothing."""

    entry: ChunkEntry | None = None
    """Where the chunk is, or will be; None if an equal one of this save is on its way."""
    payload: Buffer | None = None
    """What is still to be put."""
    encoded_s: float = 0.0
    put_s: float = 0.0


class Upload:
    """The chunks of one snapshot on their way.

    ``known`` are chunks that are safe to reuse (protocol, S0 and S2); ``nonce``
    belongs to this save alone, so no two saves ever write one key. As long as
    nobody waits for it, it leaves a processor to who goes on meanwhile, if there
    are two, and stands back where they take all.
    """

    def __init__(
        self,
        engine: Engine,
        snapshot: Snapshot,
        *,
        nonce: bytes,
        known: Mapping[bytes, ChunkEntry],
        progress: Progress,
        urgency: Urgency,
    ) -> None:
        self._engine = engine
        self._urgency = urgency
        self._snapshot = snapshot
        self._nonce = nonce
        self._known = known
        self._progress = progress
        self._claims: dict[bytes, int] = {}
        self._digests = [b""] * len(snapshot.layout.chunks)
        self._entries: dict[bytes, ChunkEntry] = {}
        self._sent: set[str] = set()
        self._n_putting = 0
        # Chunks that did not change lie side by side: the next one is taken to be as the last one was.
        self._finds = bool(known)
        self._adaptive = engine.config.codec == "auto" and snapshot.raw_bytes >= _ADAPTIVE_BYTES

    async def run(self) -> ChunkTable:
        """Put what is new, wait for the barrier, and return the chunk table.

        Raises BackendError. After a failure or a cancellation ``discard`` removes what was put.
        """
        engine = self._engine
        self._progress.raw_bytes_total = self._snapshot.raw_bytes
        self._progress.raw_bytes_done = sum(
            len(self._snapshot.buffers[i].view) for i in self._snapshot.layout.inline
        )
        limit = 2 * engine.config.encode_workers
        if engine.backend.put_in_worker is None:
            limit += engine.config.io_concurrency
        chunks = self._snapshot.layout.chunks
        began_s = time.perf_counter()
        await for_each(range(len(chunks)), self._send, min(limit, max(1, len(chunks))))
        if self._sent:
            put_s = time.perf_counter()
            await engine.backend.sync()
            ended_s = time.perf_counter()
            if self._adaptive:
                engine.choice.flushed(self._progress.sent_bytes, ended_s - began_s, ended_s - put_s)
        return self._table()

    async def discard(self) -> None:
        """Delete the save's own chunks, as far as that works: what stays is garbage until collected."""
        await discard(self._engine, self._sent)

    async def _send(self, number: int) -> None:
        engine, chunk = self._engine, self._snapshot.layout.chunks[number]
        cost = 2 * chunk.nbytes  # the raw bytes, and as many encoded at most
        await engine.budget.acquire(cost)
        try:
            if engine.backend.put_in_worker is not None:
                await self._store(number, None)
            else:  # a raw payload outlives the worker's job: the put reads it
                with engine.buffers.buffer(chunk.nbytes) as room:
                    await self._store(number, room)
            self._progress.raw_bytes_done += chunk.nbytes
        finally:
            engine.budget.release(cost)

    async def _store(self, number: int, room: memoryview | None) -> None:
        engine = self._engine
        only_redundant = self._adaptive and not engine.choice.ask()
        workers = engine.workers if self._urgency.urgent else engine.background
        made = await in_worker(workers, self._encode, number, room, only_redundant)
        entry, put_s, n_at_once = made.entry, made.put_s, float(engine.config.encode_workers)
        if entry is None:
            return
        if made.payload is not None:
            put_s, n_at_once = await self._put(entry.key, made.payload)
        self._entries[entry.digest] = entry
        if entry.nonce == self._nonce:
            self._progress.sent_bytes += entry.stored_bytes
            if self._adaptive:
                self._learn(entry, made.encoded_s, put_s, n_at_once)

    async def _put(self, key: str, payload: Buffer) -> tuple[float, float]:
        """Put from the loop; return how many seconds that took, and among how many puts on average."""
        self._n_putting += 1
        start_s, n_before = time.perf_counter(), self._n_putting
        try:
            await self._engine.backend.put(key, payload, staged=True)
            return time.perf_counter() - start_s, (n_before + self._n_putting) / 2
        finally:
            self._n_putting -= 1

    def _learn(self, entry: ChunkEntry, encoded_s: float, put_s: float, n_at_once: float) -> None:
        choice = self._engine.choice
        # What is redundant is encoded in any case, and not as fast: it has no part in the choice.
        if entry.codec != "raw" and entry.stored_bytes > REDUNDANT * entry.raw_bytes:
            choice.encoded(entry.stored_bytes, encoded_s)
        choice.put(entry.stored_bytes, put_s, n_at_once)

    def _encode(self, number: int, room: memoryview | None, only_redundant: bool) -> _Made:
        """Runs on a worker: digest, stop if known, encode, and put where the backend can from here.

        ``room``: memory for the chunk until it was put; None if it is put from here.
        """
        start_s = time.perf_counter()
        chunk = self._snapshot.layout.chunks[number]
        known = self._found_in_place(number, chunk) if self._finds else None
        if known is None:
            raw = self._assemble(chunk, room)
            known = self._find(number, raw)
        self._finds = known is not None
        if known is not None:
            return _Made(known)
        key = self._digests[number]
        # dict.setdefault is atomic: of equal chunks in one save, one worker sends.
        if self._claims.setdefault(key, number) != number:
            return _Made()
        codec, payload = self._engine.coder.encode(
            raw, itemsize=chunk.itemsize, only_redundant=only_redundant
        )
        entry = ChunkEntry(key, self._nonce, codec, len(raw), len(payload))
        self._sent.add(entry.key)
        encoded_s = time.perf_counter()
        put = self._engine.backend.put_in_worker
        if put is None:
            return _Made(entry, payload, encoded_s - start_s)
        put(entry.key, payload)
        return _Made(entry, None, encoded_s - start_s, time.perf_counter() - encoded_s)

    def _found_in_place(self, number: int, chunk: PlannedChunk) -> ChunkEntry | None:
        """Look for a chunk without a copy of it: if it is found, its bytes are not read again."""
        pieces = self._snapshot.pieces(chunk)
        if len(pieces) > 1 or self._snapshot.is_private(chunk):
            return None
        return self._find(number, pieces[0])

    def _find(self, number: int, raw: memoryview) -> ChunkEntry | None:
        """Digest a chunk's bytes and return the equal one that may be reused, if there is one."""
        key = self._digests[number] = digest(raw)
        known = self._known.get(key)
        return known if known is not None and self._engine.may_reuse(known) else None

    def _assemble(self, chunk: PlannedChunk, room: memoryview | None) -> memoryview:
        pieces = self._snapshot.pieces(chunk)
        if len(pieces) == 1 and self._snapshot.is_private(chunk):
            return pieces[0]
        target = self._engine.scratch.take(chunk.nbytes) if room is None else room
        position = 0
        for piece in pieces:
            copy(target[position : position + len(piece)], piece)
            position += len(piece)
        return target

    def _table(self) -> ChunkTable:
        layout, snapshot = self._snapshot.layout, self._snapshot
        numbers: dict[bytes, int] = {}
        segments: dict[int, list[Segment]] = {}
        for chunk, key in zip(layout.chunks, self._digests, strict=True):
            number = numbers.setdefault(key, len(numbers))
            offset = 0
            for piece in chunk.pieces:
                segments.setdefault(piece.block, []).append((number, offset, piece.nbytes))
                offset += piece.nbytes
        buffers: list[tuple[StoredBuffer, ...]] = []
        index = 0
        for field in snapshot.fields:
            stored = []
            for _ in range(1 + len(field.blocks)):
                view = snapshot.buffers[index].view
                parts = tuple(segments.get(index, ()))
                stored.append(StoredBuffer(len(view), None if parts else bytes(view), parts))
                index += 1
            buffers.append(tuple(stored))
        return ChunkTable(self._nonce, tuple(self._entries[key] for key in numbers), tuple(buffers))


async def discard(engine: Engine, keys: Iterable[str]) -> None:
    """Delete chunks that no manifest names, as far as that works."""

    async def delete(key: str) -> None:
        try:
            await engine.backend.delete(key)
        except BackendError:
            return

    await for_each(sorted(keys), delete, engine.config.io_concurrency)
