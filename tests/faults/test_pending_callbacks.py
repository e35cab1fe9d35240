"""Callbacks of background saves: called once, on the loop's thread, and unable to do harm."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from rig import Blocking, Storage, values

from ckptstore import AsyncPendingSave, PendingSave
from ckptstore.errors import AccessDeniedError, SaveCancelledError, WrongThreadError
from ckptstore.testing import Fault


class Calls:
    """Notes what it is called with, and where."""

    def __init__(self) -> None:
        self.called = threading.Event()
        self.seen: list[tuple[Any, str]] = []

    def __call__(self, pending: Any) -> None:
        assert pending.done()
        self.seen.append((pending, threading.current_thread().name))
        self.called.set()

    def once_with(self, pending: PendingSave, thread: str = "ckptstore-loop") -> None:
        assert self.called.wait(10)
        assert self.seen == [(pending, thread)]


def test_a_callback_is_called_once_when_the_save_has_ended(rig: Blocking) -> None:
    gate = rig.slow.gate("put")
    pending = rig.store.save("c", values(1), wait=False)
    calls, late = Calls(), Calls()
    pending.add_done_callback(calls)
    gate.wait_arrived()
    rig.turns()
    assert calls.seen == []
    gate.open()
    checkpoint = pending.result(10)
    calls.once_with(pending)
    assert checkpoint is not None
    pending.add_done_callback(late)
    late.once_with(pending)
    rig.turns()
    calls.once_with(pending)


def test_a_callback_hears_of_failures_and_takes_none_away(rig: Blocking) -> None:
    rig.faulty.arm(Fault(verb="put", error=lambda: AccessDeniedError("no")))
    pending = rig.store.save("c", values(1), wait=False)
    calls = Calls()
    pending.add_done_callback(calls)
    calls.once_with(pending)
    with pytest.raises(AccessDeniedError):
        rig.store.save("c", values(2))
    assert rig.seeds() == []


def test_a_callback_hears_of_a_cancellation_and_of_a_skip(tmp_path: Path) -> None:
    rig = Blocking(tmp_path, on_busy="skip")
    try:
        gate = rig.slow.gate("put")
        pending = rig.store.save("c", values(1), wait=False)
        gate.wait_arrived()
        skipped = rig.store.save("c", values(2), wait=False)
        assert skipped.skipped
        cancelled, left_out = Calls(), Calls()
        skipped.add_done_callback(left_out)
        left_out.once_with(skipped)
        pending.add_done_callback(cancelled)
        pending.cancel()
        gate.open()
        cancelled.once_with(pending)
        with pytest.raises(SaveCancelledError):
            pending.result(10)
    finally:
        rig.store.close()


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit, KeyboardInterrupt])
def test_a_callback_that_raises_is_logged_and_harms_nobody(
    rig: Blocking, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def broken(pending: PendingSave) -> None:
        raise error("of the test")

    gate = rig.slow.gate("put")
    pending = rig.store.save("c", values(1), label="best", wait=False)
    calls = Calls()
    pending.add_done_callback(broken)
    pending.add_done_callback(calls)
    gate.open()
    calls.once_with(pending)
    assert pending.result(10) is not None
    rig.store.save("c", values(2))
    assert rig.seeds() == [2, 1]
    (record,) = [one for one in caplog.records if "a callback of the save of c best failed" in one.message]
    assert record.exc_info is not None
    assert record.exc_info[0] is error


def test_a_callback_that_calls_the_store_is_told_that_it_would_wait_for_itself(rig: Blocking) -> None:
    caught: list[BaseException] = []
    done = threading.Event()

    def call(pending: PendingSave) -> None:
        assert pending.result() is not None  # known by now
        try:
            rig.store.latest("c")
        except WrongThreadError as exc:
            caught.append(exc)
        done.set()

    rig.store.save("c", values(1), wait=False).add_done_callback(call)
    assert done.wait(10)
    assert len(caught) == 1


def test_a_callback_after_the_end_of_the_store_is_called_at_once(tmp_path: Path) -> None:
    rig = Blocking(tmp_path)
    pending = rig.store.save("c", values(1), wait=False)
    rig.store.close()
    calls = Calls()
    pending.add_done_callback(calls)
    calls.once_with(pending, threading.current_thread().name)


def test_the_asynchronous_twin_calls_back_on_its_loop(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Storage("memory", tmp_path).open()
        pending = await store.save("c", values(1), wait=False)
        seen: list[AsyncPendingSave] = []
        pending.add_done_callback(seen.append)
        assert seen == []
        await pending.committed
        assert seen == [pending]
        pending.add_done_callback(seen.append)
        assert seen == [pending]  # soon, not inside this call
        await asyncio.sleep(0)
        assert seen == [pending, pending]
        await store.aclose()

    asyncio.run(main())
