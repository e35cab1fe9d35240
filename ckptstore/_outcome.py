"""A background save as blocking code sees it."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable
from typing import Generic, TypeVar

from ckptstore import _captures, _pending
from ckptstore._loop import LoopThread
from ckptstore._upload import Progress
from ckptstore.checkpoint import Checkpoint
from ckptstore.errors import ForkedProcessError

__all__ = ["CapturedSave", "Outcome", "PendingSave"]

T = TypeVar("T")


class Outcome(Generic[T]):
    """Something that will be known."""

    def __init__(
        self,
        future: concurrent.futures.Future[T],
        *,
        on_wait: Callable[[], None],
        on_told: Callable[[], None],
    ) -> None:
        self._future = future
        self._on_wait = on_wait
        self._on_told = on_told
        self._pid = os.getpid()

    def done(self) -> bool:
        """True if it is known."""
        return self._future.done()

    def result(self, timeout: float | None = None) -> T:
        """Return it, waiting for at most ``timeout`` seconds.

        Raises TimeoutError, what the save failed with, or ForkedProcessError in
        a forked child, where nobody works on it.
        """
        if os.getpid() != self._pid:
            raise ForkedProcessError("this save belongs to the parent process: ask there")
        if not self._future.done():
            self._on_wait()
        if not concurrent.futures.wait([self._future], timeout).done:
            raise TimeoutError(f"the save has not ended within {timeout} s")
        self._on_told()
        return self._future.result()


def _nothing() -> None:
    pass


class PendingSave:
    """A save that goes on in the background, for blocking code.

    ``captured`` and ``committed`` have ``result(timeout)`` and ``done()``. The
    values are captured when ``save`` returns; ``committed`` gives the
    checkpoint once it is durable and visible (None if the save was skipped).
    """

    def __init__(self, pending: _pending.PendingSave, loop: LoopThread) -> None:
        self._pending = pending
        self._loop = loop
        captured: concurrent.futures.Future[None] = concurrent.futures.Future()
        captured.set_result(None)
        self.captured: Outcome[None] = Outcome(captured, on_wait=_nothing, on_told=_nothing)
        self.committed: Outcome[Checkpoint | None] = Outcome(
            pending.future, on_wait=pending.hurry, on_told=pending.told
        )

    @property
    def skipped(self) -> bool:
        """True if another save was in flight and this one was not made."""
        return self._pending.skipped

    @property
    def progress(self) -> Progress:
        """How far the save is, in bytes."""
        return self._pending.progress

    def result(self, timeout: float | None = None) -> Checkpoint | None:
        """The same as ``committed.result(timeout)``."""
        return self.committed.result(timeout)

    def done(self) -> bool:
        """True if the save has ended, one way or another."""
        return self.committed.done()

    def add_done_callback(self, fn: Callable[[PendingSave], object]) -> None:
        """Call ``fn`` with this object once the save has ended, however; soon, if it has ended already.

        It is called on the store's loop thread, where ``result()`` answers at
        once and the store's own methods raise WrongThreadError; on this thread
        if the store is closed. It must not block. What it raises is logged and
        changes nothing. Raises ForkedProcessError in a forked child.
        """
        self._loop.check_process()
        if not self._loop.call_soon(lambda: self._pending.when_ended(lambda: fn(self))):
            self._pending.call(lambda: fn(self))

    def cancel(self) -> None:
        """Stop the save, unless its commit was sent already: then it ends as it ends."""
        self._loop.call_soon(self._pending.cancel)


class CapturedSave:
    """What ``capture`` returns, for blocking code: values as they were then, in memory of the store's own.

    Nothing is stored until ``save`` is called. ``discard`` gives the memory
    back; the store's end discards what was not saved.
    """

    def __init__(self, captured: _captures.CapturedSave, loop: LoopThread) -> None:
        self._captured = captured
        self._loop = loop

    @property
    def raw_bytes(self) -> int:
        """Bytes of the captured values before compression."""
        return self._captured.raw_bytes

    def save(self) -> Checkpoint:
        """Write the values as one checkpoint, behind the save that is in flight, and return it, durable.

        The time that a save may take counts from here. It is done once: later
        calls return, or raise, what the first did. An interrupt cancels the
        save, unless its commit was sent.

        Raises as ``save`` of the store does; SaveCancelledError after
        ``discard`` or an interrupt, StoreClosedError after the store's end.
        """
        return self._loop.call(self._captured.save())

    def discard(self) -> None:
        """Give the memory back and never save. Idempotent; once ``save`` was called it does nothing."""
        self._loop.call_soon(self._captured.discard)
