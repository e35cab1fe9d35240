"""A wrapper that tries again (protocol 12): the one place where requests are repeated."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from ckptstore.backends._adaptive import AdaptiveLimit, TokenBucket
from ckptstore.backends._within import TimeUpError, within
from ckptstore.backends.base import Backend, Buffer, ObjectInfo, Verdict
from ckptstore.errors import BackendError, ThrottledError, UnavailableError

__all__ = ["RetryBackend", "RetryPolicy"]

T = TypeVar("T")

# What such requests may take of time, as if so many bytes were sent: some storages delete one by one.
_DELETE_BYTES = 1 << 17
_SWEEP_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """When a request is tried again, and when it is given up.

    The pause before the n-th retry is drawn from 0 to ``first_pause_s`` · 2ⁿ⁻¹,
    at most ``max_pause_s``. An object of ``size`` bytes has ``deadline_s`` +
    size/``min_bytes_per_s`` seconds for all its tries and pauses; no try takes
    more than that less ``reserve_s``, so that a body that only trickles leaves
    the time for another. All retries of a store share ``max_tokens``, which
    come back at ``tokens_per_s``: when they are used up, a retry waits for one.
    """

    tries: int = 8
    first_pause_s: float = 0.1
    max_pause_s: float = 20.0
    deadline_s: float = 30.0
    reserve_s: float = 15.0
    min_bytes_per_s: float = 1 << 20
    max_tokens: float = 100.0
    tokens_per_s: float = 5.0


class RetryBackend(Backend):
    """Repeats requests of ``inner`` that failed in passing, and sends no more at once than the storage takes.

    Every request of the contract can be repeated: puts are of the same bytes
    under a name of their own. What is no transient BackendError is raised at
    once; what is, when the tries or the time are used up.

    At most ``concurrency`` requests are under way at first, later up to
    ``max_concurrency``: the number grows while all goes well and halves when
    the storage throttles or does not answer in time. Listings do not count.

    ``sleep``, ``clock`` (seconds, monotonic) and ``draw`` (uniform between two
    numbers) are for tests.
    """

    def __init__(
        self,
        inner: Backend,
        *,
        concurrency: int = 8,
        max_concurrency: int = 32,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.inner = inner
        self.zombie_s = inner.zombie_s  # type: ignore[misc]  # a wrapper is as late as what it wraps
        self.limit = AdaptiveLimit(concurrency, max_concurrency)
        self._policy = policy or RetryPolicy()
        self._tokens = TokenBucket(self._policy.max_tokens, self._policy.tokens_per_s, clock)
        self._sleep = sleep
        self._clock = clock
        self._draw = draw

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def identity(self) -> str | None:
        return self.inner.identity

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return await self._tried(
            lambda: self.inner.get(key, start=start, length=length), f"read {key}", length or 0
        )

    async def get_into(self, key: str, into: memoryview) -> int:
        return await self._tried(lambda: self.inner.get_into(key, into), f"read {key}", len(into))

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        return await self._tried(
            lambda: self.inner.put(key, data, staged=staged, if_absent=if_absent), f"write {key}", len(data)
        )

    async def put_in_time(self, key: str, data: Buffer, check: Callable[[], None]) -> ObjectInfo:
        """Store as the inner backend does; no try begins once ``check`` raises."""
        return await self._tried(lambda: self.inner.put_in_time(key, data, check), f"write {key}", len(data))

    async def head(self, key: str) -> ObjectInfo:
        return await self._tried(lambda: self.inner.head(key), f"read {key}", 0)

    async def delete(self, key: str) -> None:
        await self._tried(lambda: self.inner.delete(key), f"delete {key}", 0)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        """Remove as the inner backend does; what failed in passing is tried again."""
        attempt = _Attempts(self._policy, self._clock, _DELETE_BYTES * len(keys))
        given_up: dict[str, BackendError] = {}
        left = list(keys)
        while True:
            failed = await self._tried(
                partial(self.inner.delete_many, left), "delete", _DELETE_BYTES * len(left)
            )
            passing = {key: error for key, error in failed.items() if error.transient}
            given_up |= {key: error for key, error in failed.items() if not error.transient}
            if not passing:
                return given_up
            if any(isinstance(error, ThrottledError) for error in passing.values()):
                self.limit.overloaded(self.limit.cuts)
            try:
                await self._pause(attempt, next(iter(passing.values())))
            except BackendError:
                return given_up | passing
            left = list(passing)

    async def sweep(self, prefix: str, before_s: float, *, dry_run: bool = False) -> tuple[int, int]:
        return await self._tried(
            lambda: self.inner.sweep(prefix, before_s, dry_run=dry_run), f"clear {prefix}", _SWEEP_BYTES
        )

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        """List as the inner backend does; after a failure the listing goes on behind the last key."""
        attempt = _Attempts(self._policy, self._clock, 0)
        while True:
            try:
                async with aclosing(self.inner.list(prefix, after=after)) as listing:
                    async for info in listing:
                        yield info
                        after = info.key
                        attempt = _Attempts(self._policy, self._clock, 0)
                return
            except BackendError as exc:
                await self._pause(attempt, exc)

    async def sync(self) -> None:
        await self.inner.sync()

    async def examine(self) -> AsyncGenerator[tuple[str, Verdict, str], None]:
        async with aclosing(self.inner.examine()) as findings:
            async for finding in findings:
                yield finding

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _tried(self, request: Callable[[], Coroutine[Any, Any, T]], what: str, nbytes: int) -> T:
        async with self.limit.place():
            attempt = _Attempts(self._policy, self._clock, nbytes)
            while True:
                cuts = self.limit.cuts
                try:
                    answer = await within(attempt.limit_s(), request())
                except BackendError as exc:
                    if isinstance(exc, ThrottledError):
                        self.limit.overloaded(cuts)
                    await self._pause(attempt, exc)
                except TimeUpError as exc:
                    self.limit.overloaded(cuts)
                    late = UnavailableError(f"cannot {what} in {self.url}: it takes too long")
                    late.__cause__ = exc
                    await self._pause(attempt, late)
                else:
                    self.limit.succeeded()
                    return answer

    async def _pause(self, attempt: _Attempts, failure: BackendError) -> None:
        """Wait before the next try. Raises ``failure`` if there is none."""
        attempt.failed += 1
        if not failure.transient:
            raise failure
        policy = self._policy
        pause_s = self._draw(0, min(policy.max_pause_s, policy.first_pause_s * 2 ** (attempt.failed - 1)))
        if attempt.failed < policy.tries:
            pause_s = max(pause_s, self._tokens.take())
        if attempt.failed >= policy.tries or pause_s >= attempt.left_s():
            raise type(failure)(
                f"{failure}; given up after {attempt.failed} tries in {attempt.taken_s():.1f} s",
                transient=True,
            ) from failure
        await self._sleep(pause_s)


class _Attempts:
    """How often one request has failed, and how much time it has left."""

    def __init__(self, policy: RetryPolicy, clock: Callable[[], float], nbytes: int) -> None:
        self.failed = 0
        self._clock = clock
        self._begun_s = clock()
        self._deadline_s = policy.deadline_s + nbytes / policy.min_bytes_per_s
        self._one_s = max(self._deadline_s - policy.reserve_s, self._deadline_s / 2)

    def taken_s(self) -> float:
        return self._clock() - self._begun_s

    def left_s(self) -> float:
        return self._deadline_s - self.taken_s()

    def limit_s(self) -> float:
        """Return how long the next try may take."""
        return min(self._one_s, self.left_s())
