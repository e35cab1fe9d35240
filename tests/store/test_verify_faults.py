"""Verification over a storage that fails: an error is raised, never taken for damage or for health."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore.backends.base import Backend
from ckptstore.backends.memory import MemoryBackend, MemorySpace
from ckptstore.errors import AccessDeniedError, BackendError, UnavailableError
from ckptstore.testing import Fault, FaultyBackend

CONFIG = StoreConfig(
    chunk_bytes=4096, inline_bytes=64, memory_bytes=32_768, encode_workers=1, io_concurrency=3
)


def values(seed: int) -> dict[str, Any]:
    return {"a": np.random.default_rng(seed).integers(0, 256, 20_000, dtype="uint8")}


async def opened(space: MemorySpace, *faults: Fault) -> tuple[AsyncCheckpointStore, FaultyBackend]:
    made: list[FaultyBackend] = []

    async def factory(_: object) -> Backend:
        made.append(FaultyBackend(MemoryBackend(space), *faults))
        return made[0]

    return await AsyncCheckpointStore.open(factory, config=CONFIG), made[0]


async def filled() -> MemorySpace:
    space: MemorySpace = {}
    store, _ = await opened(space)
    for seed in (1, 2):
        await store.save("c", values(seed))
    await store.save("d", {"n": 1})
    await store.aclose()
    return space


@pytest.mark.parametrize("error", [UnavailableError, AccessDeniedError])
def test_every_request_that_fails_is_raised(run: Callable[..., Any], error: Any) -> None:
    async def main() -> None:
        space = await filled()
        store, backend = await opened(space)
        before = backend.operations
        assert (await store.verify()).ok
        n_requests = backend.operations - before
        await store.aclose()
        assert n_requests > 12
        for nth in range(before + 1, before + n_requests + 1):
            store, backend = await opened(space, Fault(nth=nth, error=lambda: error("the test's")))
            with pytest.raises(BackendError, match="the test's"):
                await store.verify()
            assert backend.fired == 1
            assert store._engine.budget.in_use == 0
            assert (await store.verify()).ok
            await store.aclose()

    run(main())


def test_a_storage_that_fails_while_damage_is_judged_is_raised(run: Callable[..., Any]) -> None:
    async def main() -> None:
        space = await filled()
        del space[next(key for key in space if key.startswith("chunks/"))]
        store, backend = await opened(space)
        before = backend.operations
        expected = await store.verify()
        n_requests = backend.operations - before
        await store.aclose()
        assert len(expected.problems) == len(expected.damaged) == 1
        for nth in range(before + 1, before + n_requests + 1):
            store, _ = await opened(space, Fault(nth=nth))
            with pytest.raises(UnavailableError):
                await store.verify()
            assert await store.verify() == expected
            await store.aclose()

    run(main())


def test_bytes_that_are_damaged_on_the_way_are_read_again(run: Callable[..., Any]) -> None:
    async def main() -> None:
        space = await filled()
        for times, ok in ((1, True), (2, True), (None, False)):
            store, backend = await opened(space, Fault(when="corrupt", prefix="chunks/", bit=77, times=times))
            assert (await store.verify()).ok is ok
            assert backend.fired >= (times or 10)
            await store.aclose()

    run(main())


def test_it_can_be_cancelled_and_leaves_nothing(run: Callable[..., Any]) -> None:
    async def main() -> None:
        store, _ = await opened(await filled())
        task: asyncio.Task[Any]

        def stop(done: int, total: int) -> None:
            if done:
                task.cancel()

        task = asyncio.ensure_future(store.verify(progress=stop))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert store._engine.budget.in_use == 0
        assert len(asyncio.all_tasks()) == 1
        await store.aclose()

    run(main())


class _Watching(FaultyBackend):
    """Notes how many bytes are in flight, and how many requests, at each get of a chunk."""

    store: AsyncCheckpointStore | None = None
    most_bytes = 0
    most_gets = 0
    _gets = 0

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self._gets += 1
        try:
            await asyncio.sleep(0)
            if self.store is not None and key.startswith("chunks/"):
                self.most_bytes = max(self.most_bytes, self.store._engine.budget.in_use)
                self.most_gets = max(self.most_gets, self._gets)
            return await super().get(key, start=start, length=length)
        finally:
            self._gets -= 1


def test_memory_and_requests_are_bounded(run: Callable[..., Any]) -> None:
    async def main() -> None:
        space = await filled()
        backend = _Watching(MemoryBackend(space))

        async def factory(_: object) -> Backend:
            return backend

        store = backend.store = await AsyncCheckpointStore.open(factory, config=CONFIG)
        assert (await store.verify()).ok
        assert 8192 < backend.most_bytes <= CONFIG.memory_bytes
        assert 1 < backend.most_gets <= CONFIG.io_concurrency + 2 * CONFIG.encode_workers
        await store.aclose()

    run(main())


class _Deleting(FaultyBackend):
    """Takes a manifest and what it needs away between its listing and the first get of it."""

    victim = ""

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if self.victim and key.startswith(self.victim):
            space = self.inner.space  # type: ignore[attr-defined]
            for gone in [other for other in space if other.startswith((self.victim, "chunks/"))]:
                del space[gone]
        return await super().get(key, start=start, length=length)


def test_what_was_deleted_and_collected_meanwhile_is_no_problem(run: Callable[..., Any]) -> None:
    async def main() -> None:
        space: MemorySpace = {}
        backend = _Deleting(MemoryBackend(space))

        async def factory(_: object) -> Backend:
            return backend

        store = await AsyncCheckpointStore.open(factory, config=CONFIG)
        await store.save("a", {"n": 1})
        checkpoint = await store.save("b", values(1))
        await store.save("b", {"n": 1})
        backend.victim = f"manifests/b/{checkpoint.ref.name}"
        report = await store.verify()
        assert report.ok
        assert report.n_checkpoints == 2
        await store.aclose()

    run(main())
