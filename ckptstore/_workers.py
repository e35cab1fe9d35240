"""Worker threads that are there from the start and work until they are stopped.

From ``atexit`` on an interpreter starts no new thread, and the pools of the
standard library refuse work: a save that is still in flight then would die.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from ckptstore.errors import StoreClosedError

__all__ = ["WorkerPool"]

R = TypeVar("R")


class WorkerPool(ThreadPoolExecutor):
    """``n_threads`` daemon threads, started now. Jobs run in the order they were submitted.

    ``niceness``: how far the threads stand back where others want the processors
    too (19: almost wholly). Only Linux has that for a thread alone; elsewhere
    they run like all others.
    """

    # The base class is asyncio's condition for a default executor; its threads are never started.

    def __init__(self, n_threads: int, name: str = "ckptstore-worker", *, niceness: int = 0) -> None:
        super().__init__(max_workers=n_threads)
        self._niceness = niceness
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[..., Any], Any, Any] | None] = (
            queue.SimpleQueue()
        )
        self._stopped = False
        self._workers = [
            threading.Thread(target=self._work, daemon=True, name=f"{name}-{i}") for i in range(n_threads)
        ]
        for thread in self._workers:
            thread.start()

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        """Queue a job. Raises StoreClosedError after ``shutdown``."""
        if self._stopped:
            raise StoreClosedError("the store was closed while this was under way")
        future: Future[R] = Future()
        self._jobs.put((future, fn, args, kwargs))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Stop the threads when the jobs queued so far are done. Idempotent."""
        if not self._stopped:
            self._stopped = True
            for _ in self._workers:
                self._jobs.put(None)
        if wait:
            for thread in self._workers:
                thread.join()

    def _work(self) -> None:
        if self._niceness and sys.platform == "linux":
            # Of the calling thread alone: sched(7), "The nice value".
            with contextlib.suppress(OSError):  # a sandbox may forbid it
                os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + self._niceness)
        while (job := self._jobs.get()) is not None:
            future, function, args, kwargs = job
            if future.set_running_or_notify_cancel():
                try:
                    result = function(*args, **kwargs)
                except BaseException as exc:  # noqa: BLE001  # the border of a thread: the future carries it
                    future.set_exception(exc)
                else:
                    future.set_result(result)
                    del result
            del job, future, function, args, kwargs  # an idle thread keeps nobody's memory
