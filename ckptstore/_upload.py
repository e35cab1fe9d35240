"""The data's part of a save: each chunk is digested, reused or encoded, and put, in one worker hop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass

from ckptstore._budget import ByteBudget
from ckptstore._chunking import PlannedChunk, digest
from ckptstore._memory import BufferPool, Scratch
from ckptstore._signing import Keyring
from ckptstore._snapshot import Snapshot
from ckptstore._table import ChunkEntry, ChunkTable, Segment, StoredBuffer
from ckptstore._tasks import for_each, in_worker
from ckptstore._trust import Trust
from ckptstore.backends.base import Backend, Buffer
from ckptstore.codecs import ChunkCoder
from ckptstore.config import StoreConfig
from ckptstore.errors import BackendError

__all__ = ["Engine", "Progress", "Upload", "discard"]


@dataclass(slots=True)
class Progress:
    """How far a save is: raw bytes done (stored or found) of the total, and bytes sent."""

    raw_bytes_total: int = 0
    raw_bytes_done: int = 0
    sent_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Engine:
    """What saves and loads of one store share."""

    backend: Backend
    config: StoreConfig
    coder: ChunkCoder
    workers: Executor
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
        coder, budget = ChunkCoder(config.codec), ByteBudget(config.memory_bytes)
        trust = Trust(warn=config.warn_untrusted)
        return cls(backend, config, coder, workers, budget, Scratch(), BufferPool(), trust, keyring, set())


class Upload:
    """The chunks of one snapshot on their way.

    ``known`` are chunks that are safe to reuse (protocol, S0 and S2); ``nonce``
    belongs to this save alone, so no two saves ever write one key.
    """

    def __init__(
        self,
        engine: Engine,
        snapshot: Snapshot,
        *,
        nonce: bytes,
        known: Mapping[bytes, ChunkEntry],
        progress: Progress,
    ) -> None:
        self._engine = engine
        self._snapshot = snapshot
        self._nonce = nonce
        self._known = known
        self._progress = progress
        self._claims: dict[bytes, int] = {}
        self._digests = [b""] * len(snapshot.layout.chunks)
        self._entries: dict[bytes, ChunkEntry] = {}
        self._sent: set[str] = set()

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
        await for_each(range(len(chunks)), self._send, min(limit, max(1, len(chunks))))
        if self._sent:
            await engine.backend.sync()
        return self._table()

    async def discard(self) -> None:
        """Delete the save's own chunks, as far as that works: what stays is garbage until collected."""
        await discard(self._engine, self._sent)

    async def _send(self, number: int) -> None:
        engine, chunk = self._engine, self._snapshot.layout.chunks[number]
        cost = 2 * chunk.nbytes  # the raw bytes, and as many encoded at most
        await engine.budget.acquire(cost)
        try:
            entry, payload = await in_worker(engine.workers, self._encode, number)
            if payload is not None and entry is not None:
                await engine.backend.put(entry.key, payload, staged=True)
            if entry is not None:
                self._entries[entry.digest] = entry
                if entry.nonce == self._nonce:
                    self._progress.sent_bytes += entry.stored_bytes
            self._progress.raw_bytes_done += chunk.nbytes
        finally:
            engine.budget.release(cost)

    def _encode(self, number: int) -> tuple[ChunkEntry | None, Buffer | None]:
        """Runs on a worker: digest, stop if known, encode, and put where the backend can from here."""
        chunk = self._snapshot.layout.chunks[number]
        raw = self._assemble(chunk)
        key = digest(raw)
        self._digests[number] = key
        known = self._known.get(key)
        if known is not None and self._engine.may_reuse(known):
            return known, None
        # dict.setdefault is atomic: of equal chunks in one save, one worker sends.
        if self._claims.setdefault(key, number) != number:
            return None, None
        codec, payload = self._engine.coder.encode(raw, itemsize=chunk.itemsize)
        entry = ChunkEntry(key, self._nonce, codec, len(raw), len(payload))
        self._sent.add(entry.key)
        put = self._engine.backend.put_in_worker
        if put is None:
            return entry, payload
        put(entry.key, payload)
        return entry, None

    def _assemble(self, chunk: PlannedChunk) -> memoryview:
        pieces = self._snapshot.pieces(chunk)
        if len(pieces) == 1 and self._snapshot.is_private(chunk):
            return pieces[0]
        if self._engine.backend.put_in_worker is not None:
            target = self._engine.scratch.take(chunk.nbytes)
        else:  # a raw payload outlives this job: the put reads it
            target = memoryview(bytearray(chunk.nbytes))
        position = 0
        for piece in pieces:
            target[position : position + len(piece)] = piece
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
