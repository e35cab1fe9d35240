"""The data's part of a load: chunks are got, decoded into their place and verified, in one worker hop each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ckptstore._chunking import digest
from ckptstore._keys import CHUNKS
from ckptstore._memory import allocate
from ckptstore._table import ChunkEntry, ChunkTable
from ckptstore._tasks import for_each, in_worker
from ckptstore._upload import Engine
from ckptstore.checkpoint import Manifest
from ckptstore.codecs import KNOWN_CODECS
from ckptstore.errors import BackendError, ChunkCorruptError, ChunkMissingError, ObjectNotFoundError

__all__ = ["Download", "Wanted"]

_TRIES = 3


class Wanted(NamedTuple):
    """One buffer of one field; buffer 0 is the field's graph."""

    field: str
    buffer: int


@dataclass(frozen=True, slots=True)
class _Part:
    """Where a range of a chunk's raw bytes goes."""

    wanted: Wanted
    start: int
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Job:
    """One try to get a chunk: from where, and where its raw bytes go.

    ``target`` takes all of them; ``copies`` are the places that get a part of
    it, none if the target is its place.
    """

    chunk: ChunkEntry
    key: str
    codec: str
    target: memoryview
    copies: tuple[tuple[memoryview, int], ...]

    def check(self, size: int) -> int:
        """Return the size of what is stored, or raise ChunkCorruptError if it cannot be that of the chunk."""
        # Another copy may have been stored under another codec: it has a size of its own.
        own = self.key == self.chunk.key
        expected = self.chunk.stored_bytes if own else self.chunk.raw_bytes if self.codec == "raw" else None
        if size > self.chunk.raw_bytes or (expected is not None and size != expected):
            found = f"more than {self.chunk.raw_bytes}" if size > self.chunk.raw_bytes else str(size)
            raise ChunkCorruptError(
                f"{found} bytes stored, {self.chunk.raw_bytes if expected is None else expected} expected"
            )
        return size

    def finish(self) -> None:
        """Verify the raw bytes and copy them to where they belong."""
        found = digest(self.target)
        if found != self.chunk.digest:
            raise ChunkCorruptError(
                f"digest {found.hex()[:16]}… of its bytes, expected {self.chunk.digest.hex()[:16]}…"
            )
        for place, offset in self.copies:
            place[:] = self.target[offset : offset + len(place)]


def _job(
    chunk: ChunkEntry, key: str, codec: str, parts: list[_Part], memory: dict[Wanted, memoryview]
) -> _Job:
    places = [memory[part.wanted][part.start : part.start + part.nbytes] for part in parts]
    if len(places) == 1 and len(places[0]) == chunk.raw_bytes:
        return _Job(chunk, key, codec, places[0], ())
    copies = tuple((place, part.offset) for place, part in zip(places, parts, strict=True))
    return _Job(chunk, key, codec, memoryview(bytearray(chunk.raw_bytes)), copies)


class Download:
    """Gets buffers of one checkpoint."""

    def __init__(self, engine: Engine, manifest: Manifest, table: ChunkTable) -> None:
        self._engine = engine
        self._manifest = manifest
        self._table = table
        self._positions = {name: i for i, name in enumerate(manifest.fields)}

    async def run(self, wanted: Iterable[Wanted]) -> dict[Wanted, memoryview]:
        """Return the verified bytes of the buffers, each in writable memory of its own.

        Raises ChunkCorruptError or ChunkMissingError naming field, leaf and key, or BackendError.
        """
        memory: dict[Wanted, memoryview] = {}
        parts: dict[int, list[_Part]] = {}
        for key in wanted:
            buffer = self._table.buffers[self._positions[key.field]][key.buffer]
            memory[key] = allocate(buffer.nbytes)
            if buffer.inline is not None:
                memory[key][:] = buffer.inline
            start = 0
            for chunk, offset, nbytes in buffer.segments:
                parts.setdefault(chunk, []).append(_Part(key, start, offset, nbytes))
                start += nbytes

        async def get(item: tuple[int, list[_Part]]) -> None:
            await self._get(self._table.chunks[item[0]], item[1], memory)

        engine = self._engine
        limit = 2 * engine.config.encode_workers
        if engine.backend.get_in_worker is None:
            limit += engine.config.io_concurrency
        await for_each(parts.items(), get, min(limit, max(1, len(parts))))
        return memory

    async def chunk(self, number: int, user: Wanted) -> memoryview:
        """Return the verified raw bytes of one chunk; errors name the buffer that uses it.

        Raises as ``run``. The caller has acquired the budget for it.
        """
        chunk = self._table.chunks[number]
        memory = {user: allocate(chunk.raw_bytes)}
        await self._get_any_copy(chunk, [_Part(user, 0, 0, chunk.raw_bytes)], memory)
        return memory[user]

    async def _get(self, chunk: ChunkEntry, parts: list[_Part], memory: dict[Wanted, memoryview]) -> None:
        cost = chunk.raw_bytes + chunk.stored_bytes
        await self._engine.budget.acquire(cost)
        try:
            await self._get_any_copy(chunk, parts, memory)
        finally:
            self._engine.budget.release(cost)

    async def _get_any_copy(
        self, chunk: ChunkEntry, parts: list[_Part], memory: dict[Wanted, memoryview]
    ) -> None:
        problem: Exception | None = None
        for _ in range(_TRIES):
            try:
                return await self._get_once(chunk, chunk.key, parts, memory)
            except (ChunkCorruptError, ObjectNotFoundError) as exc:
                problem = exc
            except BackendError as exc:
                # What stands in the chunk's place cannot be read as an object; the other
                # classes say that the storage did not give it, which is not the chunk's damage.
                if exc.transient or type(exc) is not BackendError:
                    raise
                problem = exc
        for key, codec in await self._other_copies(chunk):
            try:
                return await self._get_once(chunk, key, parts, memory, codec)
            except (ChunkCorruptError, ObjectNotFoundError, BackendError):
                continue
        where = self._place(parts[0])
        if isinstance(problem, ObjectNotFoundError):
            raise ChunkMissingError(
                f"a chunk of {where} is gone: {chunk.key} of {self._engine.backend.url}; "
                "load an older checkpoint, or other fields"
            ) from problem
        raise ChunkCorruptError(
            f"a chunk of {where} is corrupt: {problem} (key {chunk.key}, {self._engine.backend.url}); "
            "load an older checkpoint, or other fields"
        ) from problem

    async def _get_once(
        self,
        chunk: ChunkEntry,
        key: str,
        parts: list[_Part],
        memory: dict[Wanted, memoryview],
        codec: str | None = None,
    ) -> None:
        engine = self._engine
        job = _job(chunk, key, codec or chunk.codec, parts, memory)
        read = engine.backend.get_in_worker
        if read is not None:
            await in_worker(engine.workers, self._read_and_decode, read, job)
        elif job.codec == "raw":
            job.check(await engine.backend.get_into(key, job.target))
            await in_worker(engine.workers, job.finish)
        else:
            with engine.buffers.buffer(chunk.raw_bytes) as buffer:
                size = job.check(await engine.backend.get_into(key, buffer))
                await in_worker(engine.workers, self._decode, job, buffer[:size])

    def _read_and_decode(self, read: Callable[[str, memoryview], int], job: _Job) -> None:
        if job.codec == "raw":
            job.check(read(job.key, job.target))
            job.finish()
        else:
            scratch = self._engine.scratch.take(job.chunk.raw_bytes)
            self._decode(job, scratch[: job.check(read(job.key, scratch))])

    def _decode(self, job: _Job, stored: memoryview) -> None:
        self._engine.coder.decode(job.codec, stored, job.target)
        job.finish()

    async def _other_copies(self, chunk: ChunkEntry) -> list[tuple[str, str]]:
        """Return key and codec of what other saves have stored under the same digest; none where that is refused."""
        text = chunk.digest.hex()
        try:
            keys = [info.key async for info in self._engine.backend.list(f"{CHUNKS}{text[:2]}/{text}.")]
        except BackendError as exc:
            if exc.transient:
                raise
            return []
        named = [(key, key.rpartition(".")[2]) for key in keys if key != chunk.key]
        return [(key, codec) for key, codec in named if codec in KNOWN_CODECS]

    def _place(self, part: _Part) -> str:
        """Name the field and the leaf that a part belongs to, for a person."""
        checkpoint = self._manifest.checkpoint
        field = self._manifest.fields[part.wanted.field]
        block = part.wanted.buffer - 1
        at = next((f" at {leaf.path!r}" for leaf in field.leaves if leaf.block == block and leaf.path), "")
        label = f", label {checkpoint.label!r}" if checkpoint.label else ""
        return f"field {field.name!r}{at} ({checkpoint.collection}{label})"
