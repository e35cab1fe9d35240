"""A budget of bytes in flight: the only back-pressure of a save or a load."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["ByteBudget"]


class ByteBudget:
    """Hands out at most ``limit_bytes`` at a time, strictly in the order of asking.

    First come, first served also where a later, smaller request would fit, so
    that a large one is never starved. A request above the limit passes when
    nothing else is in use: it could never fit, and memory is then bounded by
    that one item. Belongs to one event loop; not thread-safe.
    """

    def __init__(self, limit_bytes: int) -> None:
        if limit_bytes <= 0:
            raise ValueError(f"limit_bytes must be above 0, not {limit_bytes}")
        self._limit = limit_bytes
        self._in_use = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def in_use(self) -> int:
        """Bytes acquired and not yet released."""
        return self._in_use

    async def acquire(self, n: int) -> None:
        """Wait until ``n`` bytes are free and take them.

        Cancelled while it waits, it has taken nothing.
        """
        if n < 0:
            raise ValueError(f"cannot acquire {n} bytes")
        if not self._waiting and self._fits(n):
            self._in_use += n
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        item = (n, turn)
        self._waiting.append(item)
        try:
            await turn
        except BaseException:
            if item in self._waiting:
                self._waiting.remove(item)
                self._admit()
            else:  # granted in the same turn of the loop as the cancellation
                self.release(n)
            raise

    def release(self, n: int) -> None:
        """Give back ``n`` bytes that were acquired."""
        if not 0 <= n <= self._in_use:
            raise ValueError(f"cannot release {n} bytes, {self._in_use} are in use")
        self._in_use -= n
        self._admit()

    def _fits(self, n: int) -> bool:
        return self._in_use == 0 or self._in_use + n <= self._limit

    def _admit(self) -> None:
        while self._waiting:
            n, turn = self._waiting[0]
            if turn.cancelled():
                # Its acquire removes it; it must not hold up those behind it until then.
                return
            if not self._fits(n):
                return
            self._waiting.popleft()
            self._in_use += n
            turn.set_result(None)
