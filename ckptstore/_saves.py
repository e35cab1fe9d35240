"""The saves of one store object: one in flight at a time, waited for or in the background."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from ckptstore._captures import Captures
from ckptstore._clock import Clock
from ckptstore._fallback import Found, noted
from ckptstore._line import Line, open_line
from ckptstore._marker import StoreMarker
from ckptstore._memory import Arena
from ckptstore._pending import PendingSave
from ckptstore._retention import Retention, Wish
from ckptstore._retention_runs import RetentionRuns
from ckptstore._snapshot import Snapshot, take_snapshot
from ckptstore._tasks import in_worker, wait_for_end
from ckptstore._upload import Engine, Urgency
from ckptstore._writer import Request, write
from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import BusyError
from ckptstore.manifest import ManifestSource
from ckptstore.serializers import Registry

__all__ = ["Saves"]

_log = logging.getLogger("ckptstore")


class Saves:
    """Takes snapshots and writes them, in order, and remembers what nobody has been told of."""

    def __init__(self, engine: Engine, marker: StoreMarker, registry: Registry, clock: Clock) -> None:
        self._engine = engine
        self._marker = marker
        self._registry = registry
        self._clock = clock
        self.retention = Retention(engine, marker.store_id, self.forget)
        self._runs = RetentionRuns(self.retention)
        self.captures = Captures(engine, registry)
        self._arena = Arena()
        self._reserving: set[asyncio.Task[None]] = set()
        self._lines: dict[str, Line] = {}
        self._fallbacks: dict[str, Found] = {}
        self._in_flight = asyncio.Lock()
        self._pending: list[PendingSave] = []
        self._writing: asyncio.Task[Checkpoint] | None = None

    async def save(
        self, request: Request, values: dict[str, object], *, wait: bool
    ) -> Checkpoint | PendingSave:
        """Save, or capture and go on in the background. See ``AsyncCheckpointStore.save``."""
        self.raise_error()
        on_busy = self._engine.config.on_busy
        if self._in_flight.locked() and on_busy == "error":
            raise BusyError('another save of this store is in flight and on_busy="error"')
        if self._in_flight.locked() and on_busy == "skip" and not wait:
            return PendingSave(None, request.progress, Urgency(False), request.collection)
        await self._my_turn()
        try:
            self.raise_error()  # the save that this one waited for may have failed
            snapshot = await in_worker(self._engine.workers, self._snapshot, values, not wait)
            urgency = Urgency(wait)
            task = self._start(request, snapshot, urgency, captured=not wait)
        except BaseException:
            self._release(captured=not wait)
            raise
        if not wait:
            pending = PendingSave(
                task, request.progress, urgency, f"{request.collection} {request.label or ''}".strip()
            )
            self._pending.append(pending)
            return pending
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await wait_for_end(task)
            raise

    async def save_captured(self, request: Request, snapshot: Snapshot) -> Checkpoint:
        """Save what was captured before, behind what is in flight.

        For a task of its own: a cancellation that the commit outlives is used up.
        """
        await self._my_turn()
        task = self._start(request, snapshot, Urgency(True), captured=False)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.cancel()
            await wait_for_end(task)
            if task.cancelled():
                raise
            return task.result()

    async def begin(self, collection: str, *, anew: bool = False) -> None:
        """Open a collection for writing, between saves; ``anew``: also if it is open already."""
        async with self._in_flight:
            former = self._lines.get(collection)
            if former is None:
                await self._line(collection)
            elif anew:
                line = await self._open_line(collection)
                # What the former may still commit stays below.
                line.epoch = max(line.epoch, former.epoch + 1)
                self._lines[collection] = line

    async def reserve(self, nbytes: int, *, wait: bool) -> None:
        """Have memory for a background save of ``nbytes`` bytes ready, or see to it in the background."""
        task = asyncio.ensure_future(self.captures.reserve(self._arena, nbytes))
        if wait:
            await task
        else:
            self._reserving.add(task)
            task.add_done_callback(self._reserved)

    def _reserved(self, task: asyncio.Task[None]) -> None:
        self._reserving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("no memory was reserved, the next background save asks for its own: %r", error)

    def forget(self, source: ManifestSource) -> None:
        """Reuse nothing of a checkpoint that is being deleted."""
        line = self._lines.get(source.collection)
        if line is not None:
            line.forget(source.name)

    def known(self, collection: str) -> frozenset[str]:
        """Return names that a listing of the collection must show: no garbage collection can have taken them."""
        line = self._lines.get(collection)
        base = None if line is None else line.base
        if base is None or self._clock.elapsed_s(base.known) > self._marker.max_save_s:
            return frozenset()
        return frozenset({base.text})

    async def settled(self) -> None:
        """Wait until the background saves up to now have ended, however, and the retention that follows them."""
        for pending in list(self._pending):
            await pending.ended()
        await self._runs.settled()

    async def idle(self) -> None:
        """Wait until nothing at all is in flight, also of another task's."""
        while True:
            await self.settled()
            async with self._in_flight:
                if not self._runs.busy:
                    return

    async def stop(self, timeout_s: float = 0.0) -> list[str]:
        """Give what is in flight this long in all, cancel it, wait for its end, and name what was not committed.

        A cancellation does not shorten it: no save outlives its store.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_s
        running = [pending for pending in self._pending if not pending.done()]
        writing = self._writing
        if writing is not None:
            await wait_for_end(writing, timeout_s)
            writing.cancel()
            await wait_for_end(writing)
        await self._runs.stop(max(0.0, until - loop.time()))
        await wait_for_end(asyncio.ensure_future(self.settled()))
        return [pending.name for pending in running if pending.future.exception() is not None]

    def raise_error(self) -> None:
        """Raise what a background save failed with, if nobody has been told; once."""
        errors = [error for pending in self._pending if (error := pending.take_error()) is not None]
        self._pending = [pending for pending in self._pending if not pending.done()]
        if errors:
            if len(errors) > 1:
                _log.error("%d background saves failed; the first failure is raised", len(errors))
            raise errors[0]

    async def aclose(self) -> None:
        """Discard what was captured and not saved, and give the memory of snapshots back to the system."""
        self._arena.release()
        for task in list(self._reserving):
            await wait_for_end(task)
        self.captures.close()

    def _snapshot(self, values: dict[str, object], capture: bool) -> Snapshot:
        return take_snapshot(
            values,
            config=self._engine.config,
            registry=self._registry,
            arena=self._arena if capture else None,
            workers=self._engine.workers,
        )

    async def _my_turn(self) -> None:
        """Wait until no save is in flight; what is, somebody waits for from now on."""
        for pending in self._pending:
            pending.hurry()
        await self._in_flight.acquire()

    def _start(
        self, request: Request, snapshot: Snapshot, urgency: Urgency, *, captured: bool
    ) -> asyncio.Task[Checkpoint]:
        """Write in a task that gives back the turn at its end, and with ``captured`` the memory."""
        task = self._writing = asyncio.ensure_future(self._write(request, snapshot, urgency))
        task.add_done_callback(lambda ended: self._ended(ended, captured=captured))
        return task

    def fell_back(self, collection: str, found: Found) -> None:
        """Have the next save of a collection record that newer checkpoints were skipped."""
        if found.skipped:
            self._fallbacks[collection] = found

    async def _write(self, request: Request, snapshot: Snapshot, urgency: Urgency) -> Checkpoint:
        found = self._fallbacks.get(request.collection)
        if found is not None:
            attributes = noted(request.attributes, found, self._engine.config.limits)
            request = replace(request, attributes=attributes)
        checkpoint = await write(
            self._engine,
            await self._line(request.collection),
            request,
            snapshot,
            store_id=self._marker.store_id,
            clock=self._clock,
            max_save_s=self._marker.max_save_s,
            urgency=urgency,
        )
        if self._fallbacks.get(request.collection) is found:
            self._fallbacks.pop(request.collection, None)
        if request.keep is not None:
            if request.keep.reads:
                self.retention.remember(checkpoint)
            self._runs.start(
                Wish(
                    collection=request.collection,
                    keep=request.keep,
                    run=request.run,
                    protect=request.protect,
                    own=checkpoint.ref.name,
                )
            )
        return checkpoint

    async def _line(self, collection: str) -> Line:
        line = self._lines.get(collection)
        if line is None:
            line = self._lines[collection] = await self._open_line(collection)
        return line

    async def _open_line(self, collection: str) -> Line:
        return await open_line(self._engine, collection, store_id=self._marker.store_id, clock=self._clock)

    def _release(self, *, captured: bool) -> None:
        if captured:
            self._arena.reset()
        self._in_flight.release()

    def _ended(self, task: asyncio.Task[Checkpoint], *, captured: bool) -> None:
        self._writing = None
        self._release(captured=captured)
        if captured and not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a background save failed: %s", error)
