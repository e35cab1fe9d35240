"""Deleting, undeleting and pinning: small objects beside a manifest (protocol 8)."""

from __future__ import annotations

from collections.abc import Mapping

from ckptstore._clock import Clock
from ckptstore._commit import TOMBSTONE_BYTES
from ckptstore._keys import PIN, TOMBSTONE, parse_checkpoint
from ckptstore._marker import clock_spread_s
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.checkpoint import Checkpoint, CheckpointRef
from ckptstore.errors import (
    CheckpointDeletedError,
    CheckpointNotFoundError,
    InvalidNameError,
    ObjectNotFoundError,
    StoreMismatchError,
)
from ckptstore.manifest import ManifestSource

__all__ = ["delete", "exists", "pin", "require_live", "source_of", "undelete", "unpin"]

_PIN_BYTES = b"pinned\n"


def source_of(what: Checkpoint | CheckpointRef | Mapping[str, str] | str, store_id: str) -> ManifestSource:
    """Return where the manifest of what names one checkpoint is. Raises InvalidNameError, StoreMismatchError."""
    if isinstance(what, str):
        named = parse_checkpoint(what)
        if named is None:
            raise InvalidNameError(
                f"one checkpoint is needed, by reference or as collection@name, not {what[:80]!r}"
            )
        return ManifestSource(store_id, *named)
    if isinstance(what, Checkpoint):
        ref = what.ref
    elif isinstance(what, CheckpointRef):
        ref = what
    elif isinstance(what, Mapping):
        ref = CheckpointRef.from_dict(what)
    else:
        raise InvalidNameError(
            f"a checkpoint, a reference, its dict or a collection's name is needed, not {type(what).__name__}"
        )
    if ref.store_id != store_id:
        raise StoreMismatchError(
            f"{ref} belongs to store {ref.store_id}, this is {store_id}: open the store that it was saved to"
        )
    return ManifestSource(store_id, ref.collection, ref.name, ref.digest)


async def require_live(backend: Backend, source: ManifestSource) -> None:
    """Raise CheckpointDeletedError if the checkpoint has a tombstone."""
    if await _head(backend, source.key + TOMBSTONE) is not None:
        raise CheckpointDeletedError(
            f"checkpoint {source.name} of collection {source.collection!r} was deleted; "
            "undelete() brings it back for a while"
        )


async def delete(backend: Backend, source: ManifestSource) -> None:
    """Put the tombstone, unless it stands: putting it again would lengthen its life."""
    await _require_manifest(backend, source)
    await backend.put(source.key + TOMBSTONE, TOMBSTONE_BYTES, if_absent=True)


async def undelete(backend: Backend, source: ManifestSource, grace_s: float, clock: Clock) -> None:
    """Remove the tombstone while it is younger than half the grace."""
    await _require_manifest(backend, source)
    tombstone = await _head(backend, source.key + TOMBSTONE)
    if tombstone is None:
        return
    now_s = tombstone.seen_s if tombstone.seen_s is not None else clock.wall_s()
    age_s = now_s - tombstone.modified_s
    if age_s < -clock_spread_s(grace_s):
        raise CheckpointDeletedError(
            f"checkpoint {source.name} of collection {source.collection!r} was deleted {-age_s:.0f} s from now by "
            "this machine's clock: how long ago that is cannot be told. Set the clock right, and try again"
        )
    if age_s >= grace_s / 2:
        raise CheckpointDeletedError(
            f"checkpoint {source.name} of collection {source.collection!r} was deleted {age_s:.0f} s ago, and only "
            f"half the grace ({grace_s / 2:.0f} s) is safe: its data may be collected at any moment"
        )
    await backend.delete(source.key + TOMBSTONE)


async def pin(backend: Backend, source: ManifestSource) -> None:
    """Put the pin, and look whether somebody's retention was faster."""
    await _require_manifest(backend, source)
    await backend.put(source.key + PIN, _PIN_BYTES, if_absent=True)
    await require_live(backend, source)


async def unpin(backend: Backend, source: ManifestSource) -> None:
    await _require_manifest(backend, source)
    await backend.delete(source.key + PIN)


async def exists(backend: Backend, key: str) -> bool:
    """Tell whether there is an object under a key."""
    return await _head(backend, key) is not None


async def _require_manifest(backend: Backend, source: ManifestSource) -> None:
    if await _head(backend, source.key) is None:
        raise CheckpointNotFoundError(
            f"there is no checkpoint {source.name} in collection {source.collection!r} of {backend.url}"
        )


async def _head(backend: Backend, key: str) -> ObjectInfo | None:
    try:
        return await backend.head(key)
    except ObjectNotFoundError:
        return None
