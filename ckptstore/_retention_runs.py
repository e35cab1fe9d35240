"""Retention after saves: in the background, one run a collection at a time."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from ckptstore._retention import Retention, Wish
from ckptstore._tasks import wait_for_end
from ckptstore.errors import CheckpointStoreError

__all__ = ["RetentionRuns"]

_log = logging.getLogger("ckptstore")


@dataclass(slots=True)
class _Waiting:
    """A wish that no run has taken up; ``ended`` is set when one has, whatever came of it."""

    wish: Wish
    ended: asyncio.Future[None]


class RetentionRuns:
    """Takes wishes and carries them out in tasks of its own.

    While a run works on a collection, only the newest wish for each writer's
    run waits: it knows all that those before it knew. A failure is a warning,
    and the next wish tries again.
    """

    def __init__(self, retention: Retention) -> None:
        self._retention = retention
        self._queues: dict[str, dict[str | None, _Waiting]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: set[asyncio.Future[None]] = set()

    @property
    def busy(self) -> bool:
        """True if a run is under way, or waits."""
        return bool(self._tasks)

    def start(self, wish: Wish) -> None:
        """Carry the wish out soon."""
        collection = wish.collection
        queue = self._queues.setdefault(collection, {})
        waiting = queue.get(wish.run)
        if waiting is not None:
            waiting.wish = wish
            return
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue[wish.run] = _Waiting(wish, ended)
        self._ends.add(ended)
        ended.add_done_callback(self._ends.discard)
        if collection not in self._tasks:
            self._go(collection)

    async def settled(self) -> None:
        """Wait until all wishes up to now were carried out, or have failed."""
        if self._ends:
            await asyncio.wait(set(self._ends))

    async def stop(self, timeout_s: float = 0.0) -> None:
        """Give what runs and waits this long, then cut it short; a cancellation does not shorten it."""
        settled = asyncio.ensure_future(self.settled())
        await wait_for_end(settled, timeout_s)
        for task in list(self._tasks.values()):
            task.cancel()
            await wait_for_end(task)
        await wait_for_end(settled)

    def _go(self, collection: str) -> None:
        task = self._tasks[collection] = asyncio.ensure_future(self._work(collection))
        task.add_done_callback(lambda task: self._ended(collection, task))

    async def _work(self, collection: str) -> None:
        queue = self._queues[collection]
        while queue:
            waiting = queue.pop(next(iter(queue)))
            try:
                await self._retention.run(waiting.wish)
            except CheckpointStoreError as exc:
                _log.warning(
                    "retention of collection %r failed, more than its policy says is kept until the next save: %s",
                    collection,
                    exc,
                )
            finally:
                waiting.ended.set_result(None)

    def _ended(self, collection: str, task: asyncio.Task[None]) -> None:
        del self._tasks[collection]
        error = None if task.cancelled() else task.exception()
        if not task.cancelled() and error is None and self._queues[collection]:
            self._go(collection)  # a wish came when the task had looked for the last time
            return
        for waiting in self._queues.pop(collection).values():
            waiting.ended.set_result(None)
        if task.cancelled():
            _log.warning(
                "retention of collection %r was cut short, more than its policy says is kept until the next save",
                collection,
            )
        elif error is not None:
            _log.error("retention of collection %r failed", collection, exc_info=error)
