"""Signals, threads and loops around the blocking store: what breaks in leaves nothing behind, and nothing hangs."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from rig import CONFIG, Blocking, is_values, values

from ckptstore import CheckpointStore
from ckptstore.errors import SaveCancelledError, StoreClosedError, WrongThreadError

MANIFEST = "manifests/c/f"  # not the collection's marker


class Alarm(Exception):
    """What a timeout's signal handler raises."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGUSR1])
def interrupt(request: pytest.FixtureRequest) -> Iterator[tuple[Callable[[], None], type[BaseException]]]:
    """Give a way to interrupt the main thread, and what it raises there."""

    def raise_alarm(number: int, frame: object) -> None:
        raise Alarm

    alarm = request.param == signal.SIGUSR1
    old = signal.signal(request.param, raise_alarm if alarm else signal.default_int_handler)
    main = threading.main_thread().ident
    assert main is not None
    yield lambda: signal.pthread_kill(main, request.param), Alarm if alarm else KeyboardInterrupt
    signal.signal(request.param, old)


def main_is_in(rig: Blocking, name: str) -> None:
    """Return when the main thread waits in a function of this name."""
    ident = threading.main_thread().ident
    assert ident is not None
    while name not in [frame.name for frame in traceback.extract_stack(sys._current_frames()[ident])][-6:]:
        rig.turns()


def test_an_interrupted_save_leaves_nothing_behind(rig: Blocking, aside: Any, interrupt: Any) -> None:
    send, error = interrupt
    rig.store.save("c", values(0))
    chunks = rig.storage.chunks()
    gate = rig.slow.gate("put", "chunks/")
    aside(lambda: (gate.wait_arrived(), send()))
    with pytest.raises(error):
        rig.store.save("c", values(1))
    rig.nothing_is_left()
    assert rig.storage.chunks() == chunks
    gate.open()
    rig.store.save("c", values(2))
    assert rig.seeds() == [2, 0]


def test_a_save_interrupted_in_its_commit_is_committed_first(
    rig: Blocking, aside: Any, interrupt: Any
) -> None:
    send, error = interrupt
    gate = rig.slow.gate("put", MANIFEST)

    def strike() -> None:
        gate.wait_arrived()
        send()
        rig.turns()
        gate.open()

    aside(strike)
    with pytest.raises(error):
        rig.store.save("c", values(1))
    rig.nothing_is_left()
    assert rig.seeds() == [1]


def test_an_interrupted_wait_for_a_result_leaves_the_save_alone(
    rig: Blocking, aside: Any, interrupt: Any
) -> None:
    send, error = interrupt
    gate = rig.slow.gate("put", "chunks/")
    pending = rig.store.save("c", values(1), wait=False)
    aside(lambda: (main_is_in(rig, "result"), send()))
    with pytest.raises(error):
        pending.result(60)
    gate.open()
    assert pending.result(10).seq == 0


def test_an_interrupted_close_closes_and_leaves_no_thread(rig: Blocking, aside: Any, interrupt: Any) -> None:
    send, error = interrupt
    gate = rig.slow.gate("put", "chunks/")
    pending = rig.store.save("c", values(1), wait=False)
    gate.wait_arrived()
    aside(lambda: (main_is_in(rig, "call"), send()))
    with pytest.raises(error):
        rig.store.close()
    with pytest.raises(SaveCancelledError):
        pending.result(10)
    with pytest.raises(StoreClosedError):
        rig.store.load("c")
    assert rig.storage.chunks() == []


def test_a_call_from_the_stores_own_loop_is_refused_not_deadlocked(rig: Blocking) -> None:
    saved = rig.store.save("c", values(1))
    calls = [
        lambda: rig.store.load(saved),
        lambda: rig.store.save("c", {}),
        lambda: list(rig.store.list("c")),
        rig.store.close,
    ]
    for call in calls:
        outcome: Future[BaseException | None] = Future()

        def attempt(call: Any = call, outcome: Any = outcome) -> None:
            try:
                call()
            except BaseException as exc:  # noqa: BLE001  # all that may come
                outcome.set_result(exc)
            else:
                outcome.set_result(None)

        rig.store._loop.call_soon(attempt)
        assert isinstance(outcome.result(10), WrongThreadError)
    assert is_values(rig.store.load(saved), 1)


def test_the_blocking_store_works_where_a_loop_is_running(tmp_path: Path) -> None:
    async def notebook() -> None:
        with CheckpointStore.open(str(tmp_path / "store"), config=CONFIG) as store:
            pending = store.save("c", values(1), wait=False)
            saved = pending.result(10)
            assert is_values(store.load("c"), 1)
            assert list(store.list("c")) == [saved]

    asyncio.run(notebook())


def test_calls_that_race_with_close_end_one_way_or_the_other(tmp_path: Path, aside: Any) -> None:
    for _ in range(20):
        rig = Blocking(tmp_path)
        rig.store.save("c", values(0))
        ready = threading.Barrier(4)

        def ask(rig: Blocking = rig, ready: threading.Barrier = ready) -> int:
            ready.wait(10)
            n = 0
            try:
                while True:
                    assert is_values(rig.store.load("c"), 0)
                    n += 1
            except StoreClosedError:
                return n

        asked = [aside(ask) for _ in range(3)]
        ready.wait(10)
        rig.store.close()
        for one in asked:
            one.result(10)
