"""How many requests may be under way: as many as the storage takes, found out by trying."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable

__all__ = ["AdaptiveLimit", "TokenBucket"]


class AdaptiveLimit:
    """A limit that grows by one when a round of requests went well, and halves when the storage is overloaded.

    Starts at ``start``, stays between 1 and ``most``. Those who wait are served
    in the order of their coming. Belongs to one event loop.
    """

    def __init__(self, start: int, most: int) -> None:
        self._limit = float(start)
        self._most = most
        self._under_way = 0
        self._cuts = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return int(self._limit)

    @property
    def under_way(self) -> int:
        """How many there are."""
        return self._under_way

    @property
    def cuts(self) -> int:
        """How often the limit was halved; to be remembered when a request begins."""
        return self._cuts

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Wait for a place among the requests under way, and hold it for the block."""
        await self._acquire()
        try:
            yield
        finally:
            self._under_way -= 1
            self._admit()

    def succeeded(self) -> None:
        """Take note of a request that went well."""
        if self._under_way >= self.limit:  # an idle limit proves nothing
            self._limit = min(float(self._most), self._limit + 1 / self._limit)
            self._admit()

    def overloaded(self, cuts: int) -> None:
        """Take note of a request that the storage could not take.

        ``cuts`` are those from before it was sent: the many requests that fail
        in one moment halve the limit once.
        """
        if cuts == self._cuts:
            self._cuts += 1
            self._limit = max(1.0, self._limit / 2)

    async def _acquire(self) -> None:
        if not self._waiting and self._under_way < self.limit:
            self._under_way += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except BaseException:
            if (
                turn.done() and not turn.cancelled()
            ):  # granted in the same turn of the loop as the cancellation
                self._under_way -= 1
            else:
                with contextlib.suppress(ValueError):  # passed over already, by a place that was given back
                    self._waiting.remove(turn)
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._under_way < self.limit:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self._under_way += 1
                turn.set_result(None)


class TokenBucket:
    """A store of ``most`` tokens that fills by ``per_s`` a second, by the given clock."""

    def __init__(self, most: float, per_s: float, clock: Callable[[], float]) -> None:
        self._most = most
        self._per_s = per_s
        self._clock = clock
        self._tokens = most
        self._counted_s = clock()

    def take(self) -> float:
        """Take one token, and return how many seconds to wait until it is really there."""
        now = self._clock()
        self._tokens = min(self._most, self._tokens + (now - self._counted_s) * self._per_s)
        self._counted_s = now
        self._tokens -= 1
        return max(0.0, -self._tokens / self._per_s)
