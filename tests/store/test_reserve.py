"""Memory made ready before the first background save asks for it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import numpy as np
import pytest

from ckptstore import AsyncCheckpointStore, CheckpointStore, _memory
from ckptstore._memory import Arena
from ckptstore.errors import ConfigError, StoreClosedError

MIB = 1 << 20


@pytest.fixture
def allocated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the large pieces of memory that were asked for."""
    sizes: list[int] = []
    allocate = _memory.allocate

    def counted(nbytes: int) -> memoryview:
        sizes.append(nbytes)
        return allocate(nbytes)

    monkeypatch.setattr(_memory, "allocate", counted)
    return sizes


def state(n_arrays: int, nbytes: int) -> dict[str, Any]:
    return {f"array{i}": np.full(nbytes, i, "u1") for i in range(n_arrays)}


def test_a_background_save_takes_what_was_reserved_and_asks_for_no_more(
    store: Any, allocated: list[int]
) -> None:
    values = state(5, MIB // 4 + 1)
    store.reserve(5 * (MIB // 4 + 1))
    assert len(allocated) == 1
    for seed in range(2):
        values["array0"][:] = seed
        saved = store.save("c", values, wait=False)
        loaded = store.load(store.committed(saved))
        assert all(np.array_equal(loaded[name], values[name]) for name in values)
    assert not [nbytes for nbytes in allocated if nbytes >= Arena._SEGMENT]


def test_a_reservation_outlives_small_saves_and_is_kept_after_its_use() -> None:
    arena = Arena()
    arena.reserve(4 * MIB)
    kept = arena.nbytes
    arena.reset()
    assert arena.nbytes == kept
    arena.take(3 * MIB)
    arena.reset()
    assert arena.nbytes == kept
    arena.reset()
    assert arena.nbytes == 0


def test_what_is_there_already_is_not_reserved_again(allocated: list[int]) -> None:
    arena = Arena()
    arena.reserve(10 * MIB)
    arena.reserve(5 * MIB)
    arena.reserve(10 * MIB)
    assert len(allocated) == 1
    arena.reserve(20 * MIB)
    assert arena.nbytes >= 20 * MIB
    assert sum(allocated) < 23 * MIB


def test_reserved_memory_is_touched_in_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "allocate", lambda nbytes: memoryview(bytearray(b"x" * nbytes)))
    arena = Arena()
    arena.reserve(9 * MIB)
    taken = arena.take(9 * MIB)
    assert bytes(taken) == bytes(9 * MIB)


def test_what_is_no_number_of_bytes_is_refused(store: Any) -> None:
    for nbytes in (-1, 1.5, True, "1 GiB", None, 1 << 60):
        with pytest.raises(ConfigError, match="nbytes"):
            store.reserve(nbytes)


def held(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Have a reservation wait at its first step: (it has begun, let it go on)."""
    begun, go_on = threading.Event(), threading.Event()
    touch = _memory.touch

    def waiting(memory: memoryview, *rest: Any) -> None:
        begun.set()
        assert go_on.wait(60)
        touch(memory, *rest)

    monkeypatch.setattr(_memory, "touch", waiting)
    return begun, go_on


def test_saves_and_captures_do_not_wait_for_a_reservation(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = held(monkeypatch)
    with CheckpointStore.open("memory://reserving") as store:
        store.reserve(2 * MIB, wait=False)
        assert begun.wait(60)
        store.save("c", state(1, MIB), wait=False).committed.result(60)
        store.capture("c", state(1, MIB)).save()
        assert len(list(store.list("c"))) == 2
        go_on.set()


def test_what_is_being_reserved_is_not_reserved_again(
    monkeypatch: pytest.MonkeyPatch, allocated: list[int]
) -> None:
    """A loop asks twice, and the second time the first may still be at it."""
    begun, go_on = held(monkeypatch)
    arena = Arena()
    first = threading.Thread(target=arena.reserve, args=(10 * MIB,))
    first.start()
    assert begun.wait(60)
    arena.reserve(8 * MIB)
    go_on.set()
    arena.reserve(20 * MIB)
    first.join(60)
    assert sum(allocated) < 23 * MIB
    assert arena.nbytes == sum(allocated)


def test_a_store_that_is_closed_meanwhile_keeps_no_memory(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    begun, go_on = held(monkeypatch)

    async def main() -> None:
        store = await AsyncCheckpointStore.open("memory://closing")
        await store.reserve(2 * MIB, wait=False)
        await asyncio.to_thread(begun.wait, 60)
        asyncio.get_running_loop().call_later(0.0, go_on.set)
        await store.aclose()
        assert store._saves._arena.nbytes == 0
        with pytest.raises(StoreClosedError):
            await store.reserve(1)

    run(main())


def test_memory_that_is_not_there_is_told_to_who_waits_and_logged_to_who_does_not(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, run: Any
) -> None:
    def none_left(nbytes: int) -> memoryview:
        raise MemoryError("none left")

    async def main() -> None:
        store = await AsyncCheckpointStore.open("memory://full")
        monkeypatch.setattr(_memory, "allocate", none_left)
        with pytest.raises(MemoryError, match="none left"):
            await store.reserve(2 * MIB)
        await store.reserve(2 * MIB, wait=False)
        await store.aclose()

    with caplog.at_level(logging.WARNING, "ckptstore"):
        run(main())
    assert "none left" in caplog.text
