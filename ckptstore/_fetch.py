"""One chunk from the storage, verified: tried again where its bytes are wrong, and taken from a copy at last.

Verified means decoded to the bytes that its digest says (protocol 7).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeVar

from ckptstore._chunking import digest
from ckptstore._copying import copy
from ckptstore._keys import CHUNKS
from ckptstore._table import ChunkEntry
from ckptstore._tasks import in_worker
from ckptstore._upload import Engine
from ckptstore.codecs import KNOWN_CODECS
from ckptstore.errors import (
    BackendError,
    CheckpointStoreError,
    ChunkCorruptError,
    FormatError,
    IntegrityError,
    LimitExceededError,
    NotFoundError,
    ObjectNotFoundError,
    SignatureError,
    UnsupportedVersionError,
)
from ckptstore.verify import ProblemKind

__all__ = ["Attempt", "ChunkFetch", "Stored", "Target", "is_no_object", "kind_of"]

_log = logging.getLogger("ckptstore")

T = TypeVar("T")

_TRIES = 3


class Stored(NamedTuple):
    """One object that holds the bytes of ``chunk``: its own, or a copy that another save has stored."""

    chunk: ChunkEntry
    key: str
    codec: str

    def check(self, size: int) -> int:
        """Return the size of what is stored, or raise ChunkCorruptError if it cannot be that of the chunk."""
        # Another copy may have been stored under another codec: it has a size of its own.
        own = self.key == self.chunk.key
        expected = self.chunk.stored_bytes if own else self.chunk.raw_bytes if self.codec == "raw" else None
        if size > self.chunk.raw_bytes or (expected is not None and size != expected):
            found = f"more than {self.chunk.raw_bytes}" if size > self.chunk.raw_bytes else str(size)
            raise ChunkCorruptError(
                f"{found} bytes stored, {self.chunk.raw_bytes if expected is None else expected} expected"
            )
        return size


Attempt = Callable[[Stored], Awaitable[T]]
"""Gets and verifies one object of a chunk; raises ChunkCorruptError, ObjectNotFoundError or BackendError."""


class Target(NamedTuple):
    """Where the raw bytes of a chunk go: all to ``whole``, or some, from an offset on, to each of ``copies``."""

    whole: memoryview | None
    copies: Sequence[tuple[memoryview, int]] = ()

    def finish(self, chunk: ChunkEntry, raw: memoryview) -> None:
        """Verify the raw bytes, and copy them to where they belong unless they are there."""
        found = digest(raw)
        if found != chunk.digest:
            raise ChunkCorruptError(
                f"digest {found.hex()[:16]}… of its bytes, expected {chunk.digest.hex()[:16]}…"
            )
        for place, offset in self.copies:
            copy(place, raw[offset : offset + len(place)])


def is_no_object(error: Exception) -> bool:
    """Tell whether what stands in an object's place cannot be read as one.

    The other classes of BackendError say that the storage did not give the
    object, and a transient one may be another tomorrow: no damage of the object.
    """
    return type(error) is BackendError and not error.transient


def kind_of(error: CheckpointStoreError) -> ProblemKind | None:
    """Return what an object is that cannot be read for this error; None if the storage failed, or the caller."""
    if isinstance(error, NotFoundError):
        return "missing"
    if isinstance(error, (UnsupportedVersionError, LimitExceededError, SignatureError)):
        return "unreadable"
    if isinstance(error, (FormatError, IntegrityError)) or is_no_object(error):
        return "corrupt"
    return None


class ChunkFetch:
    """Gets the chunks of one store."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def any_copy(self, chunk: ChunkEntry, attempt: Attempt[T]) -> T:
        """Return what ``attempt`` does for the chunk, or loudly for another copy of its bytes.

        Raises what is wrong with the chunk itself where no copy is whole:
        ChunkCorruptError, ObjectNotFoundError, or a BackendError that
        ``is_no_object``; any other BackendError at once.
        """
        try:
            return await self.own(chunk, attempt)
        except (ChunkCorruptError, ObjectNotFoundError, BackendError) as problem:
            if isinstance(problem, BackendError) and not is_no_object(problem):
                raise
            found = await self.copy(chunk, attempt)
            if found is None:
                raise
            key, result = found
            _log.warning(
                "%s of %s is damaged (%s): its bytes were taken from a copy, %s, and later saves store them anew; look "
                'with "ckptstore verify"',
                chunk.key,
                self._engine.backend.url,
                problem,
                key,
            )
            return result

    async def own(self, chunk: ChunkEntry, attempt: Attempt[T]) -> T:
        """Return what ``attempt`` does for the chunk's own object; fetched again if its bytes are wrong."""
        stored = Stored(chunk, chunk.key, chunk.codec)
        for _ in range(_TRIES - 1):
            try:
                return await attempt(stored)
            except (ChunkCorruptError, ObjectNotFoundError):
                continue
            except BackendError as exc:
                if not is_no_object(exc):
                    raise
        try:
            return await attempt(stored)
        except (ChunkCorruptError, ObjectNotFoundError, BackendError) as exc:
            if kind_of(exc) is not None:
                self._engine.damaged.add(chunk.key)
            raise

    async def copy(self, chunk: ChunkEntry, attempt: Attempt[T]) -> tuple[str, T] | None:
        """Return the key of a whole copy of the chunk, and what ``attempt`` did for it; None if there is none."""
        for stored in await self._copies(chunk):
            try:
                return stored.key, await attempt(stored)
            except (ChunkCorruptError, ObjectNotFoundError):
                continue
            except BackendError as exc:
                if exc.transient:
                    raise
        return None

    async def into(self, stored: Stored, target: Target) -> None:
        """Fill the target with the raw bytes of what is stored: one attempt."""
        engine, chunk = self._engine, stored.chunk
        read = engine.backend.get_in_worker
        if read is not None:
            await in_worker(engine.workers, self._read_and_decode, read, stored, target)
        elif stored.codec == "raw" and target.whole is not None:
            stored.check(await engine.backend.get_into(stored.key, target.whole))
            await in_worker(engine.workers, target.finish, chunk, target.whole)
        else:
            with engine.buffers.buffer(chunk.raw_bytes) as buffer:
                size = stored.check(await engine.backend.get_into(stored.key, buffer))
                await in_worker(engine.workers, self._decode, stored, buffer[:size], target)

    def read(self, chunk: ChunkEntry, target: Target) -> bool:
        """Tell whether the chunk's own object has filled the target: one attempt, on a worker thread.

        If not, ``any_copy`` finds out what is wrong. Only for a backend with ``get_in_worker``.
        """
        read = self._engine.backend.get_in_worker
        assert read is not None
        try:
            self._read_and_decode(read, Stored(chunk, chunk.key, chunk.codec), target)
        except (ChunkCorruptError, ObjectNotFoundError, BackendError):
            return False
        return True

    def _read_and_decode(
        self, read: Callable[[str, memoryview], int], stored: Stored, target: Target
    ) -> None:
        if stored.codec == "raw" and target.whole is not None:
            stored.check(read(stored.key, target.whole))
            target.finish(stored.chunk, target.whole)
        else:
            scratch = self._engine.scratch.take(stored.chunk.raw_bytes)
            self._decode(stored, scratch[: stored.check(read(stored.key, scratch))], target)

    def _decode(self, stored: Stored, data: memoryview, target: Target) -> None:
        raw = target.whole
        if raw is None:
            raw = data if stored.codec == "raw" else self._engine.scratch.take(stored.chunk.raw_bytes, "raw")
        if raw is not data:
            self._engine.coder.decode(stored.codec, data, raw)
        target.finish(stored.chunk, raw)

    async def _copies(self, chunk: ChunkEntry) -> list[Stored]:
        """Return what other saves have stored under the same digest; nothing where looking is refused."""
        text = chunk.digest.hex()
        try:
            keys = [info.key async for info in self._engine.backend.list(f"{CHUNKS}{text[:2]}/{text}.")]
        except BackendError as exc:
            if exc.transient:
                raise
            return []
        found = [Stored(chunk, key, key.rpartition(".")[2]) for key in keys if key != chunk.key]
        return [stored for stored in found if stored.codec in KNOWN_CODECS]
