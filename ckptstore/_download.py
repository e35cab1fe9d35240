"""The data's part of a load: chunks are got, decoded into their place and verified, in one worker hop each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ckptstore._chunking import digest
from ckptstore._keys import CHUNKS
from ckptstore._memory import allocate
from ckptstore._table import ChunkEntry, ChunkTable
from ckptstore._tasks import for_each, in_worker
from ckptstore._upload import Engine
from ckptstore.backends.base import Buffer
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
        stored: bytes | None = None
        if engine.backend.get_in_worker is None:
            stored = await engine.backend.get(key, length=chunk.raw_bytes + 1)
        await in_worker(engine.workers, self._decode, chunk, key, codec or chunk.codec, stored, parts, memory)

    def _decode(
        self,
        chunk: ChunkEntry,
        key: str,
        codec: str,
        stored: bytes | None,
        parts: list[_Part],
        memory: dict[Wanted, memoryview],
    ) -> None:
        """Runs on a worker: read, decode in place, verify, copy to where it belongs."""
        first = parts[0]
        in_place = len(parts) == 1 and first.nbytes == chunk.raw_bytes
        if in_place:
            target = memory[first.wanted][first.start : first.start + first.nbytes]
        else:
            target = memoryview(bytearray(chunk.raw_bytes))
        # Another copy may have been stored under another codec: it has a size of its own.
        expected = chunk.stored_bytes if key == chunk.key else None
        if stored is None and codec == "raw":
            self._read(key, target, chunk.raw_bytes)
        else:
            data: Buffer = stored if stored is not None else self._read_scratch(key, chunk, expected)
            if expected is not None and len(data) != expected:
                raise ChunkCorruptError(f"{_bytes_of(len(data), chunk)} stored, {expected} expected")
            self._engine.coder.decode(codec, data, target)
        found = digest(target)
        if found != chunk.digest:
            raise ChunkCorruptError(
                f"digest {found.hex()[:16]}… of its bytes, expected {chunk.digest.hex()[:16]}…"
            )
        if not in_place:
            for part in parts:
                memory[part.wanted][part.start : part.start + part.nbytes] = target[
                    part.offset : part.offset + part.nbytes
                ]

    def _read_scratch(self, key: str, chunk: ChunkEntry, expected: int | None) -> memoryview:
        scratch = self._engine.scratch.take(chunk.raw_bytes)
        size = self._read(key, scratch, expected)
        return scratch[:size]

    def _read(self, key: str, into: memoryview, expected: int | None) -> int:
        read = self._engine.backend.get_in_worker
        if read is None:
            raise AssertionError("only called where the backend reads on workers")
        size = read(key, into)
        if size > len(into) or (expected is not None and size != expected):
            raise ChunkCorruptError(
                f"{size} bytes stored, {len(into) if expected is None else expected} expected"
            )
        return size

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


def _bytes_of(size: int, chunk: ChunkEntry) -> str:
    return f"more than {chunk.raw_bytes} bytes" if size > chunk.raw_bytes else f"{size} bytes"
