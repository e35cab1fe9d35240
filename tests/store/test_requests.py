"""What a save and a load ask of the storage, counted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from typing import Any

import numpy as np

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore.backends.base import Backend
from ckptstore.backends.memory import MemoryBackend
from ckptstore.testing import RecordingBackend


def given(backend: RecordingBackend) -> Callable[[Executor], Awaitable[Backend]]:
    async def opened(executor: Executor) -> Backend:
        return backend

    return opened


def recorded(scenario: Callable[[AsyncCheckpointStore, RecordingBackend], Awaitable[None]]) -> None:
    async def main() -> None:
        backend = RecordingBackend(MemoryBackend())
        async with await AsyncCheckpointStore.open(given(backend)) as store:
            await store.save("warm", {})
            await scenario(store, backend)

    asyncio.run(main())


def verbs(backend: RecordingBackend, since: int = 0) -> list[str]:
    return [request.verb for request in backend.requests[since:]]


def small_attributes() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        f"attribute_{i}": [i, "text " * (i % 50), rng.standard_normal(i), {"epoch": i}, None][i % 5]
        for i in range(500)
    }


def test_a_tiny_save_is_one_put() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        await store.begin("c")
        start = len(backend.requests)
        await store.save("c", {"epoch": 1, "loss": 0.5, "history": [1, 2, 3]})
        assert verbs(backend, start) == ["put"]

    recorded(scenario)


def test_five_hundred_small_attributes_are_a_few_puts() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        await store.begin("c")
        start = len(backend.requests)
        await store.save("c", small_attributes())
        assert verbs(backend, start).count("put") <= 2

    recorded(scenario)


def test_an_unchanged_state_is_one_put() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        values = {"weights": np.random.default_rng(0).standard_normal(2_000_000)}
        await store.save("c", values)
        start = len(backend.requests)
        await store.save("c", values)
        assert verbs(backend, start) == ["put"]

    recorded(scenario)


def test_inspect_is_one_ranged_get_beside_the_look_at_the_tombstone() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        values = {"state": {f"layer.{i}": np.zeros((3, 3), "f4") for i in range(10_000)}}
        checkpoint = await store.save("c", values)
        start = len(backend.requests)
        manifest = await store.inspect(checkpoint)
        assert len(manifest.fields["state"].leaves) == 10_000
        assert verbs(backend, start) == ["head", "get"]
        start = len(backend.requests)
        assert sum(use.n_chunks for use in (await store.inspect(checkpoint, codecs=True)).codecs.values())
        assert verbs(backend, start) == ["head", "get"]

    recorded(scenario)


def test_one_field_of_many_reads_its_chunks_only() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        rng = np.random.default_rng(0)
        checkpoint = await store.save("c", {f"w{i}": rng.standard_normal(300_000) for i in range(8)})
        start = len(backend.requests)
        await store.load(checkpoint, fields=["w3"])
        chunks = [request for request in backend.requests[start:] if request.key.startswith("chunks/")]
        assert len(chunks) == 1

    recorded(scenario)


def test_memory_in_flight_is_given_back() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        values = {"w": np.random.default_rng(0).standard_normal(3_000_000)}
        await store.load(await store.save("c", values))
        assert store._engine.budget.in_use == 0

    recorded(scenario)


def test_small_memory_is_enough_for_large_values() -> None:
    async def main() -> None:
        config = StoreConfig(memory_bytes=1 << 20, chunk_bytes=1 << 18)
        async with await AsyncCheckpointStore.open(
            given(RecordingBackend(MemoryBackend())), config=config
        ) as store:
            values = {"w": np.random.default_rng(0).standard_normal(1_000_000)}
            loaded = await store.load(await store.save("c", values))
            np.testing.assert_array_equal(loaded["w"], values["w"])

    asyncio.run(main())
