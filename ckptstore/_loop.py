"""A private event loop on a thread of its own, for callers that block.

It works where the caller has a running loop (a notebook), stops cleanly on
Ctrl-C, refuses to be used from itself or from a forked child, and lets what is
in flight finish when the interpreter ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

from ckptstore._workers import WorkerPool
from ckptstore.errors import ForkedProcessError, StoreClosedError, WrongThreadError

__all__ = ["LoopThread"]

_log = logging.getLogger("ckptstore")

T = TypeVar("T")


class LoopThread:
    """One event loop on one daemon thread, with worker threads that are there from the start.

    ``at_exit`` is called on the exit watcher's thread when the main thread has
    ended and ``stop`` was not called before: it finishes what is in flight.
    """

    def __init__(self, at_exit: Callable[[], None]) -> None:
        self._pid = os.getpid()
        self._at_exit = at_exit
        self._stopped = False
        # Nothing is put on the loop once its end is; reentrant for a signal's handler that calls us.
        self._lock = threading.RLock()
        self._loop = asyncio.new_event_loop()
        # aiofiles closes files there, and the loop's own pool refuses work once the main thread has ended.
        self._loop.set_default_executor(WorkerPool(2, "ckptstore-loop-worker"))
        self._thread = threading.Thread(target=self._run, daemon=True, name="ckptstore-loop")
        self._thread.start()
        _exit_watch.add(self)

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine on the loop and return its result.

        An exception that reaches the waiting thread (KeyboardInterrupt, a
        timeout's alarm) cancels the coroutine, waits for its end and goes on.

        Raises ForkedProcessError, WrongThreadError or StoreClosedError, and what the coroutine raises.
        """
        try:
            self.check()
        except BaseException:
            coroutine.close()
            raise
        done: Future[T] = Future()
        task: asyncio.Task[T] | None = None

        def start() -> None:
            nonlocal task
            task = self._loop.create_task(coroutine)
            task.add_done_callback(lambda ended: _copy_outcome(ended, done))

        def give_up() -> None:
            if task is not None:
                task.cancel()
            else:  # interrupted before it was on its way
                coroutine.close()
                done.set_exception(asyncio.CancelledError())

        try:
            self._schedule(start)
            return done.result()
        except StoreClosedError:
            coroutine.close()  # no more than a word if it has run
            raise
        except asyncio.CancelledError:
            if self._stopped:
                raise StoreClosedError("the store was closed while this was under way") from None
            raise
        except BaseException:
            if not done.done():
                try:
                    self._schedule(give_up)
                except StoreClosedError:  # the loop's end cancels it
                    self._thread.join()
                else:
                    _wait_whatever_comes(done)
            raise

    def iterate(self, items: AsyncIterator[T]) -> Iterator[T]:
        """Yield what the asynchronous iterator yields, one step of the loop for each."""
        ended = object()
        try:
            while True:
                item = self.call(_next(items, ended))
                if item is ended:
                    return
                yield item  # type: ignore[misc]  # the sentinel is gone
        finally:
            close = getattr(items, "aclose", None)
            if close is not None and not self._stopped and self._pid == os.getpid():
                self.call(close())

    @property
    def stopped(self) -> bool:
        """True after ``stop``."""
        return self._stopped

    def call_soon(self, function: Callable[[], object]) -> bool:
        """Run ``function`` on the loop soon; return False and do nothing when the loop is stopped or the parent's."""
        if os.getpid() == self._pid:
            with contextlib.suppress(StoreClosedError):
                self._schedule(function)
                return True
        return False

    def check_process(self) -> None:
        """Raise ForkedProcessError in a forked child."""
        if os.getpid() != self._pid:
            raise ForkedProcessError(
                "this store was opened before a fork and its threads are not in this process: "
                "open the store again in the child"
            )

    def check(self) -> None:
        """Raise if a blocking call from here cannot work."""
        self.check_process()
        if threading.current_thread() is self._thread:
            raise WrongThreadError(
                "a blocking call from the store's own loop would wait for itself: use AsyncCheckpointStore there"
            )
        if self._stopped:
            raise StoreClosedError("the store is closed")

    def stop(self) -> None:
        """End the loop and its thread. Idempotent; in a forked child it only forgets them."""
        if os.getpid() != self._pid:
            self._stopped = True
            return
        if threading.current_thread() is self._thread:
            return  # whoever calls from there has been told by ``check``
        with self._lock:
            if not self._stopped:
                self._stopped = True
                self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._end()))
        _exit_watch.remove(self)
        self._thread.join()

    def _schedule(self, function: Callable[[], object]) -> None:
        with self._lock:
            if self._stopped:
                raise StoreClosedError("the store is closed")
            self._loop.call_soon_threadsafe(function)

    def _run(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    async def _end(self) -> None:
        """End what other threads are still waiting for, so that none waits for a loop that is gone."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._loop.shutdown_asyncgens()
        # One turn later: what has ended in this one has yet to be told.
        self._loop.call_soon(self._loop.stop)

    def finish(self) -> None:
        """Let what is in flight finish: the exit watcher calls this after the main thread's end."""
        if not self._stopped:
            self._at_exit()


class _ExitWatch:
    """One non-daemon thread for the process that waits for the main thread's end.

    The interpreter joins such threads before it tears anything down, so loops
    and workers still run then. The thread belongs to the process, as its end
    does, and is there again in a forked child that opens a store.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loops: set[LoopThread] = set()
        self._pid: int | None = None

    def add(self, loop: LoopThread) -> None:
        if self._pid != os.getpid():
            self._lock = threading.Lock()  # the parent's may have been held at the fork
        with self._lock:
            if self._pid != os.getpid():
                self._pid = os.getpid()
                self._loops = set()
                threading.Thread(target=self._watch, daemon=False, name="ckptstore-exit").start()
            self._loops.add(loop)

    def remove(self, loop: LoopThread) -> None:
        self._loops.discard(loop)

    def _watch(self) -> None:
        threading.main_thread().join()
        for loop in list(self._loops):
            try:
                loop.finish()
            except Exception:  # noqa: BLE001  # the border of a thread: the other stores come next
                _log.exception("a store could not be closed at the end of the process")


_exit_watch = _ExitWatch()


async def _next(items: AsyncIterator[T], ended: object) -> T | object:
    return await anext(items, ended)


def _copy_outcome(task: asyncio.Task[T], done: Future[T]) -> None:
    if task.cancelled():
        done.set_exception(asyncio.CancelledError())
    elif (error := task.exception()) is not None:
        done.set_exception(error)
    else:
        done.set_result(task.result())


def _wait_whatever_comes(done: Future[Any]) -> None:
    """Wait for the coroutine's end through further interrupts: it holds the caller's memory until then."""
    while not done.done():
        try:
            done.exception()
        except BaseException:  # noqa: BLE001  # the first interrupt is the one that goes on
            continue
