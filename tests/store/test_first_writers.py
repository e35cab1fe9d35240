"""Several writers that begin a collection in the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from ckptstore import AsyncCheckpointStore
from ckptstore._listing import entries
from ckptstore.backends.base import ObjectInfo
from ckptstore.backends.memory import MemoryBackend, MemorySpace
from ckptstore.errors import BackendProtocolError


class Slow(MemoryBackend):
    """Another writer begins the collection between our listing and the look at its marker."""

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        async with aclosing(super().list(prefix, after=after)) as listed:
            async for info in listed:
                yield info
        await self.put("manifests/c/-collection", b"x")


class Lying(Slow):
    """It is never listed."""

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        await self.put("manifests/c/-collection", b"x")
        for info in ():
            yield info


def listed(backend: MemoryBackend) -> list[Any]:
    async def main() -> list[Any]:
        return [entry async for entry in entries(backend, "c")]

    return asyncio.run(main())


def test_a_collection_that_began_while_it_was_listed_is_listed_again() -> None:
    assert listed(Slow({})) == []


def test_a_listing_that_never_shows_the_marker_is_not_believed() -> None:
    with pytest.raises(BackendProtocolError, match="not believed"):
        listed(Lying({}))


def test_many_first_writers_all_save() -> None:
    async def main() -> None:
        space: MemorySpace = {}
        stores = [await AsyncCheckpointStore.open("memory://", space=space) for _ in range(8)]
        await asyncio.gather(*(store.save("c", {"n": n}) for n, store in enumerate(stores)))
        assert len([found async for found in stores[0].list("c")]) == 8
        for store in stores:
            await store.aclose()

    asyncio.run(main())
