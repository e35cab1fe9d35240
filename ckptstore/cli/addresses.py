"""How a checkpoint is named on the command line, and how it is found.

exp/run1            the collection, or its newest checkpoint where one is needed
exp/run1@           its newest checkpoint
exp/run1@best       the newest with that label
exp/run1@3f2a91     the one whose id starts so
exp/run1@fff…~3f2…  the one of exactly this name
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from ckptstore._keys import check_collection
from ckptstore._listing import Entry, entries
from ckptstore._summaries import read_summary_of
from ckptstore.checkpoint import Manifest
from ckptstore.errors import CheckpointDeletedError, CheckpointNotFoundError, ConfigError
from ckptstore.manifest import ManifestSource
from ckptstore.store import AsyncCheckpointStore

__all__ = ["ADDRESSES", "Address", "find", "list_entries", "manifest_of", "source_of", "text_of"]

ADDRESSES = """\b
A checkpoint is named
    exp/run1@         the newest of the collection exp/run1
    exp/run1@best     the newest with the label best
    exp/run1@3f2a91   the one whose id starts so, as ls shows it
"""

_ID_START = re.compile(r"[0-9a-f]{4,32}")


@dataclass(frozen=True, slots=True)
class Address:
    """``which`` None: the collection was named alone; empty: its newest."""

    collection: str
    which: str | None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Return what the text names; a collection with an ``@`` in its name is followed by another.

        Raises InvalidNameError.
        """
        collection, at, which = text.rpartition("@")
        if not at:
            return cls(check_collection(text), None)
        return cls(check_collection(collection), which)

    def __str__(self) -> str:
        return self.collection if self.which is None else f"{self.collection}@{self.which}"


def text_of(entry: Entry) -> str:
    """Return a checkpoint's name for people: short, and an address."""
    return f"{entry.collection}@{entry.name.id[:8]}"


def source_of(store: AsyncCheckpointStore, entry: Entry) -> ManifestSource:
    """Return where the manifest of a listed checkpoint is."""
    return ManifestSource(store.store_id, entry.collection, entry.text)


async def list_entries(store: AsyncCheckpointStore, collection: str) -> list[Entry]:
    """Return all checkpoints of a collection, deleted ones too, newest first. Raises CheckpointNotFoundError."""
    found = [entry async for entry in entries(store._engine.backend, collection)]
    if not found:
        raise CheckpointNotFoundError(f"there is no collection {collection!r} in {store.url}")
    return found


async def manifest_of(store: AsyncCheckpointStore, entry: Entry) -> Manifest:
    """Return what a listed checkpoint says of itself. Raises as ``inspect``."""
    return await read_summary_of(store._engine, source_of(store, entry))


async def find(store: AsyncCheckpointStore, address: Address, *, deleted: bool = False) -> Entry:
    """Return the one checkpoint that an address names; with ``deleted`` one that was deleted.

    Raises CheckpointNotFoundError, CheckpointDeletedError, ConfigError (it names several).
    """
    listed = await list_entries(store, address.collection)
    fit = [entry for entry in listed if (entry.tombstone is not None) is deleted]
    chosen = _chosen(fit, address)
    if chosen is not None:
        return chosen
    kind = "deleted checkpoint" if deleted else "checkpoint"
    if not address.which:
        raise CheckpointNotFoundError(f"collection {address.collection!r} of {store.url} has no {kind}")
    other = _chosen([entry for entry in listed if entry not in fit], address)
    if other is not None and not deleted:
        raise CheckpointDeletedError(
            f"{text_of(other)} was deleted; for a while this brings it back: ckptstore undelete "
            f"{store.url} {text_of(other)}"
        )
    why = "it is not deleted" if other is not None else "ls shows which there are"
    raise CheckpointNotFoundError(
        f"collection {address.collection!r} of {store.url} has no {kind} with the name, label or id "
        f"{address.which!r}; {why}"
    )


def _chosen(fit: Sequence[Entry], address: Address) -> Entry | None:
    which = address.which
    if not which:
        return fit[0] if fit else None
    exact = [entry for entry in fit if which in (entry.text, entry.name.id)]
    if exact:
        return exact[0]
    labelled = [entry for entry in fit if entry.name.label == which][:1]
    by_id = [entry for entry in fit if _ID_START.fullmatch(which) and entry.name.id.startswith(which)]
    found = {entry.text: entry for entry in (*labelled, *by_id)}
    if len(found) > 1:
        names = ", ".join(f"{entry.collection}@{entry.name.id}" for entry in list(found.values())[:5])
        raise ConfigError(f"{address} names {len(found)} checkpoints: say more of the id ({names})")
    return next(iter(found.values()), None)
