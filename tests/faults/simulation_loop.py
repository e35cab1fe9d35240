"""An event loop whose time jumps, workers that are the loop itself, and clocks that read its time.

Nothing runs but one thread, nothing waits, and all that is random is drawn from
the seed: a run with the same seed is the same run.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import selectors
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Executor, Future
from typing import Any, TypeVar
from unittest import mock

from ckptstore._clock import Clock

R = TypeVar("R")

EPOCH_S = 1_800_000_000.0


class _Jump(selectors.SelectSelector):
    """Waits for nothing: time passes in the place of waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everybody waits for somebody else")
        self.now_s += max(0.0, timeout)
        return []


class JumpingLoop(asyncio.SelectorEventLoop):
    """Time stands still while anything can run, and jumps to the next timer when nothing can."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now_s

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)


class InlineWorkers(Executor):
    """Does each job at once."""

    def submit(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Future[R]:
        future: Future[R] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as exc:  # noqa: BLE001  # as a thread would: the future carries it
            future.set_exception(exc)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        pass


class SimulatedClock(Clock):
    """A machine's clocks: since its boot, and of the wall, which may be wrong by ``wrong_s``."""

    def __init__(self, loop: asyncio.AbstractEventLoop, wrong_s: float) -> None:
        self._loop = loop
        self._wrong_s = wrong_s

    def boot_s(self) -> float:
        return self._loop.time()

    def wall_s(self) -> float:
        return EPOCH_S + self._loop.time() + self._wrong_s


@contextlib.contextmanager
def drawn_from(seed: int) -> Iterator[random.Random]:
    """Let everything that is random in the store be drawn from the seed."""
    rng, chance = random.Random(seed), random.Random(f"{seed} of the store")
    with (
        mock.patch("secrets.token_hex", lambda n: chance.randbytes(n).hex()),
        mock.patch("secrets.token_bytes", chance.randbytes),
        mock.patch("random.uniform", chance.uniform),
        mock.patch("time.time_ns", return_value=1),
    ):
        yield rng


def run_to_end(main: Callable[[asyncio.AbstractEventLoop], Coroutine[Any, Any, R]]) -> R:
    """Run ``main(loop)`` in a loop of its own."""
    loop = JumpingLoop()
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(main(loop))
    finally:
        with contextlib.suppress(RuntimeError):
            loop.run_until_complete(loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        loop.close()
