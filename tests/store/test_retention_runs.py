"""Retention after saves: when it runs, what it asks of the storage, and whom it holds up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

import pytest

from ckptstore import AsyncCheckpointStore, Keep, StoreConfig, best, last, max_age
from ckptstore._retention import Wish
from ckptstore.backends.base import Backend
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import AccessDeniedError
from ckptstore.testing import Fault, FaultyBackend, RecordingBackend, SlowBackend

COLLECTION = "manifests/c/"


class Rig:
    """A store over a storage that can be slow, can fail, and is recorded."""

    def __init__(self) -> None:
        self.space: dict[str, tuple[bytes, float]] = {}
        self.faulty = FaultyBackend(MemoryBackend(self.space))
        self.slow = SlowBackend(self.faulty)
        self.backend = RecordingBackend(self.slow)

    async def open(self, **options: Any) -> AsyncCheckpointStore:
        async def opened(executor: Executor) -> Backend:
            return self.backend

        return await AsyncCheckpointStore.open(opened, config=StoreConfig(**options))

    def requests(self) -> list[str]:
        """Return what was asked for since the last time, as verb and kind of key."""
        asked, self.backend.requests = self.backend.requests, []
        return [f"{one.verb} {kind(one.key)}" for one in asked]

    def arm(self, fault: Fault) -> None:
        """Fail as this says from now on."""
        self.faulty._faults, self.faulty._seen = (fault,), [0]

    def visible(self) -> int:
        names = {key for key in self.space if kind(key) == "manifest"}
        return sum(f"{name}.x" not in self.space for name in names)


def kind(key: str) -> str:
    if not key.startswith("manifests/"):
        return key.partition("/")[0]
    name = key.rpartition("/")[2]
    return {"": "collection", "-collection": "marker"}.get(name, name[-2:] if "." in name else "manifest")


def run(scenario: Callable[[Rig, AsyncCheckpointStore], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        rig = Rig()
        async with await rig.open(**options) as store:
            await scenario(rig, store)

    asyncio.run(main())


async def save(store: AsyncCheckpointStore, n: int, keep: Keep | None = None, **options: Any) -> Any:
    metadata = {"n": n, "loss": abs(n - 2.5)}
    return await store.save("c", {"n": n}, metadata=metadata, keep=keep, **options)


async def shown(store: AsyncCheckpointStore) -> list[int]:
    return [found.metadata["n"] async for found in store.list("c")]


async def settled(store: AsyncCheckpointStore) -> None:
    await store.inspect("c")  # looks, and so waits


@pytest.mark.parametrize("keep", [last(3), last(3) | best("n", 1), best("n", 2) | last(1)])
def test_a_steady_policy_costs_a_listing_and_a_tombstone_with_a_look_for_a_pin(keep: Keep) -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(6):
            await save(store, n, keep)
            await settled(store)
        rig.requests()
        pending = await save(store, 6, keep, wait=False)
        await pending.committed
        await store._saves.settled()
        assert rig.requests() == ["put manifest", "list collection", "head .k", "put .x"]

    run(scenario)


def test_nothing_is_listed_or_deleted_before_the_new_one_is_durable() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(3):
            await save(store, n)
        rig.requests()
        gate = rig.slow.gate("put", f"{COLLECTION}f")
        pending = await save(store, 3, last(1), wait=False)
        await gate.until_arrived()
        for _ in range(50):
            await asyncio.sleep(0)
        assert rig.requests() == []
        gate.open()
        await pending.committed
        assert await shown(store) == [3]
        asked = rig.requests()
        assert asked.index("put manifest") < asked.index("list collection") < asked.index("put .x")

    run(scenario)


def test_a_save_that_fails_deletes_nothing() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(3):
            await save(store, n)
        rig.requests()
        rig.arm(Fault(verb="put", error=lambda: AccessDeniedError("the test's fault")))
        with pytest.raises(AccessDeniedError):
            await save(store, 3, last(1))
        await store._saves.settled()
        assert "list collection" not in rig.requests()
        assert await shown(store) == [2, 1, 0]

    run(scenario)


def test_what_another_writer_saved_is_read_once() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(4):
            await save(store, n)
        async with await rig.open() as second:
            await save(second, 4, best("loss", 3))
            rig.requests()
            await settled(second)
            assert rig.requests().count("get manifest") == 2  # latest and inspect: all is known by now
            await save(second, 5, best("loss", 3))
            await second._saves.settled()
            assert "get manifest" not in rig.requests()
            assert sorted(await shown(second)) == [2, 3, 4, 5] or sorted(await shown(second)) == [1, 2, 3, 5]

    run(scenario)


def test_retention_holds_up_neither_its_save_nor_the_next() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        await save(store, 0)
        gate = rig.slow.gate("list", COLLECTION)
        for n in range(1, 6):
            await save(store, n, last(1))
        await gate.until_arrived()
        assert gate.arrived == 1
        assert rig.visible() == 6
        looking = asyncio.ensure_future(shown(store))
        for _ in range(50):
            await asyncio.sleep(0)
        assert not looking.done()
        gate.open()
        assert await looking == [5]
        # One run was held, those of four saves became one, and then somebody looked.
        assert gate.arrived == 3

    run(scenario)


def test_closing_waits_for_retention() -> None:
    async def main() -> None:
        rig = Rig()
        store = await rig.open()
        for n in range(4):
            await save(store, n)
        gate = rig.slow.gate("put", COLLECTION)
        gate.open()
        listing = rig.slow.gate("list", COLLECTION)
        await save(store, 4, last(2))
        closing = asyncio.ensure_future(store.aclose())
        await listing.until_arrived()
        assert not closing.done()
        listing.open()
        await closing
        assert rig.visible() == 2

    asyncio.run(main())


def test_a_failed_retention_is_a_warning_and_the_next_save_tries_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(3):
            await save(store, n)
        rig.arm(Fault(verb="list", prefix=COLLECTION))
        await save(store, 3, last(1))
        await store._saves.settled()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "'c'" in record.message
        assert "the test's fault" in record.message
        assert await shown(store) == [3, 2, 1, 0]
        await save(store, 4, last(1))
        assert await shown(store) == [4]
        assert len(caplog.records) == 1

    run(scenario)


def test_summaries_are_read_some_at_once_and_no_more_than_memory_allows() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(12):
            await save(store, n)
        gate = rig.slow.gate("get", COLLECTION)
        retaining = asyncio.ensure_future(store.retain("c", best("loss", 1)))
        await gate.until_arrived(3)
        for _ in range(50):
            await asyncio.sleep(0)
        assert gate.arrived == 3
        gate.open()
        assert len(await retaining) == 10

    run(scenario, io_concurrency=8, memory_bytes=3 << 18)
    run(scenario, io_concurrency=3)


def test_a_policy_that_needs_no_metadata_reads_none() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(5):
            await save(store, n)
        rig.requests()
        await save(store, 5, last(2) | max_age(1e-6))
        await store._saves.settled()
        asked = rig.requests()
        assert asked[:2] == ["put manifest", "list collection"]
        assert sorted(asked[2:]) == ["head .k"] * 4 + ["put .x"] * 4

    run(scenario)


def test_a_dry_run_asks_for_no_write() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(4):
            await save(store, n)
        rig.requests()
        await store.retain("c", last(1), dry_run=True)
        assert not [asked for asked in rig.requests() if asked.startswith(("put", "delete"))]

    run(scenario)


def test_runs_of_other_writers_in_one_store_object_each_have_their_turn() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        gate = rig.slow.gate("list", COLLECTION)
        gate.open()
        await save(store, 0)
        gate.close()
        for n in range(1, 5):
            for name in ("a", "b"):
                await save(store, n, last(1), run=name)
        gate.open()
        assert await shown(store) == [4, 4, 0]

    run(scenario)


def test_a_wish_that_comes_when_the_runs_are_about_to_end_is_carried_out() -> None:
    async def scenario(rig: Rig, store: AsyncCheckpointStore) -> None:
        for n in range(3):
            await save(store, n)
        runs = store._saves._runs
        first, second = (Wish(collection="c", keep=last(n), own=None) for n in (2, 1))
        runs.start(first)
        (ended,) = runs._ends
        # Called after the work has looked for more, before it is told that it has ended.
        ended.add_done_callback(lambda _: runs.start(second))
        await runs.settled()
        await runs.settled()
        assert await shown(store) == [2]

    run(scenario)
