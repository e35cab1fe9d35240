"""What every test may use."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, T]], T]:
    """Run a coroutine to its end in an event loop of its own."""
    return asyncio.run


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    """Fail a test that leaves a thread of the store running."""
    before = set(threading.enumerate())
    yield
    # The exit watcher belongs to the process and waits for its end.
    left = [
        t
        for t in threading.enumerate()
        if t not in before and t.name.startswith("ckptstore") and t.name != "ckptstore-exit"
    ]
    for thread in left:
        thread.join(5)
    alive = [t.name for t in left if t.is_alive()]
    assert not alive, f"threads left running: {alive}"
