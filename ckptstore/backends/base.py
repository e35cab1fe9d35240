"""The contract between the store and a storage: nine verbs over flat keys.

A backend decides where an error is born whether it is transient, keeps no
policy, retries nothing and knows nothing of checkpoints. What it must promise
(the names are those of the protocol):

* B1  A put is all or nothing, or, with ``staged=True``, becomes so at ``sync``.
* B2  A get after an acknowledged put sees it.
* B3  A list after an acknowledged put or delete sees it.
* B4  ``modified_s`` is within the store's clock spread of the real order.
* B5  A request that was given up lands within ``zombie_s`` or never.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from ckptstore.errors import BackendError

__all__ = ["Backend", "Buffer", "ObjectInfo", "Verdict"]

Verdict = Literal["ok", "problem", "unknown"]
"""What a check of a storage comes to."""

Buffer = bytes | bytearray | memoryview
"""Contiguous bytes. A memoryview has format ``B`` and one dimension."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a listing or a head tells of one object.

    ``size`` is in bytes, ``modified_s`` the storage's own time of the last put
    in seconds since the epoch, ``seen_s`` the storage's clock when it answered
    (``None`` when it did not say).
    """

    key: str
    size: int
    modified_s: float
    seen_s: float | None = None


class Backend(ABC):
    """A flat key-value storage of immutable objects.

    Keys are relative (``chunks/ab/…``), ASCII, and already checked by the
    caller; a backend refuses nothing but what it cannot store. Every method may
    be cancelled at any await and then leaves no task, thread, file or
    connection of its own behind.
    """

    zombie_s: ClassVar[float] = 0.0
    """B5: the longest time a given-up request can still land, in seconds."""

    put_in_worker: Callable[[str, Buffer], None] | None = None
    """A blocking staged ``put`` for callers already on a worker thread; None if there is none."""

    get_in_worker: Callable[[str, memoryview], int] | None = None
    """A blocking ``get`` into the given memory, for worker threads; None if there is none.

    Reads at most ``len(into) + 1`` bytes' worth: returns the object's true size
    when it fits, and a number greater than ``len(into)`` when it does not.
    Raises as ``get`` does.
    """

    @property
    @abstractmethod
    def url(self) -> str:
        """Where the storage is, for messages: never with credentials or a query."""

    @property
    def identity(self) -> str | None:
        """What the id of a store that is made here is digested from; None: its id is random.

        None only where ``put`` with ``if_absent`` is exact. Elsewhere, of two who
        make a store in the same moment, either marker may stay, so both must be
        the same: this is one text for all who use the storage, and another for
        every other storage.
        """
        return self.url

    @abstractmethod
    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return the object's bytes, or the part of them from ``start`` on.

        ``length`` None means to the end. A range that reaches past the end is
        cut there; one that starts at or past the end gives ``b""``.

        Raises ObjectNotFoundError, or BackendError (AccessDeniedError when the
        permission is missing: never "not found").
        """

    async def get_into(self, key: str, into: memoryview) -> int:
        """Read the whole object into ``into`` and return its size.

        An object that does not fit gives a number greater than ``len(into)``;
        what ``into`` holds is then undefined, as it is after an error. Raises as
        ``get`` does. The default is by ``get``; a backend that can read without
        a copy does so.
        """
        data = await self.get(key, length=len(into) + 1)
        if len(data) <= len(into):
            into[: len(data)] = data
        return len(data)

    @abstractmethod
    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        """Store ``data`` under ``key``; when this returns, it is durable and visible.

        ``staged``: it need only be durable and whole once ``sync`` has returned;
        after a crash before that a torn object may stand under the key. Only for
        keys nobody reads before a commit names them.

        ``if_absent``: leave an existing object as it is, and return its info.
        Exact where the storage can (local, memory), otherwise best effort; no
        promise of the protocol rests on it.

        The buffer is not kept after the call returns. A put over an existing key
        replaces it whole; the protocol never does so with other bytes.
        """

    async def put_in_time(self, key: str, data: Buffer, check: Callable[[], None]) -> ObjectInfo:
        """Store as ``put`` does, but begin nothing any more once ``check`` raises, which this raises then.

        For commits, which may not come late. ``check`` is quick, may be called
        from any thread, and is called before each time that the bytes are sent:
        a backend in which a put waits or is sent again does that itself, and a
        wrapper passes it on. The default calls it once, before ``put``.
        """
        check()
        return await self.put(key, data)

    @abstractmethod
    async def head(self, key: str) -> ObjectInfo:
        """Return what is known of the object. Raises as ``get`` does."""

    @abstractmethod
    async def delete(self, key: str) -> None:
        """Remove the object, durably. Removing what is not there is no error."""

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        """Remove several objects, durably when this returns, and return what could not be removed, with why.

        For garbage collection: at most a thousand keys, of which some may be
        missing. Raises BackendError where nothing at all is known; some may be
        removed then. The default removes one after another; a backend that can
        do better does so.
        """
        failed: dict[str, BackendError] = {}
        for key in keys:
            try:
                await self.delete(key)
            except BackendError as exc:
                failed[key] = exc
        return failed

    async def sweep(self, prefix: str, before_s: float, *, dry_run: bool = False) -> tuple[int, int]:
        """Remove what interrupted puts left behind and no listing shows; return how many, and their bytes.

        ``prefix``: only those of keys in this directory, whose name ends in a
        slash, and below; ``before_s``: only what was last written before then, by
        the storage's own time in seconds since the epoch. ``dry_run``: count and
        remove nothing. A storage that leaves nothing behind has nothing to do.
        """
        return 0, 0

    @abstractmethod
    def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        """Yield the objects whose key starts with ``prefix``, in ascending order of key.

        ``after``: only keys greater than it. Raises BackendProtocolError where
        the storage's answer cannot be believed: an error is never "no objects".
        """

    @abstractmethod
    async def sync(self) -> None:
        """Make every staged put that was acknowledged durable, or raise BackendError."""

    async def examine(self) -> AsyncGenerator[tuple[str, Verdict, str], None]:
        """Yield what else ``ckptstore doctor`` should know of this kind of storage: check, verdict, detail."""
        none: tuple[tuple[str, Verdict, str], ...] = ()
        for finding in none:
            yield finding

    @abstractmethod
    async def aclose(self) -> None:
        """Let go of files, connections and threads. Idempotent."""
