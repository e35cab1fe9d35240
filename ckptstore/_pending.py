"""A save that goes on in the background."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Awaitable, Callable

from ckptstore._upload import Progress, Urgency
from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import SaveCancelledError

__all__ = ["PendingSave"]

_log = logging.getLogger("ckptstore")


class PendingSave:
    """What ``save(wait=False)`` returns: the values are captured, the commit is on its way.

    Awaiting ``committed`` gives the checkpoint, or raises what the save failed
    with (SaveCancelledError after ``cancel``). Awaiting it may be cancelled; the
    save itself goes on. With ``on_busy="skip"`` a save that was not made has
    ``skipped`` set and its ``committed`` gives None.
    """

    def __init__(
        self, task: asyncio.Task[Checkpoint] | None, progress: Progress, urgency: Urgency, name: str
    ) -> None:
        self.name = name
        """What is being saved, for messages."""
        self.future: concurrent.futures.Future[Checkpoint | None] = concurrent.futures.Future()
        """The outcome for other threads."""
        self._task = task
        self._progress = progress
        self._urgency = urgency
        self._told = False
        self._callbacks: list[Callable[[], object]] = []
        if task is None:
            self.future.set_result(None)
        else:
            task.add_done_callback(self._ended)

    @property
    def skipped(self) -> bool:
        """True if another save was in flight and this one was not made."""
        return self._task is None

    @property
    def captured(self) -> Awaitable[None]:
        """Done when the caller may change the values again: always, once ``save`` has returned."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    @property
    def committed(self) -> Awaitable[Checkpoint | None]:
        """The checkpoint, once it is durable and visible."""
        return self._outcome()

    @property
    def progress(self) -> Progress:
        """How far the save is, in bytes."""
        progress = self._progress
        return Progress(progress.raw_bytes_total, progress.raw_bytes_done, progress.sent_bytes)

    def done(self) -> bool:
        """True if the save has ended, one way or another."""
        return self.future.done()

    def cancel(self) -> None:
        """Stop the save, unless its commit was sent already: then it ends as it ends."""
        if self._task is not None:
            self._task.cancel()

    def add_done_callback(self, fn: Callable[[PendingSave], object]) -> None:
        """Call ``fn`` with this object once the save has ended, however; soon, if it has ended already.

        It is called on the loop's thread, so it must not block. What it raises
        is logged and changes nothing; being called is not being told: ask
        ``future`` for the outcome, and await ``committed`` to take an error away
        from the next save.
        """
        self.when_ended(lambda: fn(self))

    def when_ended(self, call: Callable[[], object]) -> None:
        """Make the call once the save has ended, on the loop's thread, and log what it raises."""
        if self.done():
            asyncio.get_running_loop().call_soon(self.call, call)
        else:
            self._callbacks.append(call)

    def call(self, call: Callable[[], object]) -> None:
        """Make the call now and log what it raises."""
        try:
            call()
        except BaseException:  # noqa: BLE001  # an exit asked for here would end the loop under all other saves
            _log.exception("a callback of the save of %s failed", self.name)

    def hurry(self) -> None:
        """Have the save stand back for nobody from here on: somebody waits for it. From any thread."""
        self._urgency.urgent = True

    def told(self) -> None:
        """Take note that the caller knows how the save ended."""
        self._told = True

    def take_error(self) -> BaseException | None:
        """Return the failure that nobody has been told of yet, once."""
        if self._told or not self.done():
            return None
        self.told()
        error = self.future.exception()
        return None if isinstance(error, SaveCancelledError) else error

    async def ended(self) -> None:
        """Wait for the save's end, whatever it is."""
        if self._task is not None:
            self.hurry()
            await asyncio.wait([self._task])

    async def _outcome(self) -> Checkpoint | None:
        await self.ended()
        self.told()
        return self.future.result()

    def _ended(self, task: asyncio.Task[Checkpoint]) -> None:
        if task.cancelled():
            self.future.set_exception(
                SaveCancelledError(
                    f"the save of {self.name} was cancelled before its commit; nothing was stored"
                )
            )
        elif (error := task.exception()) is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(task.result())
        callbacks, self._callbacks = self._callbacks, []
        for call in callbacks:
            self.call(call)
