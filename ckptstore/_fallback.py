"""The newest checkpoint that can be read, if the caller would rather have an older one than none (protocol 6)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, TypeVar

from ckptstore._edit import exists
from ckptstore._fetch import kind_of
from ckptstore._listing import entries
from ckptstore._metadata import plain_metadata
from ckptstore._upload import Engine
from ckptstore.checkpoint import Skipped
from ckptstore.config import Limits
from ckptstore.errors import CheckpointNotFoundError, CheckpointStoreError, ConfigError
from ckptstore.manifest import ManifestSource

__all__ = ["FALLBACK", "Found", "check_fallback", "newest", "noted"]

_log = logging.getLogger("ckptstore")

T = TypeVar("T")

FALLBACK = "ckptstore.fallback"
"""The attribute in which the next save of the collection records that it does not build on the newest."""

_MAX_FALLBACK = 1000
_MAX_NOTED = 20


@dataclass(frozen=True, slots=True)
class Found:
    """The name of the checkpoint that was taken, and which newer ones were not."""

    name: str
    skipped: tuple[Skipped, ...]

    def note(self) -> dict[str, Any]:
        """Return it as an attribute of a checkpoint, of bounded size."""
        names = [skipped.checkpoint.rpartition("@")[2] for skipped in self.skipped]
        return {"to": self.name, "skipped": names[:_MAX_NOTED], "n_skipped": len(names)}


def check_fallback(fallback: object) -> int:
    """Return it, or raise ConfigError."""
    if type(fallback) is not int or not 0 <= fallback <= _MAX_FALLBACK:
        raise ConfigError(
            f"fallback must be an int from 0 to {_MAX_FALLBACK}, how many to skip, not {fallback!r:.80}"
        )
    return fallback


async def newest(
    engine: Engine,
    store_id: str,
    collection: str,
    read: Callable[[ManifestSource], Awaitable[T]],
    *,
    label: str | None = None,
    run: str | None = None,
    fallback: int,
) -> tuple[T, Found] | None:
    """Return what ``read`` gives for the newest checkpoint that is not damaged, at most ``fallback`` older than that.

    None if there is none at all. Raises what is wrong with the newest where the
    others do not help, and anything that is no damage at once: what a newer
    release wrote, or another key signed, is no reason to go back.
    """
    skipped: list[Skipped] = []
    first: CheckpointStoreError | None = None
    async with aclosing(entries(engine.backend, collection)) as listed:
        async for entry in listed:
            if entry.tombstone is not None or not entry.matches(label, run):
                continue
            source = ManifestSource(store_id, collection, entry.text)
            try:
                result = await read(source)
            except CheckpointStoreError as exc:
                if isinstance(exc, CheckpointNotFoundError):
                    if await exists(engine.backend, source.key):
                        raise
                    continue  # deleted and collected since the listing
                if kind_of(exc) != "corrupt":
                    raise
                if len(skipped) == fallback:
                    raise first or exc from None
                first = first or exc
                skipped.append(Skipped(f"{collection}@{entry.text}", str(exc)))
                continue
            for one in skipped:
                _log.warning(
                    "%s of %s is damaged and was skipped: %s. An older checkpoint was taken instead, %s; look "
                    'with "ckptstore verify"',
                    one.checkpoint,
                    engine.backend.url,
                    one.reason,
                    entry.text,
                )
            return result, Found(entry.text, tuple(skipped))
    if first is not None:
        raise first
    return None


def noted(attributes: Mapping[str, Any], found: Found, limits: Limits) -> dict[str, Any]:
    """Return the attributes with the note; without it where it does not fit: no save fails for it."""
    with_note = {**attributes, FALLBACK: found.note()}
    try:
        return plain_metadata("attributes", with_note, limits)
    except ConfigError as exc:
        _log.warning("the attributes leave no room to record that newer checkpoints were skipped: %s", exc)
        return dict(attributes)
