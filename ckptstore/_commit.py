"""The commit: the manifest's put, and finding out what became of it (protocol S4 to S7)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass

from ckptstore._clock import Clock, Reading
from ckptstore._keys import TOMBSTONE
from ckptstore._table import ChunkEntry
from ckptstore._tasks import for_each
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.errors import (
    BackendError,
    CheckpointStoreError,
    CommitUnknownError,
    IntegrityError,
    ObjectNotFoundError,
    SaveExpiredError,
)

__all__ = ["TOMBSTONE_BYTES", "Deadline", "commit"]

TOMBSTONE_BYTES = b"deleted\n"
"""Always the same: when it was deleted is the object's own time."""

_TRIES = 8
_BACKOFF_S = (0.1, 20.0)


@dataclass(frozen=True, slots=True)
class Deadline:
    """T of the protocol, counted from the save's reference time."""

    clock: Clock
    since: Reading
    limit_s: float

    def check(self, what: str, store_s: float | None = None) -> None:
        """Raise SaveExpiredError if the save has taken longer than it may."""
        elapsed = self.clock.elapsed_s(self.since, store_s)
        if elapsed > self.limit_s:
            raise SaveExpiredError(
                f"{what} took {elapsed:.0f} s, at most {self.limit_s:.0f} s are safe beside garbage collection; "
                "nothing was committed. Save less at once, or open the store with a longer grace_s"
            )

    def passed(self) -> bool:
        """Tell whether nothing may be sent any more."""
        return self.clock.elapsed_s(self.since) > self.limit_s


async def commit(
    backend: Backend, key: str, data: bytes, *, deadline: Deadline, chunks: Iterable[ChunkEntry]
) -> None:
    """Put the manifest, never after the deadline; when this returns, the checkpoint is durable and visible.

    Raises SaveExpiredError (nothing is visible), CommitUnknownError (naming the
    key; it may appear later), IntegrityError (other bytes stand there) or
    BackendError (a definite refusal).
    """
    info = await _put(backend, key, data, deadline)
    try:
        deadline.check(f"the save of {key}", info.seen_s if info.seen_s is not None else info.modified_s)
    except SaveExpiredError as expired:
        # Late, but visible: it may stay if a collection has not taken any of its chunks.
        try:
            if not await _any_missing(backend, chunks):
                return
            await backend.put(key + TOMBSTONE, TOMBSTONE_BYTES)
        except BackendError as exc:
            raise CommitUnknownError(
                f"the commit {key} came too late to be sure of its data, and what became of that could not be "
                f"found out: load it before you rely on it ({exc})"
            ) from exc
        raise expired


async def _put(backend: Backend, key: str, data: bytes, deadline: Deadline) -> ObjectInfo:
    n_sent = 0

    def check() -> None:
        nonlocal n_sent
        deadline.check(f"the save of {key}")
        n_sent += 1

    last: CheckpointStoreError | None = None
    for attempt in range(_TRIES):
        try:
            if attempt:
                await asyncio.sleep(random.uniform(0, min(_BACKOFF_S[1], _BACKOFF_S[0] * 2**attempt)))
                if await _landed(backend, key, data):
                    await backend.sync()
                    return await backend.head(key)
                if deadline.passed():
                    break
            return await backend.put_in_time(key, data, check)
        except SaveExpiredError as exc:
            if not n_sent:
                raise
            last = exc
        except BackendError as exc:
            last = exc
            if not exc.transient:
                if attempt == 0 and n_sent <= 1:
                    raise
                break
    raise CommitUnknownError(
        f"the commit {key} was sent and no answer told what became of it: look for it with list() "
        f"before saving again ({last})"
    ) from last


async def _landed(backend: Backend, key: str, data: bytes) -> bool:
    try:
        found = await backend.get(key, length=len(data) + 1)
    except ObjectNotFoundError:
        return False
    if found != data:
        raise IntegrityError(f"other bytes than this save's stand under {key}; nothing was overwritten")
    return True


async def _any_missing(backend: Backend, chunks: Iterable[ChunkEntry]) -> bool:
    missing: list[str] = []

    async def look(chunk: ChunkEntry) -> None:
        try:
            await backend.head(chunk.key)
        except ObjectNotFoundError:
            missing.append(chunk.key)

    await for_each(chunks, look, 8)
    return bool(missing)
