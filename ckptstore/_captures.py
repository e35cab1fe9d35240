"""Values held in memory, and written only when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from weakref import WeakSet

from ckptstore._memory import Arena
from ckptstore._snapshot import Snapshot, take_snapshot
from ckptstore._tasks import in_worker, wait_for_end
from ckptstore._upload import Engine
from ckptstore._workers import WorkerPool
from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import SaveCancelledError, StoreClosedError
from ckptstore.serializers import Registry

__all__ = ["CapturedSave", "Captures"]

_MAX_KEPT_ARENAS = 2
"""One holds the last consistent point while the next is captured into the other."""


class CapturedSave:
    """What ``capture`` returns: values as they were then, in memory of the store's own.

    Nothing is stored until ``save`` is called. ``discard`` gives the memory
    back; the store's end discards what was not saved.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        write: Callable[[Snapshot], Awaitable[Checkpoint]],
        give_back: Callable[[], None],
    ) -> None:
        self._raw_bytes = snapshot.raw_bytes
        self._snapshot: Snapshot | None = snapshot
        self._write = write
        self._give_back = give_back
        self._task: asyncio.Task[Checkpoint] | None = None
        self._refusal: Callable[[], Exception] | None = None

    @property
    def raw_bytes(self) -> int:
        """Bytes of the captured values before compression."""
        return self._raw_bytes

    async def save(self) -> Checkpoint:
        """Write the values as one checkpoint, behind the save that is in flight, and return it, durable.

        The time that a save may take counts from here. It is done once: later
        calls return, or raise, what the first did. Cancelling it cancels the
        save, unless its commit was sent.

        Raises as ``save`` of the store does; SaveCancelledError after
        ``discard`` or a cancellation, StoreClosedError after the store's end.
        """
        if self._task is None:
            if self._refusal is not None:
                raise self._refusal()
            assert self._snapshot is not None
            self._task = asyncio.ensure_future(self._write(self._snapshot))
            self._task.add_done_callback(lambda _: self._free())
        task = self._task
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.cancel()
            await wait_for_end(task)
            raise
        if task.cancelled():
            raise SaveCancelledError(
                "the save of a capture was cancelled before its commit; nothing was stored"
            )
        return task.result()

    def discard(self) -> None:
        """Give the memory back and never save. Idempotent; once ``save`` was called it does nothing."""
        self._end(lambda: SaveCancelledError("this capture was discarded; nothing was stored"))

    def _end(self, refusal: Callable[[], Exception]) -> None:
        if self._task is None and self._refusal is None:
            self._refusal = refusal
            self._free()

    def _free(self) -> None:
        self._snapshot = None
        self._give_back()


class Captures:
    """Takes captures of one store and keeps some of their memory for the next."""

    def __init__(self, engine: Engine, registry: Registry) -> None:
        self._engine = engine
        self._registry = registry
        self._open: WeakSet[CapturedSave] = WeakSet()
        self._arenas: list[Arena] = []
        self._workers: WorkerPool | None = None
        self._closed = False

    async def take(
        self,
        values: Mapping[str, object],
        write: Callable[[Snapshot], Awaitable[Checkpoint]],
    ) -> CapturedSave:
        """Copy what the caller could change; ``write`` is what saving it means.

        Raises UnserializableError, LimitExceededError, StoreClosedError.
        """
        arena = self._arenas.pop() if self._arenas else Arena()
        try:
            workers = self._own_workers()
            snapshot = await in_worker(workers, self._snapshot, values, arena, workers)
            if self._closed:
                raise StoreClosedError("the store was closed while values were captured")
        except BaseException:
            self._keep(arena)
            raise
        captured = CapturedSave(snapshot, write, lambda: self._keep(arena))
        self._open.add(captured)
        return captured

    async def reserve(self, arena: Arena, nbytes: int) -> None:
        """Have memory of another arena ready."""
        await in_worker(self._own_workers(), arena.reserve, nbytes)

    def close(self) -> None:
        """Discard what was not saved and give all memory back. Idempotent."""
        self._closed = True
        for captured in list(self._open):
            captured._end(
                lambda: StoreClosedError("the store was closed, and with it what was captured was lost")
            )
        for arena in self._arenas:
            arena.release()
        self._arenas.clear()
        if self._workers is not None:
            self._workers.shutdown(wait=False)

    def _own_workers(self) -> WorkerPool:
        """Threads beside the saves': those may all be busy for as long as the storage takes."""
        if self._workers is None:
            self._workers = WorkerPool(2, "ckptstore-capture")
        return self._workers

    def _snapshot(self, values: Mapping[str, object], arena: Arena, workers: WorkerPool) -> Snapshot:
        return take_snapshot(
            values, config=self._engine.config, registry=self._registry, arena=arena, workers=workers
        )

    def _keep(self, arena: Arena) -> None:
        arena.reset()
        if self._closed or len(self._arenas) >= _MAX_KEPT_ARENAS:
            arena.release()
        else:
            self._arenas.append(arena)
