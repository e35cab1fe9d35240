"""Many manifests at once, in bounded memory: each is read and checked whole, or told why it cannot be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ckptstore._fetch import kind_of
from ckptstore._listing import Entry, entries
from ckptstore._summaries import read_manifest
from ckptstore._table import ChunkTable
from ckptstore._tasks import for_each
from ckptstore._upload import Engine
from ckptstore.checkpoint import Manifest
from ckptstore.errors import CheckpointStoreError
from ckptstore.manifest import ManifestSource
from ckptstore.verify import ProblemKind

__all__ = ["Read", "Sized", "Unread", "each_manifest", "live_entries", "sized"]

# A manifest's chunk table takes up to this many times its stored size once it is decoded.
_DECODED_TIMES = 8


class Sized(NamedTuple):
    """Where a manifest is, and the bytes that it takes as stored."""

    source: ManifestSource
    nbytes: int


class Read(NamedTuple):
    """A manifest that is whole."""

    manifest: Manifest
    table: ChunkTable


@dataclass(frozen=True, slots=True)
class Unread:
    """A manifest that cannot be read, and why."""

    kind: ProblemKind
    detail: str


async def live_entries(engine: Engine, collection: str) -> list[Entry]:
    """Return the checkpoints of a collection but deleted ones, newest first."""
    return [entry async for entry in entries(engine.backend, collection) if entry.tombstone is None]


def sized(entry: Entry, store_id: str) -> Sized:
    """Return where the manifest of a listed checkpoint is."""
    return Sized(ManifestSource(store_id, entry.collection, entry.text), entry.info.size)


async def each_manifest(
    engine: Engine,
    manifests: Sequence[Sized],
    job: Callable[[ManifestSource, Read | Unread], Awaitable[None]],
) -> None:
    """Run ``job`` over manifests, several at once. Raises BackendError, and what the job raises."""

    async def read(manifest: Sized) -> None:
        nbytes = manifest.nbytes * _DECODED_TIMES
        await engine.budget.acquire(nbytes)
        try:
            found = await _read(engine, manifest.source)
        finally:
            engine.budget.release(nbytes)
        await job(manifest.source, found)

    if manifests:
        await for_each(manifests, read, min(engine.config.io_concurrency, len(manifests)))


async def _read(engine: Engine, source: ManifestSource) -> Read | Unread:
    try:
        return Read(*await read_manifest(engine, source))
    except CheckpointStoreError as exc:
        kind = kind_of(exc)
        if kind is None:
            raise
        return Unread(kind, str(exc))
