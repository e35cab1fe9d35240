"""Stores over storages that fail: what the tests of faults are built from."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ckptstore import AsyncCheckpointStore, Checkpoint, CheckpointStore, StoreConfig
from ckptstore._clock import Clock
from ckptstore._keys import CHUNKS
from ckptstore._loop import LoopThread
from ckptstore._workers import WorkerPool
from ckptstore.backends.base import Backend, Buffer
from ckptstore.backends.local import LocalBackend
from ckptstore.backends.memory import MemoryBackend, MemorySpace
from ckptstore.testing import Fault, FaultyBackend, SlowBackend

CONFIG = StoreConfig(
    durability="os", chunk_bytes=8192, inline_bytes=64, encode_workers=1, io_concurrency=2, memory_bytes=65536
)


def values(seed: int) -> dict[str, Any]:
    """A few chunks: one field is the same for every seed, one is not."""
    return {
        "same": np.arange(1200, dtype="float64"),
        "other": np.random.default_rng(seed).standard_normal(1200),
        "seed": seed,
    }


def is_values(loaded: Mapping[str, Any], seed: int) -> bool:
    expected = values(seed)
    return list(loaded) == list(expected) and all(
        np.array_equal(loaded[name], expected[name]) for name in expected
    )


class Faulty(FaultyBackend):
    """Fails on the worker threads' shortcuts as well, and keeps the keys of the puts that were ``sent``."""

    def __init__(self, inner: Backend, *faults: Fault, shortcuts: bool = False) -> None:
        super().__init__(inner, *faults)
        self.sent: list[str] = []
        if shortcuts:
            self.put_in_worker = self._put
            self.get_in_worker = self._get

    def arm(self, *faults: Fault) -> None:
        """Fail as these say from now on."""
        self._faults, self._seen, self.fired = faults, [0] * len(faults), 0

    def _put(self, key: str, data: Buffer) -> None:
        fault = self._before("put", key)
        assert self.inner.put_in_worker is not None
        self.inner.put_in_worker(key, data)
        if fault is not None:
            raise fault.error()

    def _get(self, key: str, into: memoryview) -> int:
        fault = self._before("get", key)
        assert self.inner.get_in_worker is not None
        size = self.inner.get_in_worker(key, into)
        if fault is not None and fault.when == "after":
            raise fault.error()
        if fault is not None:
            into[fault.bit // 8 % size] ^= 1 << fault.bit % 8
        return size

    def _before(self, verb: Any, key: str) -> Fault | None:
        if verb == "put":
            self.sent.append(key)
        return super()._before(verb, key)


class Cancelling(Faulty):
    """Cancels ``victim`` at the ``nth`` request, ``times`` over, and lets the cancellation arrive there."""

    def __init__(
        self, inner: Backend, nth: int, *, when: str, times: int = 1, shortcuts: bool = False
    ) -> None:
        super().__init__(inner, shortcuts=False)
        self.victim: asyncio.Task[Any] | None = None
        self._nth, self._when, self._times = nth, when, times
        self._loop = asyncio.get_running_loop()
        if shortcuts:
            self.put_in_worker = self._put
            self.get_in_worker = self._get

    async def _strike(self) -> None:
        for _ in range(self._times):
            if self.victim is not None:
                self.victim.cancel()
            for _ in range(20):  # turns of the loop, for the cancellation to reach this request
                await asyncio.sleep(0)

    def _is_struck(self, verb: str, key: str) -> bool:
        self._before(verb, key)
        if self.operations != self._nth or self.victim is None:
            return False
        self.fired += 1
        return True

    async def _around(self, verb: str, key: str, request: Callable[[], Any]) -> Any:
        struck = self._is_struck(verb, key)
        if struck and self._when == "before":
            await self._strike()
        answer = await request()
        if struck and self._when == "after":
            await self._strike()
        return answer

    def _in_worker(self, verb: str, key: str, request: Callable[[], Any]) -> Any:
        struck = self._is_struck(verb, key)
        if struck and self._when == "before":
            asyncio.run_coroutine_threadsafe(self._strike(), self._loop).result(10)
        answer = request()
        if struck and self._when == "after":
            asyncio.run_coroutine_threadsafe(self._strike(), self._loop).result(10)
        return answer

    def _put(self, key: str, data: Buffer) -> None:
        self._in_worker("put", key, lambda: self.inner.put_in_worker(key, data))  # type: ignore[misc]

    def _get(self, key: str, into: memoryview) -> int:
        return self._in_worker("get", key, lambda: self.inner.get_in_worker(key, into))  # type: ignore[misc,no-any-return]

    async def get(self, key: str, **options: Any) -> bytes:
        return await self._around("get", key, lambda: self.inner.get(key, **options))  # type: ignore[no-any-return]

    async def put(self, key: str, data: Buffer, **options: Any) -> Any:
        return await self._around("put", key, lambda: self.inner.put(key, data, **options))

    async def head(self, key: str) -> Any:
        return await self._around("head", key, lambda: self.inner.head(key))

    async def delete(self, key: str) -> None:
        await self._around("delete", key, lambda: self.inner.delete(key))

    async def delete_many(self, keys: Any) -> Any:
        return await self._around("delete_many", "", lambda: self.inner.delete_many(keys))

    async def sync(self) -> None:
        await self._around("sync", "", self.inner.sync)

    async def sweep(self, prefix: str, before_s: float, **options: Any) -> Any:
        return await self._around("sweep", prefix, lambda: self.inner.sweep(prefix, before_s, **options))

    async def list(self, prefix: str, *, after: str = "") -> Any:
        struck = self._is_struck("list", prefix)
        if struck and self._when == "before":
            await self._strike()
        async for info in self.inner.list(prefix, after=after):
            yield info
        if struck and self._when == "after":
            await self._strike()


@dataclass
class Storage:
    """Objects in memory or in a folder, and stores over them."""

    kind: str
    path: Path
    space: MemorySpace = field(default_factory=dict)

    async def backend(self, workers: WorkerPool) -> Backend:
        if self.kind == "memory":
            return MemoryBackend(self.space)
        backend = LocalBackend(self.path, durability="os", executor=workers)
        await backend.open(create=True)
        return backend

    async def open(
        self,
        wrap: Callable[[Backend], Backend] = lambda backend: backend,
        *,
        config: StoreConfig = CONFIG,
        clock: Clock | None = None,
    ) -> AsyncCheckpointStore:
        """Open a store over ``wrap`` of the storage's backend."""
        workers = WorkerPool(config.encode_workers + 1)
        try:
            backend = wrap(await self.backend(workers))
            return await AsyncCheckpointStore._over(backend, workers, config, clock=clock)
        except BaseException:
            workers.shutdown(wait=False)
            raise

    def copy(self, name: str) -> Storage:
        """Return another storage with the same objects."""
        path = self.path.parent / name
        if self.path.exists():
            shutil.copytree(self.path, path)
        return Storage(self.kind, path, dict(self.space))

    def keys(self) -> list[str]:
        """Return all keys that stand there; unfinished files are left out."""
        if self.kind == "memory":
            return sorted(self.space)
        files = (path for path in self.path.rglob("*") if path.is_file())
        return sorted(str(path.relative_to(self.path)) for path in files if not path.name.startswith(".tmp-"))

    def chunks(self) -> list[str]:
        """Return the keys of all chunks."""
        return [key for key in self.keys() if key.startswith(CHUNKS)]

    def unfinished(self) -> list[str]:
        """Return the temporary files that were left behind."""
        return sorted(path.name for path in self.path.rglob(".tmp-*"))


async def everything(storage: Storage, collection: str = "c") -> list[tuple[Checkpoint, dict[str, Any]]]:
    """List with a fresh store, newest first, and load all of it."""
    store = await storage.open()
    try:
        return [(found, await store.load(found)) async for found in store.list(collection)]
    finally:
        await store.aclose()


def nothing_is_left(store: AsyncCheckpointStore) -> None:
    """Assert that no task but this one runs, and that the store holds no memory of its budget."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    assert not others, f"tasks left running: {others}"
    assert store._engine.budget.in_use == 0
    assert not store._saves._in_flight.locked()


def open_blocking(
    storage: Storage,
    wrap: Callable[[Backend], Backend] = lambda backend: backend,
    config: StoreConfig = CONFIG,
) -> CheckpointStore:
    """Open the blocking twin over ``wrap`` of the storage's backend."""
    store: CheckpointStore | None = None
    loop = LoopThread(lambda: store._finish() if store is not None else None)
    try:
        opened = loop.call(storage.open(wrap, config=config))
    except BaseException:
        loop.stop()
        raise
    store = CheckpointStore(opened, loop)
    return store


class Blocking:
    """A store over a storage in memory that waits at gates and fails as it is told."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.storage = Storage("memory", path)
        options = {name: getattr(CONFIG, name) for name in CONFIG.__slots__} | options
        self.store = open_blocking(self.storage, self._wrap, StoreConfig(**options))

    def _wrap(self, inner: Backend) -> Backend:
        self.faulty = Faulty(inner)
        self.slow = SlowBackend(self.faulty)
        return self.slow

    def turns(self) -> None:
        """Let the store's loop go round until nothing more happens without help."""
        for _ in range(50):
            self.store._loop.call(asyncio.sleep(0))

    def seeds(self) -> list[int]:
        found = asyncio.run(everything(self.storage))
        assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
        return [loaded["seed"] for _, loaded in found]

    def nothing_is_left(self) -> None:
        async def look() -> None:
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert self.store._store._engine.budget.in_use == 0
            assert not self.store._store._saves._in_flight.locked()

        self.store._loop.call(look())
