"""Structured concurrency for the two shapes we need: one blocking hop, and many jobs with a bound."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Executor
from typing import Any, TypeVar

__all__ = ["for_each", "in_worker", "shielded", "wait_for_end"]

T = TypeVar("T")
R = TypeVar("R")


async def in_worker(executor: Executor, function: Callable[..., R], *args: Any) -> R:
    """Run ``function(*args)`` on a worker thread and return its result.

    When cancelled, waits until the thread is done with the caller's memory
    and files, then goes on with the cancellation: a thread cannot be stopped.
    """
    job = executor.submit(function, *args)
    try:
        return await asyncio.wrap_future(job)
    except asyncio.CancelledError:
        # The asyncio future calls itself cancelled while the thread still runs: another one tells its end.
        if not job.cancel():
            await wait_for_end(asyncio.wrap_future(job))
        raise


async def shielded(awaitable: Awaitable[R], grace_s: float) -> R:
    """Return the awaitable's result, even when cancelled meanwhile; ``grace_s`` seconds after that cancel it too.

    A cancellation that the awaitable outlived is used up: only for tasks of our
    own, whose caller looks at what became of them.
    """
    task = asyncio.ensure_future(awaitable)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await wait_for_end(task, grace_s)
        if not task.done():
            task.cancel()
            await wait_for_end(task)
        return task.result()


async def for_each(items: Iterable[T], job: Callable[[T], Awaitable[None]], limit: int) -> None:
    """Run ``job`` over the items, at most ``limit`` at once.

    The first failure cancels the others, waits for them and is raised, with a
    note that counts the rest; a job that ends as cancelled is a failure too.
    Nothing that was started is left running.
    """
    source = iter(items)

    async def work() -> None:
        for item in source:
            await job(item)

    tasks = [asyncio.ensure_future(work()) for _ in range(limit)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await wait_for_end(asyncio.gather(*tasks, return_exceptions=True))
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        if len(errors) > 1 and sys.version_info >= (3, 11):
            errors[0].add_note(f"{len(errors) - 1} more requests failed beside this one")
        raise errors[0]
    if any(task.cancelled() for task in tasks):
        raise asyncio.CancelledError


async def wait_for_end(future: asyncio.Future[Any], timeout_s: float | None = None) -> None:
    """Wait for the end of ``future``, at most ``timeout_s`` seconds, through any number of cancellations of ours."""
    loop = asyncio.get_running_loop()
    until = None if timeout_s is None else loop.time() + timeout_s
    while not future.done():
        left = None if until is None else until - loop.time()
        if left is not None and left <= 0:
            return
        try:
            await asyncio.wait([future], timeout=left)
        except asyncio.CancelledError:
            continue
    if not future.cancelled():
        future.exception()  # retrieved, so that asyncio does not report it as lost
