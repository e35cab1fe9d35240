"""A limit on how long something may take."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["TimeUpError", "within"]

R = TypeVar("R")


class TimeUpError(Exception):
    """The time is up. Never leaves the backends."""


async def within(limit_s: float, work: Coroutine[Any, Any, R]) -> R:
    """Return what ``work`` returns, or cancel it when ``limit_s`` seconds are over.

    Nothing of it is left running when this returns or raises, also when it is
    cancelled. ``asyncio.wait_for`` loses a cancellation that comes together
    with the result before Python 3.12.

    Raises TimeUpError, and what ``work`` raises.
    """
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait([task], timeout=max(0.0, limit_s))
    finally:
        if not task.done():
            task.cancel()
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not report it as lost
    if task.cancelled():
        raise TimeUpError
    return task.result()
