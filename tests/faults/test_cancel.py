"""A save that is cancelled: before its commit it never was, in its commit it ends as it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest
from rig import CONFIG, Storage, everything, is_values, nothing_is_left, values

from ckptstore import AsyncCheckpointStore, _writer
from ckptstore.backends.base import Backend
from ckptstore.errors import CommitUnknownError, SaveCancelledError, StoreClosedError
from ckptstore.testing import SlowBackend

MANIFEST = "manifests/c/f"  # not the collection's marker


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.param, tmp_path / "store")


async def seeds(storage: Storage) -> list[int]:
    found = await everything(storage)
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    return [loaded["seed"] for _, loaded in found]


def slow_store(storage: Storage) -> Any:
    async def opened() -> tuple[AsyncCheckpointStore, SlowBackend]:
        backends: list[SlowBackend] = []

        def wrap(inner: Backend) -> Backend:
            backends.append(SlowBackend(inner))
            return backends[0]

        store = await storage.open(wrap, config=CONFIG)
        await store.save("c", values(0))
        return store, backends[0]

    return opened()


def test_a_background_save_cancelled_in_its_commit_ends_as_it_ends(storage: Storage) -> None:
    async def main() -> None:
        store, slow = await slow_store(storage)
        gate = slow.gate("put", MANIFEST)
        pending = await store.save("c", values(1), wait=False)
        await gate.until_arrived()
        pending.cancel()
        pending.cancel()
        gate.open()
        try:
            saved = await pending.committed
            assert (await store.latest("c")).ref == saved.ref  # type: ignore[union-attr]
            nothing_is_left(store)
        finally:
            await store.aclose()
        assert await seeds(storage) == [1, 0]

    asyncio.run(main())


def test_a_save_cancelled_in_its_commit_is_finished_and_the_cancellation_goes_on(storage: Storage) -> None:
    async def main() -> None:
        store, slow = await slow_store(storage)
        gate = slow.gate("put", MANIFEST)
        task = asyncio.ensure_future(store.save("c", values(1)))
        await gate.until_arrived()
        task.cancel()
        asyncio.get_running_loop().call_soon(gate.open)
        with pytest.raises(asyncio.CancelledError):
            await task
        nothing_is_left(store)
        assert (await store.save("c", values(1))).sizes.new_bytes < 1000  # it reuses what was committed
        await store.aclose()
        assert await seeds(storage) == [1, 1, 0]

    asyncio.run(main())


def test_a_commit_given_up_after_the_grace_is_unknown_not_cancelled(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_writer, "_COMMIT_GRACE_S", 0.01)

    async def main() -> None:
        store, slow = await slow_store(storage)
        chunks = len(storage.chunks())
        gate = slow.gate("put", MANIFEST)
        pending = await store.save("c", values(1), wait=False)
        await gate.until_arrived()
        pending.cancel()
        with pytest.raises(CommitUnknownError, match="manifests/c/f"):
            await pending.committed
        gate.open()
        nothing_is_left(store)
        assert len(storage.chunks()) > chunks
        await store.aclose()
        assert await seeds(storage) == [0]

    asyncio.run(main())


def test_without_the_shield_a_cancelled_commit_is_seen_to_be_lost_but_nothing_is_torn(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def unshielded(awaitable: Awaitable[Any], grace_s: float) -> Any:
        return await awaitable

    monkeypatch.setattr(_writer, "shielded", unshielded)
    with pytest.raises(CommitUnknownError):
        test_a_background_save_cancelled_in_its_commit_ends_as_it_ends(storage)
    assert asyncio.run(seeds(storage)) == [0]


def test_a_cancelled_background_save_says_so_and_leaves_nothing(storage: Storage) -> None:
    async def main() -> None:
        store, slow = await slow_store(storage)
        chunks = storage.chunks()
        gate = slow.gate("put", "chunks/")
        pending = await store.save("c", values(1), wait=False)
        await gate.until_arrived()
        pending.cancel()
        with pytest.raises(SaveCancelledError):
            await pending.committed
        nothing_is_left(store)
        assert storage.chunks() == chunks
        gate.open()
        await store.save("c", values(2))  # a cancellation that was asked for is no failure to raise
        await store.aclose()
        assert await seeds(storage) == [2, 0]

    asyncio.run(main())


def test_a_close_that_is_cancelled_cancels_the_save_and_still_closes(storage: Storage) -> None:
    async def main() -> None:
        store, slow = await slow_store(storage)
        chunks = storage.chunks()
        gate = slow.gate("put", "chunks/")
        pending = await store.save("c", values(1), wait=False)
        await gate.until_arrived()
        closing = asyncio.ensure_future(store.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        nothing_is_left(store)
        with pytest.raises(SaveCancelledError):
            await pending.committed
        with pytest.raises(StoreClosedError):
            await store.load("c")
        assert storage.chunks() == chunks
        assert await seeds(storage) == [0]

    asyncio.run(main())


@pytest.mark.parametrize("verb", ["get", "list"])
def test_a_load_that_a_close_overtakes_says_that_the_store_is_closed(storage: Storage, verb: Any) -> None:
    async def main() -> None:
        store, slow = await slow_store(storage)
        gate = slow.gate(verb)
        loading = asyncio.ensure_future(store.load("c"))
        await gate.until_arrived()
        await store.aclose()
        gate.open()
        with pytest.raises(StoreClosedError):
            await loading
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


def test_close_waits_for_a_save_of_another_task(storage: Storage) -> None:
    async def main() -> None:
        store, slow = await slow_store(storage)
        gate = slow.gate("put", "chunks/")
        saving = asyncio.ensure_future(store.save("c", values(1)))
        await gate.until_arrived()
        closing = asyncio.ensure_future(store.aclose())
        await asyncio.sleep(0)
        gate.open()
        await closing
        assert saving.done()
        assert (await saving).ref == (await everything(storage))[0][0].ref

    asyncio.run(main())
