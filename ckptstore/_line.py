"""A collection as its writer knows it: the epoch, the next number, and what may be reused (protocol 4)."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass

from ckptstore._clock import Clock, Reading
from ckptstore._keys import COLLECTION_MARKER, CheckpointName, collection_prefix
from ckptstore._listing import Entry, entries
from ckptstore._msgpack import pack
from ckptstore._summaries import read_manifest
from ckptstore._table import ChunkEntry
from ckptstore._upload import Engine
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.errors import (
    CheckpointNotFoundError,
    FormatError,
    IntegrityError,
    LimitExceededError,
    SignatureError,
)
from ckptstore.manifest import ManifestSource

__all__ = ["Base", "Line", "mark", "open_line", "refresh"]

_log = logging.getLogger("ckptstore")


@dataclass(frozen=True, slots=True)
class Base:
    """A manifest known to be live at ``known``, and its chunks by digest."""

    text: str
    known: Reading
    chunks: Mapping[bytes, ChunkEntry]


@dataclass(slots=True)
class Line:
    """The state of one collection in one store object."""

    collection: str
    epoch: int
    seq: int = 0
    base: Base | None = None

    def next_name(self, run: str | None, label: str | None) -> CheckpointName:
        """Return a name above all earlier ones. A save that fails uses it up too: its commit may have landed."""
        name = CheckpointName(self.epoch, self.seq, run, label, secrets.token_hex(16))
        self.seq += 1
        return name

    def committed(self, text: str, known: Reading, chunks: Mapping[bytes, ChunkEntry]) -> None:
        """Take note of this writer's own new checkpoint (S8)."""
        self.base = Base(text, known, chunks)

    def forget(self, text: str) -> None:
        """Reuse nothing of a checkpoint that is being deleted."""
        if self.base is not None and self.base.text == text:
            self.base = None


async def open_line(engine: Engine, collection: str, *, store_id: str, clock: Clock) -> Line:
    """Open a collection for writing: everything saved later sorts above all that is there now."""
    backend = engine.backend
    known = clock.read()
    newest: Entry | None = None
    live: Entry | None = None
    async with aclosing(entries(backend, collection)) as listed:
        async for entry in listed:
            newest = newest or entry
            if entry.tombstone is None:
                live = entry
                break
    line = Line(collection, epoch=1 + (newest.name.epoch if newest else 0))
    if line.epoch >= 2**32:
        raise LimitExceededError(f"collection {collection!r} has used up its epochs; save under another name")
    if live is not None:
        line.base = await _read_base(engine, live, known, store_id)
    if newest is None:
        await mark(backend, collection)
    return line


async def refresh(engine: Engine, line: Line, *, clock: Clock, max_age_s: float) -> None:
    """See to it that the line's base was known to be live at most ``max_age_s`` ago (S0)."""
    base = line.base
    if base is None or clock.elapsed_s(base.known) <= max_age_s:
        return
    known = clock.read()
    line.base = None
    async with aclosing(entries(engine.backend, line.collection)) as listed:
        async for entry in listed:
            if entry.text == base.text:
                if entry.tombstone is None:
                    line.base = Base(base.text, known, base.chunks)
                return


async def mark(backend: Backend, collection: str) -> ObjectInfo:
    """See to it that the collection's marker stands, and return the answer to that put."""
    key = collection_prefix(collection) + COLLECTION_MARKER
    return await backend.put(key, pack({"collection": collection}), if_absent=True)


async def _read_base(engine: Engine, entry: Entry, known: Reading, store_id: str) -> Base | None:
    source = ManifestSource(store_id, entry.collection, entry.text)
    try:
        _, table = await read_manifest(engine, source)
    except (FormatError, IntegrityError, SignatureError, CheckpointNotFoundError) as exc:
        # Nothing is lost by not reusing: the save is only larger.
        _log.warning("nothing of the newest checkpoint is reused: %s", exc)
        return None
    return Base(entry.text, known, {chunk.digest: chunk for chunk in table.chunks})
