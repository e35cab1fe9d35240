"""The data's part of a load: chunks are got, decoded into their place and verified, small ones several to a hop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ckptstore._fetch import ChunkFetch, Target, is_no_object
from ckptstore._memory import Slabs, allocate
from ckptstore._pause import collector_paused
from ckptstore._table import ChunkEntry, ChunkTable
from ckptstore._tasks import for_each, in_worker
from ckptstore._upload import Engine
from ckptstore.checkpoint import Manifest
from ckptstore.errors import BackendError, ChunkCorruptError, ChunkMissingError, ObjectNotFoundError

__all__ = ["Download", "Wanted"]

_ROW_BYTES = 1024 * 1024
_ROW_CHUNKS = 64
"""Chunks that are read in one hop where they are small: a hop takes as long as reading tens of kilobytes."""


class Wanted(NamedTuple):
    """One buffer of one field; buffer 0 is the field's graph."""

    field: str
    buffer: int


class _Part(NamedTuple):
    """Where a range of a chunk's raw bytes goes."""

    wanted: Wanted
    start: int
    offset: int
    nbytes: int


_Job = tuple[ChunkEntry, list[_Part]]
"""A chunk, and what of it goes where."""


def _cost(chunk: ChunkEntry) -> int:
    return chunk.raw_bytes + chunk.stored_bytes


def _rows(jobs: Iterable[_Job]) -> Iterator[list[_Job]]:
    """Yield the jobs in rows: several small chunks, or one."""
    row: list[_Job] = []
    nbytes = 0
    for job in jobs:
        cost = _cost(job[0])
        if row and (nbytes + cost > _ROW_BYTES or len(row) == _ROW_CHUNKS):
            yield row
            row, nbytes = [], 0
        row.append(job)
        nbytes += cost
    if row:
        yield row


def _target(chunk: ChunkEntry, parts: list[_Part], memory: dict[Wanted, memoryview]) -> Target:
    if len(parts) == 1 and parts[0].nbytes == chunk.raw_bytes:
        (part,) = parts
        return Target(memory[part.wanted][part.start : part.start + part.nbytes])
    with collector_paused():
        return Target(
            None,
            [(memory[part.wanted][part.start : part.start + part.nbytes], part.offset) for part in parts],
        )


class Download:
    """Gets buffers of one checkpoint."""

    def __init__(self, engine: Engine, manifest: Manifest, table: ChunkTable) -> None:
        self._engine = engine
        self._fetch = ChunkFetch(engine)
        self._manifest = manifest
        self._table = table
        self._positions = {name: i for i, name in enumerate(manifest.fields)}

    async def run(
        self, wanted: Iterable[Wanted], into: Mapping[Wanted, memoryview] | None = None
    ) -> dict[Wanted, memoryview]:
        """Return the verified bytes of the buffers, each in writable memory of its own, or where ``into`` says.

        What is given as ``into`` has the buffer's size; its content is undefined
        until this returns, and after an error.

        Raises ChunkCorruptError or ChunkMissingError naming field, leaf and key, or BackendError.
        """
        memory, parts = self._plan(wanted, into or {})

        async def get(row: list[_Job]) -> None:
            await self._get(row, memory)

        engine = self._engine
        limit = 2 * engine.config.encode_workers
        jobs = ((self._table.chunks[number], found) for number, found in parts.items())
        if engine.backend.get_in_worker is None:
            limit += engine.config.io_concurrency
            rows: Iterable[list[_Job]] = ([job] for job in jobs)
        else:
            rows = _rows(jobs)
        await for_each(rows, get, min(limit, max(1, len(parts))))
        return memory

    def _plan(
        self, wanted: Iterable[Wanted], into: Mapping[Wanted, memoryview]
    ) -> tuple[dict[Wanted, memoryview], dict[int, list[_Part]]]:
        """Return memory for each buffer, with what travels inline in it, and what of each chunk goes where."""
        memory: dict[Wanted, memoryview] = {}
        parts: dict[int, list[_Part]] = {}
        with collector_paused():
            buffers = {key: self._table.buffers[self._positions[key.field]][key.buffer] for key in wanted}
            slabs = Slabs(
                sum([buffer.nbytes for buffer in buffers.values() if Slabs.is_small(buffer.nbytes)])
            )
            for key, buffer in buffers.items():
                place = into.get(key)
                memory[key] = slabs.take(buffer.nbytes) if place is None else place
                if buffer.inline is not None:
                    memory[key][:] = buffer.inline
                start = 0
                for chunk, offset, nbytes in buffer.segments:
                    parts.setdefault(chunk, []).append(_Part(key, start, offset, nbytes))
                    start += nbytes
        return memory, parts

    async def chunk(self, number: int, user: Wanted) -> memoryview:
        """Return the verified raw bytes of one chunk; errors name the buffer that uses it.

        Raises as ``run``. The caller has acquired the budget for it.
        """
        chunk = self._table.chunks[number]
        memory = {user: allocate(chunk.raw_bytes)}
        await self._get_any_copy(chunk, [_Part(user, 0, 0, chunk.raw_bytes)], memory)
        return memory[user]

    async def _get(self, row: list[_Job], memory: dict[Wanted, memoryview]) -> None:
        engine = self._engine
        cost = sum([_cost(chunk) for chunk, _ in row])
        await engine.budget.acquire(cost)
        try:
            if len(row) > 1:
                row = await in_worker(engine.workers, self._read, row, memory)
            for chunk, parts in row:
                await self._get_any_copy(chunk, parts, memory)
        finally:
            engine.budget.release(cost)

    def _read(self, row: list[_Job], memory: dict[Wanted, memoryview]) -> list[_Job]:
        """Read small chunks in one go, on a worker; return those that could not be read."""
        return [job for job in row if not self._fetch.read(job[0], _target(*job, memory))]

    async def _get_any_copy(
        self, chunk: ChunkEntry, parts: list[_Part], memory: dict[Wanted, memoryview]
    ) -> None:
        target = _target(chunk, parts, memory)
        try:
            await self._fetch.any_copy(chunk, lambda stored: self._fetch.into(stored, target))
        except ObjectNotFoundError as exc:
            raise ChunkMissingError(
                f"a chunk of {self._place(parts[0])} is gone: {chunk.key} of {self._engine.backend.url}; "
                "load an older checkpoint, or other fields"
            ) from exc
        except (ChunkCorruptError, BackendError) as exc:
            if isinstance(exc, BackendError) and not is_no_object(exc):
                raise
            raise ChunkCorruptError(
                f"a chunk of {self._place(parts[0])} is corrupt: {exc} (key {chunk.key}, "
                f"{self._engine.backend.url}); load an older checkpoint, or other fields"
            ) from exc

    def _place(self, part: _Part) -> str:
        """Name the field and the leaf that a part belongs to, for a person."""
        checkpoint = self._manifest.checkpoint
        field = self._manifest.fields[part.wanted.field]
        block = part.wanted.buffer - 1
        at = next((f" at {leaf.path!r}" for leaf in field.leaves if leaf.block == block and leaf.path), "")
        label = f", label {checkpoint.label!r}" if checkpoint.label else ""
        return f"field {field.name!r}{at} ({checkpoint.collection}{label})"
