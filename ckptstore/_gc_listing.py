"""Listings that a garbage collection believes, and what they show (protocol G1 and G2)."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from ckptstore._keys import (
    COLLECTION_MARKER,
    MANIFESTS,
    MARKER,
    PIN,
    TOMBSTONE,
    collection_of,
    parse_name,
)
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.errors import BackendProtocolError, GCAbortedError
from ckptstore.manifest import ManifestSource

__all__ = ["RECORDS", "ListedManifest", "ListedManifests", "believed", "canary_key", "is_record"]

RECORDS = "gc/"
_CANARIES = "~gc/"
_RECORD = re.compile(r"[0-9a-f]{32}|doctor-[0-9a-f]{16}\.[a-z0-9]{1,16}")


@dataclass(frozen=True, slots=True)
class ListedManifest:
    """One manifest: how large it is as stored, and from when its tombstone is."""

    source: ManifestSource
    nbytes: int
    tombstone_s: float | None


@dataclass(slots=True)
class ListedManifests:
    """Every key under ``manifests/``, told apart.

    ``marks`` are tombstones and pins without their manifest, ``canaries`` those
    of other runs, ``unknown`` what has no place there.
    """

    found: dict[str, ListedManifest] = field(default_factory=dict)
    marks: dict[str, ObjectInfo] = field(default_factory=dict)
    canaries: list[ObjectInfo] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    @classmethod
    async def of(cls, backend: Backend, store_id: str, canary: str) -> ListedManifests:
        """List. Raises GCAbortedError for a listing that is not believed."""
        listed = cls()
        async with aclosing(believed(backend, MANIFESTS, canary)) as infos:
            last: str | None = None
            async for info in infos:
                last = listed._take(info, store_id, last)
        return listed

    def _take(self, info: ObjectInfo, store_id: str, last: str | None) -> str | None:
        """Sort one key in; return the key of the manifest that marks may follow."""
        component, slash, text = info.key[len(MANIFESTS) :].partition("/")
        if component + slash == _CANARIES and is_record(text):
            self.canaries.append(info)
            return last
        collection = collection_of(component) if slash else None
        if collection is None:
            self.unknown.append(info.key)
        elif parse_name(text) is not None:
            source = ManifestSource(store_id, collection, text)
            self.found[info.key] = ListedManifest(source, info.size, None)
            return info.key
        elif last is not None and info.key == last + TOMBSTONE:
            one = self.found[last]
            self.found[last] = ListedManifest(one.source, one.nbytes, info.modified_s)
        elif last is not None and info.key == last + PIN:
            pass
        elif text.endswith((TOMBSTONE, PIN)) and parse_name(text[: -len(TOMBSTONE)]) is not None:
            self.marks[info.key] = info
        elif text != COLLECTION_MARKER:
            self.unknown.append(info.key)
        return last


async def believed(backend: Backend, prefix: str, canary: str) -> AsyncGenerator[ObjectInfo, None]:
    """Yield all that is listed under ``prefix``, but for this run's canary.

    Raises GCAbortedError where the listing lacks the canary, which sorts behind
    all that is ours, or is not in order; or shows another store.
    """
    last, seen = "", False
    try:
        async with aclosing(backend.list(prefix)) as listed:
            async for info in listed:
                if not info.key.startswith(prefix) or info.key <= last:
                    raise BackendProtocolError(
                        f"{info.key[:120]!r} after {last[:120]!r} under {prefix!r}: not in order or place"
                    )
                last = info.key
                if info.key.rpartition("/")[2] == MARKER:
                    raise GCAbortedError(
                        f"{info.key} in {backend.url} is the marker of another store inside this one: "
                        "nothing was deleted. Move that store out"
                    )
                if info.key == canary:
                    seen = True
                else:
                    yield info
    except BackendProtocolError as exc:
        raise GCAbortedError(
            f"a listing of {backend.url} is not believed, and nothing was deleted: {exc}"
        ) from exc
    if not seen:
        raise GCAbortedError(
            f"a listing of {prefix} in {backend.url} is not believed, and nothing was deleted: it lacks an object "
            'that was put there just before. "ckptstore doctor" looks at what the storage promises'
        )


def canary_key(prefix: str, run: str) -> str:
    """Return the key of a run's canary under ``prefix``."""
    return f"{prefix}{_CANARIES}{run}"


def is_record(text: str) -> bool:
    """Tell whether the last part of a key is that of a record or canary."""
    return _RECORD.fullmatch(text) is not None
