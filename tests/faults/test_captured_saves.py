"""Captures while the storage is slow or fails: nothing is waited for, nothing is left."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from rig import Blocking, Faulty, Storage, everything, is_values, nothing_is_left, values
from test_commit import MAX_SAVE_S, SetClock

from ckptstore import _commit
from ckptstore.backends.base import Backend, Buffer
from ckptstore.errors import AccessDeniedError, SaveCancelledError, StoreClosedError, StoreFullError
from ckptstore.testing import Fault, SlowBackend

MANIFEST = "manifests/c/f"  # not the collection's marker


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commit, "_BACKOFF_S", (0.0, 0.0))


def test_a_capture_does_not_wait_for_the_save_in_flight(
    rig: Blocking, aside: Callable[..., Future[Any]]
) -> None:
    gate = rig.slow.gate("put", "chunks/")
    pending = rig.store.save("c", values(1), wait=False)
    gate.wait_arrived()
    captured = rig.store.capture("c", values(2))
    saving = aside(captured.save)
    rig.turns()
    assert not saving.done()  # it has its turn behind the other
    gate.open()
    first, second = pending.result(10), saving.result(10)
    assert (first.epoch, first.seq + 1) == (second.epoch, second.seq)
    assert rig.seeds() == [2, 1]
    rig.nothing_is_left()


def test_a_capture_does_not_wait_for_busy_workers(tmp_path: Path) -> None:
    """All threads of the store may be stuck in writes to a dead disk."""

    async def main() -> None:
        stuck, release = threading.Event(), threading.Event()

        def wrap(inner: Backend) -> Backend:
            put = inner.put_in_worker
            assert put is not None

            def slow(key: str, data: Buffer) -> None:
                stuck.set()
                assert release.wait(10)
                put(key, data)

            inner.put_in_worker = slow
            return inner

        store = await Storage("memory", tmp_path).open(wrap)
        try:
            pending = await store.save("c", values(1), wait=False)
            await asyncio.get_running_loop().run_in_executor(None, stuck.wait, 10)
            captured = await asyncio.wait_for(store.capture("c", values(2)), 5)
        finally:
            release.set()
        await pending.committed
        assert is_values(await store.load(await captured.save()), 2)
        await store.aclose()

    asyncio.run(main())


def test_a_captured_save_that_fails_raises_the_same_again_and_gives_its_memory_back(rig: Blocking) -> None:
    captured = rig.store.capture("c", values(1))
    rig.faulty.arm(Fault(verb="put", error=lambda: StoreFullError("the disk is full"), times=None))
    for _ in range(2):
        with pytest.raises(StoreFullError, match="full"):
            captured.save()
    rig.faulty.arm()
    captures = rig.store._store._saves.captures
    rig.turns()
    assert len(captures._arenas) == 1
    rig.store.save("c", values(2))  # nobody else is told of it
    assert rig.seeds() == [2]
    rig.nothing_is_left()


def test_a_captured_save_does_not_take_an_earlier_failure_for_its_own(rig: Blocking) -> None:
    rig.faulty.arm(Fault(verb="put", error=lambda: AccessDeniedError("no")))
    pending = rig.store.save("c", values(1), wait=False)
    captured = rig.store.capture("c", values(2))
    while not pending.done():
        rig.turns()
    assert is_values(rig.store.load(captured.save()), 2)
    with pytest.raises(AccessDeniedError):
        rig.store.save("c", values(3))
    assert rig.seeds() == [2]


def test_the_time_of_a_captured_save_counts_from_its_save(tmp_path: Path) -> None:
    async def main() -> None:
        clock = SetClock()
        storage = Storage("memory", tmp_path)

        def wrap(inner: Any) -> Backend:
            inner._clock = clock.wall_s
            return inner  # type: ignore[no-any-return]

        store = await storage.open(wrap, clock=clock)
        captured = await store.capture("c", values(1))
        clock.advance("both", 3 * MAX_SAVE_S)
        assert is_values(await store.load(await captured.save()), 1)
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("waits", [False, True])
def test_a_captured_save_cancelled_before_its_commit_never_was(tmp_path: Path, waits: bool) -> None:
    async def main() -> None:
        storage = Storage("memory", tmp_path)
        slow: list[SlowBackend] = []

        def wrap(inner: Backend) -> Backend:
            slow.append(SlowBackend(inner))
            return slow[0]

        store = await storage.open(wrap)
        await store.save("c", values(0))
        before = storage.keys()
        captured = await store.capture("c", values(1))
        gate = slow[0].gate("put", "chunks/")
        other = asyncio.ensure_future(store.save("c", values(0) | {"x": values(7)})) if waits else None
        if other:
            await gate.until_arrived()
        saving = [asyncio.ensure_future(captured.save()) for _ in range(2)]
        if other:
            await asyncio.sleep(0)
        else:
            await gate.until_arrived()
        saving[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving[0]
        with pytest.raises(SaveCancelledError):
            await saving[1]
        with pytest.raises(SaveCancelledError):
            await captured.save()
        gate.open()
        if other:
            await other
        else:
            assert storage.keys() == before
        assert len(store._saves.captures._arenas) == 1
        nothing_is_left(store)
        await store.aclose()

    asyncio.run(main())


def test_a_captured_save_cancelled_in_its_commit_ends_as_it_ends(tmp_path: Path) -> None:
    async def main() -> None:
        storage = Storage("memory", tmp_path)
        slow: list[SlowBackend] = []

        def wrap(inner: Backend) -> Backend:
            slow.append(SlowBackend(inner))
            return slow[0]

        store = await storage.open(wrap)
        captured = await store.capture("c", values(1))
        gate = slow[0].gate("put", MANIFEST)
        saving = asyncio.ensure_future(captured.save())
        await gate.until_arrived()
        saving.cancel()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await saving
        saved = await captured.save()
        assert [found.ref async for found in store.list("c")] == [saved.ref]
        nothing_is_left(store)
        await store.aclose()

    asyncio.run(main())


def test_closing_waits_for_a_captured_save_under_way(
    rig: Blocking, aside: Callable[..., Future[Any]]
) -> None:
    gate = rig.slow.gate("put", "chunks/")
    captured, left = rig.store.capture("c", values(1)), rig.store.capture("c", values(2))
    saving = aside(captured.save)
    gate.wait_arrived()
    closing = aside(rig.store.close)
    gate.open()
    assert saving.result(10).seq == 0
    closing.result(10)
    with pytest.raises(StoreClosedError):
        left.save()
    left.discard()
    assert rig.seeds() == [1]


def test_a_store_closed_during_a_capture_refuses_it(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Storage("memory", tmp_path).open(Faulty)
        capturing = asyncio.ensure_future(store.capture("c", values(1)))
        await asyncio.sleep(0)
        await store.aclose()
        with pytest.raises(StoreClosedError):
            await capturing
        assert store._saves.captures._arenas == []

    asyncio.run(main())


def test_a_capture_leaves_other_saves_as_they_are(rig: Blocking) -> None:
    given = values(1)
    captured = rig.store.capture("c", given)
    pending = rig.store.save("c", given, wait=False)
    given["other"][:] = 0
    captured.discard()
    assert rig.store.capture("c", given).raw_bytes == captured.raw_bytes
    pending.result(10)
    assert rig.seeds() == [1]
    assert asyncio.run(everything(rig.storage))
