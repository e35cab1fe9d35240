"""Copying checkpoints from one store to another: chunks first, the manifest last, verified on the way.

What is copied gets a manifest, names and an order of the target's own: it sorts
above all that is there. It records what it is a copy of, so a copy that was
interrupted goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ckptstore._clock import Clock
from ckptstore._fetch import ChunkFetch, Stored, Target, kind_of
from ckptstore._life import StoreLife
from ckptstore._line import Line, open_line
from ckptstore._listing import Entry
from ckptstore._manifests import live_entries
from ckptstore._summaries import read_manifest, read_summary_of
from ckptstore._table import ChunkEntry, ChunkTable
from ckptstore._tasks import for_each, in_worker
from ckptstore._upload import Engine, discard
from ckptstore._writer import Request, publish
from ckptstore.checkpoint import Checkpoint, CheckpointRef, FieldInfo, Manifest
from ckptstore.errors import CheckpointStoreError, InvalidNameError
from ckptstore.manifest import ManifestSource

__all__ = ["ORIGIN", "Copying", "Step"]

ORIGIN = "ckptstore.copied_from"
"""The attribute in which a copy records the reference of what it is a copy of."""

State = Literal["due", "there", "older", "unreadable"]


@dataclass(slots=True)
class Step:
    """One checkpoint of the source, and what is to be done with it.

    ``due`` to be copied; ``there`` already, as ``copy``; ``older`` than what the
    target shows as its newest, which it would replace as that; ``unreadable``:
    its manifest is damaged, ``detail`` says how.
    """

    entry: Entry
    state: State
    checkpoint: Checkpoint | None = None
    copy: Checkpoint | None = None
    detail: str | None = None


class Copying:
    """Copies from ``source`` to ``target``, one checkpoint after another; ``target`` None: there is none yet.

    ``progress`` is called with the stored bytes of each chunk that is done.
    """

    def __init__(
        self, source: StoreLife, target: StoreLife | None, *, progress: Callable[[int], None] | None = None
    ) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._lines: dict[str, Line] = {}
        self._copies: dict[str, dict[str, Checkpoint]] = {}

    async def plan(self, entries: Sequence[Entry], *, on_top: bool) -> list[Step]:
        """Return what is to be done with checkpoints of one collection, oldest first, the order to do it in.

        ``on_top``: also copy what is older than the target's newest, or what the
        target has another newest than a copy for. Raises as a listing does.
        """
        steps: list[Step] = []
        if not entries:
            return steps
        collection = entries[0].collection
        copies = await self._copies_of(collection)
        newest = await self._newest(collection)
        for entry in sorted(entries, key=lambda one: one.text, reverse=True):
            step = Step(entry, "due")
            steps.append(step)
            try:
                manifest = await read_summary_of(self._source._engine, self._named(entry))
            except CheckpointStoreError as exc:
                if kind_of(exc) is None:
                    raise
                step.state, step.detail = "unreadable", str(exc)
                continue
            step.checkpoint, step.copy = manifest.checkpoint, copies.get(entry.text)
            if step.copy is not None:
                step.state = "there"
            elif newest is not None and not on_top:
                origin = _origin(newest)
                # Names sort newest first.
                if origin is None or not self._is_ours(origin, collection) or origin.name < entry.text:
                    step.state = "older"
        return steps

    async def copy(self, step: Step) -> tuple[Checkpoint, int]:
        """Copy a checkpoint that is due; return it as it is in the target, and the bytes that were sent.

        All or nothing, as a save is. Raises ChunkCorruptError, ObjectNotFoundError or
        what else ``kind_of`` knows for damage in the source, and what a save
        raises.
        """
        target, checkpoint = self._target, step.checkpoint
        assert target is not None
        assert checkpoint is not None
        manifest, table = await read_manifest(
            self._source._engine, replace(self._named(step.entry), digest=checkpoint.ref.digest)
        )
        collection = step.entry.collection
        contents: list[_ChunkCopies] = []

        def content(nonce: bytes, known: Mapping[bytes, ChunkEntry]) -> _ChunkCopies:
            contents.append(
                _ChunkCopies(self._source._engine, target._engine, table, nonce, known, self._progress)
            )
            return contents[0]

        request = Request(
            collection=collection,
            label=checkpoint.label,
            run=checkpoint.run,
            metadata=checkpoint.metadata,
            attributes={**checkpoint.attributes, ORIGIN: checkpoint.ref.to_dict()},
            parent=await self._parent(checkpoint),
            keep=None,
            protect=frozenset(),
            started=target._clock.read(),
        )
        published = await publish(
            target._engine,
            await self._line(collection, target._clock),
            request,
            content,
            lambda copied: _field_infos(manifest, copied),
            store_id=target.store_id,
            clock=target._clock,
            max_save_s=target._marker.max_save_s,
            created_ns=checkpoint.created_ns,
        )
        step.state, step.copy = "there", published.checkpoint
        self._copies[collection][step.entry.text] = published.checkpoint
        return published.checkpoint, contents[0].sent_bytes

    async def _line(self, collection: str, clock: Clock) -> Line:
        assert self._target is not None
        line = self._lines.get(collection)
        if line is None:
            store_id = self._target.store_id
            line = await open_line(self._target._engine, collection, store_id=store_id, clock=clock)
            self._lines[collection] = line
        return line

    async def _parent(self, checkpoint: Checkpoint) -> CheckpointRef | None:
        """Return the copy of what the checkpoint was resumed from, None if it was not copied."""
        parent = checkpoint.parent
        if parent is None or parent.store_id != self._source.store_id:
            return None
        copy = (await self._copies_of(parent.collection)).get(parent.name)
        return None if copy is None else copy.ref

    async def _copies_of(self, collection: str) -> dict[str, Checkpoint]:
        """Return what the target has of a collection of the source, by the source's names."""
        found = self._copies.get(collection)
        if found is None:
            found = self._copies[collection] = {}
            for copy in await self._shown(collection):
                origin = _origin(copy)
                if origin is not None and self._is_ours(origin, collection):
                    found.setdefault(origin.name, copy)
        return found

    async def _newest(self, collection: str) -> Checkpoint | None:
        if self._target is None:
            return None
        live = await live_entries(self._target._engine, collection)
        if not live:
            return None
        source = ManifestSource(self._target.store_id, collection, live[0].text)
        return (await read_summary_of(self._target._engine, source)).checkpoint

    async def _shown(self, collection: str) -> list[Checkpoint]:
        """Return the target's checkpoints of a collection, those left out that cannot be read."""
        target, found = self._target, dict[str, Checkpoint]()
        if target is None:
            return []

        async def look(entry: Entry) -> None:
            source = ManifestSource(target.store_id, collection, entry.text)
            try:
                found[entry.text] = (await read_summary_of(target._engine, source)).checkpoint
            except CheckpointStoreError as exc:
                if kind_of(exc) is None:
                    raise

        await for_each(
            await live_entries(target._engine, collection), look, target._engine.config.io_concurrency
        )
        return [found[text] for text in sorted(found)]

    def _named(self, entry: Entry) -> ManifestSource:
        return ManifestSource(self._source.store_id, entry.collection, entry.text)

    def _is_ours(self, origin: CheckpointRef, collection: str) -> bool:
        return origin.store_id == self._source.store_id and origin.collection == collection


class _ChunkCopies:
    """The chunks of one checkpoint on their way from store to store, as they are stored."""

    def __init__(
        self,
        source: Engine,
        target: Engine,
        table: ChunkTable,
        nonce: bytes,
        known: Mapping[bytes, ChunkEntry],
        progress: Callable[[int], None] | None,
    ) -> None:
        self._source = source
        self._target = target
        self._table = table
        self._nonce = nonce
        self._known = known
        self._progress = progress
        self._fetch = ChunkFetch(source)
        self._entries: dict[bytes, ChunkEntry] = {}
        self._sent: set[str] = set()
        self.sent_bytes = 0

    async def run(self) -> ChunkTable:
        """Put what the target lacks, wait for the barrier, and return the chunk table of the copy."""
        config = self._target.config
        await for_each(self._table.chunks, self._send, 2 * config.encode_workers + config.io_concurrency)
        if self._sent:
            await self._target.backend.sync()
        chunks = tuple(self._entries[chunk.digest] for chunk in self._table.chunks)
        return ChunkTable(self._nonce, chunks, self._table.buffers)

    async def discard(self) -> None:
        """Delete the chunks that were put, as far as that works."""
        await discard(self._target, self._sent)

    async def _send(self, chunk: ChunkEntry) -> None:
        entry = self._known.get(chunk.digest)
        if entry is None or not self._target.may_reuse(entry):
            cost = chunk.raw_bytes + chunk.stored_bytes
            await self._source.budget.acquire(cost)
            try:
                codec, data = await self._fetch.any_copy(chunk, self._get)
                entry = ChunkEntry(chunk.digest, self._nonce, codec, chunk.raw_bytes, len(data))
                self._sent.add(entry.key)
                await self._target.backend.put(entry.key, data, staged=True)
            finally:
                self._source.budget.release(cost)
            self.sent_bytes += entry.stored_bytes
        self._entries[chunk.digest] = entry
        if self._progress is not None:
            self._progress(chunk.stored_bytes)

    async def _get(self, stored: Stored) -> tuple[str, bytes]:
        """Return codec and bytes of one object of a chunk, verified."""
        engine, chunk = self._source, stored.chunk
        data = await engine.backend.get(stored.key, length=chunk.raw_bytes + 1)
        stored.check(len(data))

        def verify(raw: memoryview) -> None:
            engine.coder.decode(stored.codec, data, raw)
            Target(raw).finish(chunk, raw)

        with engine.buffers.buffer(chunk.raw_bytes) as raw:
            await in_worker(engine.workers, verify, raw)
        return stored.codec, data


def _origin(checkpoint: Checkpoint) -> CheckpointRef | None:
    """Return what a checkpoint is a copy of; anybody may have written that attribute."""
    told: Any = checkpoint.attributes.get(ORIGIN)
    try:
        return None if told is None else CheckpointRef.from_dict(told)
    except InvalidNameError:
        return None


def _field_infos(manifest: Manifest, table: ChunkTable) -> list[FieldInfo]:
    return [
        replace(field, raw_bytes=cost.raw_bytes, stored_bytes=cost.stored_bytes, new_bytes=cost.new_bytes)
        for field, cost in zip(manifest.fields.values(), table.costs(), strict=True)
    ]
