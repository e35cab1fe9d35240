"""Storages that grow old when they are told, for tests of garbage collection."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Any

from rig import CONFIG, Storage, values

from ckptstore import AsyncCheckpointStore, GCReport
from ckptstore._gc_listing import is_record
from ckptstore.backends.base import Backend, ObjectInfo

GRACE_S = CONFIG.grace_s


def age(storage: Storage, seconds: float, keys: Iterable[str] | None = None) -> None:
    """Let the objects, or those of ``keys``, be older by so many seconds; unfinished files too."""
    wanted = None if keys is None else set(keys)
    if storage.kind == "memory":
        for key, (data, modified_s) in list(storage.space.items()):
            if wanted is None or key in wanted:
                storage.space[key] = data, modified_s - seconds
        return
    for path in storage.path.rglob("*"):
        if path.is_file() and (wanted is None or str(path.relative_to(storage.path)) in wanted):
            found = path.stat()
            os.utime(path, (found.st_atime, found.st_mtime - seconds))


def place(storage: Storage, key: str, data: bytes = b"x", *, age_s: float = 0.0) -> None:
    """Put an object there, whoever's."""
    if storage.kind == "memory":
        storage.space[key] = data, time.time()
    else:
        path = storage.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    age(storage, age_s, [key])


def read(storage: Storage, key: str) -> bytes:
    return storage.space[key][0] if storage.kind == "memory" else (storage.path / key).read_bytes()


def size(storage: Storage, keys: Iterable[str]) -> int:
    return sum(len(read(storage, key)) for key in keys)


async def collect(
    storage: Storage, wrap: Callable[[Backend], Backend] = lambda backend: backend, **options: Any
) -> GCReport:
    """Collect with a store of its own."""
    store = await storage.open(wrap)
    try:
        return await store.collect_garbage(**options)
    finally:
        await store.aclose()


async def saved(storage: Storage, *seeds: int) -> list[Any]:
    """Save these values, one after another."""
    store: AsyncCheckpointStore = await storage.open()
    try:
        return [await store.save("c", values(seed)) for seed in seeds]
    finally:
        await store.aclose()


async def deleted(storage: Storage, *checkpoints: Any) -> None:
    store = await storage.open()
    try:
        for one in checkpoints:
            await store.delete(one)
    finally:
        await store.aclose()


class Changed(Backend):
    """Passes everything on, but what ``edit`` makes of the listings: (number of the listing, info) to info or None.

    ``on_list`` is told of a listing before it begins.
    """

    def __init__(
        self,
        inner: Backend,
        edit: Callable[[int, ObjectInfo], ObjectInfo | None] = lambda _, info: info,
        *,
        prefix: str = "manifests/",
        on_list: Callable[[int], Any] = lambda _: None,
    ) -> None:
        self.inner = inner
        self._edit = edit
        self._prefix = prefix
        self._on_list = on_list
        self.listings = 0

    @property
    def url(self) -> str:
        return self.inner.url

    async def get(self, key: str, **options: Any) -> bytes:
        return await self.inner.get(key, **options)

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        return await self.inner.put(key, data, **options)

    async def head(self, key: str) -> ObjectInfo:
        return await self.inner.head(key)

    async def delete(self, key: str) -> None:
        await self.inner.delete(key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        number = 0
        if prefix == self._prefix:
            self.listings += 1
            number = self.listings
            self._on_list(number)
        async with aclosing(self.inner.list(prefix, after=after)) as listed:
            async for info in listed:
                changed = self._edit(number, info) if number else info
                if changed is not None:
                    yield changed

    async def sync(self) -> None:
        await self.inner.sync()

    async def aclose(self) -> None:
        await self.inner.aclose()


def names(storage: Storage) -> list[str]:
    """Return the keys of all objects, in order."""
    return storage.keys()


def own(storage: Storage) -> list[str]:
    """Return the records and canaries of collections."""
    return [key for key in names(storage) if "gc/" in key and is_record(key.rpartition("/")[2])]
