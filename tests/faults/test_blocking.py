"""The blocking store: background saves that fail, wait or are given up, interrupts, threads and other loops."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rig import Blocking, is_values, values

from ckptstore.errors import (
    BusyError,
    SaveCancelledError,
    StoreFullError,
    UnavailableError,
)
from ckptstore.testing import Fault

FULL = Fault(
    verb="put", prefix="chunks/", error=lambda: StoreFullError("the test's disk is full"), times=None
)


def fail_in_the_background(rig: Blocking) -> Any:
    rig.faulty.arm(FULL)
    pending = rig.store.save("c", values(1), wait=False)
    while not pending.done():
        rig.turns()
    rig.faulty.arm()
    return pending


def test_a_background_failure_is_logged_once_and_raised_by_the_next_save_once(
    rig: Blocking, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ckptstore"):
        fail_in_the_background(rig)
        with pytest.raises(StoreFullError, match="the test's disk"):
            rig.store.save("c", values(2))
        rig.store.save("c", values(3))
        rig.store.close()
    assert [record.getMessage() for record in caplog.records if "disk is full" in record.getMessage()] == [
        "a background save failed: the test's disk is full"
    ]
    assert rig.seeds() == [3]


def test_a_background_failure_is_raised_by_the_save_that_waited_for_it(rig: Blocking, aside: Any) -> None:
    gate = rig.slow.gate("put", "chunks/")
    rig.faulty.arm(FULL)
    rig.store.save("c", values(1), wait=False)
    gate.wait_arrived()
    second = aside(rig.store.save, "c", values(2))
    rig.turns()
    gate.open()
    with pytest.raises(StoreFullError):
        second.result(10)
    rig.faulty.arm()
    rig.store.save("c", values(3))
    assert rig.seeds() == [3]


def test_a_background_failure_is_raised_by_close_once(rig: Blocking) -> None:
    fail_in_the_background(rig)
    with pytest.raises(StoreFullError):
        rig.store.close()
    rig.store.close()


def test_a_background_failure_that_was_told_is_not_raised_again(rig: Blocking) -> None:
    pending = fail_in_the_background(rig)
    with pytest.raises(StoreFullError):
        pending.result(10)
    rig.store.save("c", values(2))
    rig.store.close()


def test_leaving_the_block_does_not_hide_what_went_wrong_inside(
    rig: Blocking, caplog: pytest.LogCaptureFixture
) -> None:
    def body() -> None:
        with rig.store:
            fail_in_the_background(rig)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        body()
    assert "while closing the store: the test's disk is full" in caplog.text


def test_leaving_the_block_raises_what_failed_in_the_background(rig: Blocking) -> None:
    with pytest.raises(StoreFullError), rig.store:
        fail_in_the_background(rig)


def test_waiting_for_a_result_ends_in_time_and_the_save_goes_on(rig: Blocking) -> None:
    gate = rig.slow.gate("put", "chunks/")
    pending = rig.store.save("c", values(1), wait=False)
    assert pending.captured.done()
    assert pending.captured.result() is None
    for wait in (pending.result, pending.committed.result):
        with pytest.raises(TimeoutError):
            wait(0.01)
    assert not pending.done()
    gate.open()
    saved = pending.result(10)
    assert pending.done()
    assert saved == rig.store.latest("c")
    assert pending.progress.raw_bytes_done == pending.progress.raw_bytes_total > 0


def test_a_background_save_can_be_cancelled(rig: Blocking) -> None:
    gate = rig.slow.gate("put", "chunks/")
    pending = rig.store.save("c", values(1), wait=False)
    gate.wait_arrived()
    pending.cancel()
    with pytest.raises(SaveCancelledError, match="nothing was stored"):
        pending.result(10)
    gate.open()
    rig.nothing_is_left()
    assert rig.storage.chunks() == []
    rig.store.save("c", values(2))
    pending.cancel()  # too late, and no harm
    assert rig.seeds() == [2]


def test_a_busy_store_waits_skips_or_refuses(tmp_path: Path, aside: Any) -> None:
    for on_busy in ("wait", "skip", "error"):
        rig = Blocking(tmp_path, on_busy=on_busy)
        gate = rig.slow.gate("put", "chunks/")
        first = rig.store.save("c", values(1), wait=False)
        assert not first.skipped
        gate.wait_arrived()
        if on_busy == "error":
            for wait in (True, False):
                with pytest.raises(BusyError):
                    rig.store.save("c", values(2), wait=wait)
            gate.open()
        elif on_busy == "skip":
            second = rig.store.save("c", values(2), wait=False)
            assert second.skipped
            assert second.result(0) is None
            gate.open()
        else:
            second = aside(rig.store.save, "c", values(2), wait=False)
            rig.turns()
            assert not second.done()
            gate.open()
            assert second.result(10).result(10).seq == 1
        first.result(10)
        rig.store.close()
        assert rig.seeds() == ([2, 1] if on_busy == "wait" else [1])


@pytest.mark.parametrize("question", ["list", "latest", "load", "inspect", "delete"])
def test_questions_wait_for_what_is_in_flight(rig: Blocking, aside: Any, question: str) -> None:
    rig.store.save("c", values(0))
    gate = rig.slow.gate("put", "chunks/")
    pending = rig.store.save("c", values(1), wait=False)
    gate.wait_arrived()
    ask = getattr(rig.store, question)
    asked = aside(lambda: list(ask("c")) if question == "list" else ask("c"))
    rig.turns()
    assert not asked.done()
    gate.open()
    answer = asked.result(10)
    saved = pending.result(10)
    if question == "list":
        assert answer[0] == saved
    elif question == "latest":
        assert answer == saved
    elif question == "load":
        assert is_values(answer, 1)
    elif question == "inspect":
        assert answer.checkpoint == saved
    else:
        assert rig.seeds() == [0]


def test_what_changes_after_a_background_save_returned_is_stored_as_it_was(rig: Blocking) -> None:
    gate = rig.slow.gate("put", "chunks/")
    array, small, block = np.arange(5000.0), np.arange(3), bytearray(b"x" * 9000)
    tree: dict[str, Any] = {"list": [1, 2], "deep": {"a": 1}}
    pending = rig.store.save("c", {"array": array, "small": small, "block": block, "tree": tree}, wait=False)
    array[:], small[:] = -1, -1
    block[:] = b"y" * 9000
    tree["list"].append(3)
    tree["deep"].clear()
    gate.open()
    loaded = rig.store.load(pending.result(10))
    np.testing.assert_array_equal(loaded["array"], np.arange(5000.0))
    np.testing.assert_array_equal(loaded["small"], np.arange(3))
    assert loaded["block"] == b"x" * 9000
    assert loaded["tree"] == {"list": [1, 2], "deep": {"a": 1}}


@pytest.mark.torch
def test_a_tensor_that_changes_after_a_background_save_is_stored_as_it_was(rig: Blocking) -> None:
    torch = pytest.importorskip("torch")
    gate = rig.slow.gate("put", "chunks/")
    layer = torch.nn.Linear(100, 100)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    pending = rig.store.save("c", {"model": layer.state_dict()}, wait=False)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    gate.open()
    loaded = rig.store.load(pending.result(10))["model"]
    assert all(torch.equal(loaded[name], before[name]) for name in before)


def test_an_unavailable_storage_in_the_background_keeps_its_class(rig: Blocking) -> None:
    rig.faulty.arm(Fault(verb="put", prefix="chunks/", times=None))
    pending = rig.store.save("c", values(1), wait=False)
    with pytest.raises(UnavailableError):
        pending.result(10)
