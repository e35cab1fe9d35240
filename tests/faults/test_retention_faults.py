"""Retention that fails anywhere, is lied to or comes late: more is kept than the policy says, never less."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rig import Cancelling, Faulty, Storage, everything, nothing_is_left

from ckptstore import AsyncCheckpointStore, Checkpoint, _commit, best, every, last
from ckptstore._keys import MANIFESTS, PIN, TOMBSTONE, parse_name
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.errors import (
    AccessDeniedError,
    BackendProtocolError,
    CheckpointStoreError,
    StoreFullError,
    UnavailableError,
)
from ckptstore.testing import Fault, FaultyBackend

KEEP = last(2) | best("n", 1) | every(4)
N_BEFORE = 9
KEPT = {0, 3, 4, 8}
"""Of the checkpoints 0 to 8: the last two (with 9 to come, 8 and 9), the best, each fourth, and the pinned 3."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commit, "_BACKOFF_S", (0.0, 0.0))


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.param, tmp_path / "store")


async def fill(store: AsyncCheckpointStore, numbers: Iterable[int], **options: Any) -> list[Checkpoint]:
    return [await store.save("c", {"n": n}, metadata={"n": n}, **options) for n in numbers]


async def prepared(storage: Storage) -> None:
    store = await storage.open()
    saved = await fill(store, range(N_BEFORE))
    await store.pin(saved[3])
    await store.aclose()


async def visible(storage: Storage) -> list[int]:
    """List with a fresh store, and load all of it."""
    found = await everything(storage)
    assert all(loaded == {"n": checkpoint.metadata["n"]} for checkpoint, loaded in found)
    return [checkpoint.metadata["n"] for checkpoint, _ in found]


async def _retain(store: AsyncCheckpointStore) -> None:
    await store.retain("c", KEEP)


async def _save(store: AsyncCheckpointStore) -> None:
    await fill(store, [N_BEFORE], keep=KEEP)
    await store._saves.settled()


WAYS: dict[str, Callable[[Backend, int], Faulty]] = {
    "unavailable": lambda inner, nth: Faulty(inner, Fault(nth=nth)),
    "answer-lost": lambda inner, nth: Faulty(inner, Fault(nth=nth, when="after")),
    "refused": lambda inner, nth: Faulty(inner, Fault(nth=nth, error=lambda: AccessDeniedError("no"))),
    "full": lambda inner, nth: Faulty(inner, Fault(nth=nth, error=lambda: StoreFullError("no"))),
    "ever-after": lambda inner, nth: Faulty(inner, Fault(nth=nth, times=None)),
    "cancelled-inside": lambda inner, nth: Faulty(inner, Fault(nth=nth, error=asyncio.CancelledError)),
    "cancelled": lambda inner, nth: Cancelling(inner, nth, when="before"),
    "cancelled-after": lambda inner, nth: Cancelling(inner, nth, when="after"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", [_retain, _save])
def test_a_retention_that_fails_anywhere_keeps_too_much_and_can_be_repeated(
    tmp_path: Path, way: str, operation: Any
) -> None:
    base = Storage("memory", tmp_path / "base")

    async def strike(nth: int) -> bool:
        storage = base.copy(f"copy{nth}")
        backends: list[Faulty] = []

        def wrap(inner: Backend) -> Backend:
            backends.append(WAYS[way](inner, nth))
            return backends[0]

        store = await storage.open(wrap)
        task = asyncio.ensure_future(operation(store))
        if isinstance(backends[0], Cancelling):
            backends[0].victim = task
        with contextlib.suppress(CheckpointStoreError, asyncio.CancelledError):
            await task
        await store._saves.settled()
        nothing_is_left(store)
        left = await visible(storage)
        # Nothing but what the policy does not keep is gone, and never the newest or a pin.
        kept = KEPT | {7, 8} if operation is _retain or N_BEFORE not in left else KEPT | {9}
        assert kept <= set(left)
        fired = bool(backends[0].fired)
        if not fired:
            assert set(left) == kept
        backends[0].arm()
        if isinstance(backends[0], Cancelling):
            backends[0].victim = None
        await fill(store, [10], keep=KEEP)
        await store.aclose()
        assert {10, *KEPT - {8}} <= set(await visible(storage)) <= {10, 9, 8, *KEPT}
        return fired

    async def main() -> int:
        await prepared(base)
        nth = 2  # the first opens the store
        while await strike(nth):
            nth += 1
        return nth

    assert asyncio.run(main()) > 6


class Lying(FaultyBackend):
    """Lists what ``lie`` makes of the truth."""

    lie: Callable[[list[ObjectInfo]], list[ObjectInfo]] | None = None

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        found = [info async for info in self.inner.list(prefix, after=after)]
        for info in self.lie(found) if self.lie and prefix.startswith(MANIFESTS) else found:
            yield info


def is_manifest(info: ObjectInfo) -> bool:
    return parse_name(info.key.rpartition("/")[2]) is not None


def without(infos: list[ObjectInfo], hidden: Callable[[ObjectInfo], bool]) -> list[ObjectInfo]:
    return [info for info in infos if not hidden(info)]


def newest(infos: list[ObjectInfo]) -> str:
    return next(info.key for info in infos if is_manifest(info))


NOT_BELIEVED: dict[str, Callable[[list[ObjectInfo]], list[ObjectInfo]]] = {
    "empty": lambda infos: [],
    "only the marker": lambda infos: without(infos, lambda info: "-collection" not in info.key),
    "without the newest": lambda infos: without(infos, lambda info: info.key.startswith(newest(infos))),
    "cut off before it": lambda infos: infos[-3:],
    "out of order": lambda infos: infos[::-1],
    "twice": lambda infos: infos + infos,
    "of another prefix": lambda infos: [replace(info, key=info.key.replace("/c/", "/d/")) for info in infos],
}


@pytest.mark.parametrize("lie", NOT_BELIEVED)
@pytest.mark.parametrize("asked", [True, False])
def test_a_listing_that_contradicts_the_writer_deletes_nothing(
    storage: Storage, lie: str, asked: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        store = await storage.open(Lying)
        backend: Any = store._engine.backend
        await fill(store, range(4))
        backend.lie = NOT_BELIEVED[lie]
        if asked:
            with pytest.raises(BackendProtocolError):
                await store.retain("c", last(1))
        else:
            await fill(store, [4], keep=last(1))
            await store._saves.settled()
            assert "retention of collection 'c' failed" in caplog.text
        backend.lie = None
        await store.aclose()
        assert await visible(storage) == ([3, 2, 1, 0] if asked else [4, 3, 2, 1, 0])

    asyncio.run(main())


def test_a_listing_that_hides_a_tombstone_does_not_cost_the_newest(storage: Storage) -> None:
    async def main() -> None:
        writer = await storage.open()
        saved = await fill(writer, range(5))
        await writer.delete(saved[4])
        await writer.aclose()
        store = await storage.open(Lying)
        backend: Any = store._engine.backend
        backend.lie = lambda infos: without(infos, lambda info: info.key.endswith(TOMBSTONE))
        # What it calls the newest is deleted: nothing follows from such a listing.
        with pytest.raises(BackendProtocolError, match="lists as live what is deleted"):
            await store.retain("c", last(1))
        assert await visible(storage) == [3, 2, 1, 0]
        # After a save the newest is known without a look.
        await fill(store, [5], keep=last(1))
        await store.aclose()
        assert (await visible(storage))[0] == 5

    asyncio.run(main())


def test_a_listing_cut_off_at_its_end_deletes_less(storage: Storage) -> None:
    async def main() -> None:
        store = await storage.open(Lying)
        backend: Any = store._engine.backend
        await fill(store, range(6))
        backend.lie = lambda infos: infos[:4]
        deleted = await store.retain("c", last(1))
        assert 0 < len(deleted) < 5
        backend.lie = None
        await store.aclose()
        assert (await visible(storage))[0] == 5

    asyncio.run(main())


@pytest.mark.parametrize("run", [None, "same"])
def test_a_zombie_of_an_older_epoch_leaves_its_successor_alone(storage: Storage, run: str | None) -> None:
    async def main() -> None:
        zombie = await storage.open()
        await fill(zombie, [0, 1], run=run)
        successor = await storage.open()
        await fill(successor, [2, 3], run=run)
        await fill(zombie, [4], keep=last(1), run=run)
        await zombie.aclose()
        found = [checkpoint.metadata["n"] async for checkpoint in successor.list("c")]
        assert found[0] == 3
        assert set(found) == {3, 4}  # what the zombie has just saved is its own
        await fill(successor, [5], keep=last(1), run=run)
        await successor.aclose()
        assert await visible(storage) == [5]

    asyncio.run(main())


def test_two_writers_that_retain_at_once_keep_the_newest_of_each_run(storage: Storage) -> None:
    async def main() -> None:
        stores = [await storage.open() for _ in range(2)]

        async def write(which: int) -> None:
            for n in range(12):
                await fill(stores[which], [n], keep=last(2), run=str(which))

        await asyncio.gather(write(0), write(1))
        for store in stores:
            await store.aclose()
        found = await everything(storage)
        for name in ("0", "1"):
            assert [one.metadata["n"] for one, _ in found if one.run == name] == [11, 10]

    asyncio.run(main())


def test_a_pin_that_comes_too_late_says_so(storage: Storage) -> None:
    async def main() -> None:
        store = await storage.open()
        other = await storage.open()
        (old, *_) = await fill(store, range(3))
        backend = other._engine.backend
        put = backend.put

        async def late(key: str, data: Any, **options: Any) -> ObjectInfo:
            if key.endswith(PIN):
                await store.retain("c", last(1))
            return await put(key, data, **options)

        backend.put = late  # type: ignore[method-assign]
        with pytest.raises(CheckpointStoreError, match="was deleted"):
            await other.pin(old)
        await store.aclose()
        await other.aclose()

    asyncio.run(main())


def test_a_retention_of_a_store_that_is_cut_off_is_bounded_at_the_end(
    rig: Any, caplog: pytest.LogCaptureFixture
) -> None:
    for n in range(3):
        rig.store.save("c", {"n": n})
    gate = rig.slow.gate("list", "manifests/c/")
    rig.store.save("c", {"n": 3}, keep=last(1))
    gate.wait_arrived()
    # What the process's end does, with a time limit that is over at once.
    assert rig.store._loop.call(rig.store._store._saves.stop(0.0)) == []
    assert "retention of collection 'c' was cut short" in caplog.text
    rig.nothing_is_left()
    gate.open()
    rig.store.save("c", {"n": 4}, keep=last(1))
    assert [found.fields for found in rig.store.list("c")] == [("n",)]


def test_a_bug_in_retention_is_logged_and_fails_no_save(
    rig: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patched:
        patched.setattr("ckptstore._retention._candidate", broken)
        for n in range(3):
            rig.store.save("c", {"n": n}, keep=last(1))
            assert rig.store.load("c") == {"n": n}
    assert "retention of collection 'c' failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text
    rig.store.save("c", {"n": 3}, keep=last(1))
    assert len(list(rig.store.list("c"))) == 1


def test_an_unreachable_storage_raises_from_retain(storage: Storage) -> None:
    async def main() -> None:
        store = await storage.open(Faulty)
        backend: Any = store._engine.backend
        await fill(store, range(3))
        backend.arm(Fault(verb="list", times=None))
        with pytest.raises(UnavailableError):
            await store.retain("c", last(1))
        backend.arm()
        await store.aclose()
        assert await visible(storage) == [2, 1, 0]

    asyncio.run(main())
