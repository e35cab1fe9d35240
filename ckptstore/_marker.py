"""The store's marker, and whether its times fit together (protocol 1)."""

from __future__ import annotations

import json
import re
import secrets
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ckptstore._chunking import digest
from ckptstore._keys import MANIFESTS, MARKER
from ckptstore.backends.base import Backend
from ckptstore.config import MAX_SECONDS, MIN_GRACE_S, StoreConfig
from ckptstore.errors import (
    ConfigError,
    ManifestCorruptError,
    ObjectNotFoundError,
    StoreNotFoundError,
    UnsupportedVersionError,
)

__all__ = ["StoreMarker", "clock_spread_s", "open_marker"]

FORMAT = 1
DIGEST = "blake3"
_MAX_MARKER_BYTES = 64 * 1024
_MAX_CLOCK_SPREAD_S = 3600.0


@dataclass(frozen=True, slots=True)
class StoreMarker:
    """``store_id`` and the grace of a store, and the time one save may take in it."""

    store_id: str
    grace_s: float
    max_save_s: float


def clock_spread_s(grace_s: float) -> float:
    """Return how far the storage's times may be from their real order (ε of the protocol)."""
    return min(_MAX_CLOCK_SPREAD_S, grace_s / 8)


async def open_marker(backend: Backend, config: StoreConfig, *, create: bool) -> StoreMarker:
    """Return what the store's marker says; make the marker if there is none and ``create`` is set.

    Raises StoreNotFoundError, UnsupportedVersionError, ManifestCorruptError, and
    ConfigError for times that do not fit together.
    """
    try:
        data = await backend.get(MARKER, length=_MAX_MARKER_BYTES)
    except ObjectNotFoundError:
        if not create:
            raise StoreNotFoundError(
                f"there is no checkpoint store at {backend.url}: check the URL, or open it with create=True"
            ) from None
        _max_save_s(config.grace_s, config, backend)
        if await _is_empty(backend):
            await backend.put(MARKER, _fresh(backend, float(config.grace_s)), if_absent=True)
        # Another process may have been first: what stands there now is the store's.
        data = await backend.get(MARKER, length=_MAX_MARKER_BYTES)
    store_id, grace_s = _parse(data, backend)
    if grace_s < MIN_GRACE_S and not config.exclusive:
        raise ConfigError(
            f"the store at {backend.url} was made for exclusive use (grace {grace_s} s): open it with "
            "StoreConfig(exclusive=True) if no other process uses it"
        )
    return StoreMarker(store_id, grace_s, _max_save_s(grace_s, config, backend))


def _fresh(backend: Backend, grace_s: float) -> bytes:
    """Return a new marker: the same for all who make this store at once, where any of theirs may be the one that stays.

    Whoever gives it another grace makes another store of it, and is refused
    what the others saved: with one id, what they save could be collected too soon.
    """
    identity = backend.identity
    seed = secrets.token_bytes(32) if identity is None else f"{identity}\n{grace_s!r}".encode()
    store_id = digest(seed).hex()[:32]
    marker = {"format": FORMAT, "store_id": store_id, "grace_s": grace_s, "digest": DIGEST}
    return (json.dumps(marker, indent=1) + "\n").encode()


async def _is_empty(backend: Backend) -> bool:
    """Tell whether a store may be made here; False if another process has made it, and saved, in this moment.

    Raises ManifestCorruptError if there are checkpoints without a marker:
    another marker would make them a stranger's.
    """
    async with aclosing(backend.list(MANIFESTS)) as listed:
        found = await anext(listed, None)
    if found is None:
        return True
    try:
        await backend.head(MARKER)
    except ObjectNotFoundError:
        raise ManifestCorruptError(
            f"{backend.url} holds checkpoints ({found.key}), and its marker {MARKER} is gone: no new one is made. "
            "Put it back from a backup; docs/operations.md says how to write it anew"
        ) from None
    return False


def _parse(data: bytes, backend: Backend) -> tuple[str, float]:
    where = f"{MARKER} of {backend.url}"
    try:
        marker: Any = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ManifestCorruptError(f"{where} is damaged: not JSON") from exc
    if not isinstance(marker, dict) or "format" not in marker:
        raise ManifestCorruptError(f"{where} is not the marker of a checkpoint store")
    version: Any = marker["format"]
    algorithm: Any = marker.get("digest")
    if type(version) is not int or (version == FORMAT and type(algorithm) is not str):
        raise ManifestCorruptError(f"{where} is damaged: format or digest")
    if (version, algorithm) != (FORMAT, DIGEST):
        found = f"digest {algorithm[:20]!r}" if version == FORMAT else f"format {str(version)[:20]}"
        raise UnsupportedVersionError(
            f"{where} says {found}; this release reads format {FORMAT} with {DIGEST}: "
            "upgrade ckptstore to use this store"
        )
    store_id, grace_s = marker.get("store_id"), marker.get("grace_s")
    if not isinstance(store_id, str) or not re.fullmatch(r"[0-9a-f]{32}", store_id):
        raise ManifestCorruptError(f"{where} is damaged: store_id")
    if isinstance(grace_s, bool) or not isinstance(grace_s, (int, float)) or not 0 < grace_s <= MAX_SECONDS:
        raise ManifestCorruptError(f"{where} is damaged: grace_s")
    return store_id, float(grace_s)


def _max_save_s(grace_s: float, config: StoreConfig, backend: Backend) -> float:
    max_save_s = grace_s / 2 if config.max_save_s is None else config.max_save_s
    spread_s = clock_spread_s(grace_s)
    if grace_s <= max_save_s + backend.zombie_s + spread_s:
        raise ConfigError(
            f"max_save_s {max_save_s:g} + {backend.zombie_s:g} (late requests) + {spread_s:g} (clocks) must stay "
            f"below the store's grace_s {grace_s:g}, or garbage collection could take a running save's chunks"
        )
    return max_save_s
