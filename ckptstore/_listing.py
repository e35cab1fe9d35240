"""Listings that can be believed, and what a collection's keys say (protocol 6)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from ckptstore._keys import (
    COLLECTION_MARKER,
    MANIFESTS,
    PIN,
    TOMBSTONE,
    CheckpointName,
    collection_of,
    collection_prefix,
    parse_name,
)
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.errors import BackendProtocolError, ObjectNotFoundError

__all__ = ["Entry", "collections", "entries"]


@dataclass(slots=True)
class Entry:
    """One checkpoint in a listing: its name, its manifest's object, and whether it is deleted or pinned."""

    collection: str
    text: str
    name: CheckpointName
    info: ObjectInfo
    tombstone: ObjectInfo | None = None
    pinned: bool = False

    def matches(self, label: str | None, run: str | None) -> bool:
        return (label is None or self.name.label == label) and (run is None or self.name.run == run)


async def entries(backend: Backend, collection: str) -> AsyncGenerator[Entry, None]:
    """Yield the checkpoints of a collection, deleted ones too, newest first, by one listing.

    Raises BackendProtocolError for a listing that cannot be believed: keys out
    of order or place, or none at all where the collection's marker says that
    there is something.
    """
    prefix = collection_prefix(collection)
    last: Entry | None = None
    async with aclosing(_believed(backend, prefix, collection)) as listed:
        async for key in listed:
            text = key.key[len(prefix) :]
            if last is not None:
                if text == last.text + TOMBSTONE:
                    last.tombstone = key
                    continue
                if text == last.text + PIN:
                    last.pinned = True
                    continue
            name = parse_name(text)
            if name is None:
                continue
            if last is not None:
                yield last
            last = Entry(collection, text, name, key)
    if last is not None:
        yield last


async def _believed(backend: Backend, prefix: str, collection: str) -> AsyncGenerator[ObjectInfo, None]:
    for _ in range(
        2
    ):  # the first writer may have put the marker since the listing began: another one shows it
        empty = True
        async with aclosing(_listed(backend, prefix)) as listed:
            async for info in listed:
                empty = False
                yield info
        if not empty:
            return
        try:
            await backend.head(prefix + COLLECTION_MARKER)
        except ObjectNotFoundError:
            return
    raise BackendProtocolError(
        f"{backend.url} lists nothing in collection {collection!r}, but its marker is there: "
        "the listing is not believed"
    )


async def collections(backend: Backend) -> AsyncGenerator[str, None]:
    """Yield the names of all collections, in the order of their keys."""
    after = ""
    while True:
        found = None
        async with aclosing(_listed(backend, MANIFESTS, after=after)) as listed:
            async for info in listed:
                component, slash, _ = info.key[len(MANIFESTS) :].partition("/")
                if slash:
                    found = component
                    break
        if found is None:
            return
        name = collection_of(found)
        if name is not None:
            yield name
        after = f"{MANIFESTS}{found}0"  # behind every key of the collection, whatever it holds: 0 follows the slash


async def _listed(backend: Backend, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
    last = after
    async with aclosing(backend.list(prefix, after=after)) as listed:
        async for info in listed:
            if not info.key.startswith(prefix) or info.key <= last:
                raise BackendProtocolError(
                    f"{backend.url} lists {info.key[:120]!r} after {last[:120]!r} under {prefix!r}: "
                    "not in order or place"
                )
            last = info.key
            yield info
