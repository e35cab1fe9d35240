"""A pin that comes while a retention works: it stays, unless it comes in the moment before the tombstone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from rig import Storage

from ckptstore import AsyncCheckpointStore, Checkpoint, last
from ckptstore._keys import TOMBSTONE
from ckptstore.backends.base import Backend, Buffer, ObjectInfo
from ckptstore.errors import CheckpointDeletedError
from ckptstore.testing import RecordingBackend

Hook = Callable[[], Awaitable[None]]


class Interleaved(RecordingBackend):
    """Lets others work when a listing has ended, and before the tombstone of ``name`` is put; once each."""

    listed: Hook | None = None
    deleting: Hook | None = None
    name = ""

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        async with aclosing(super().list(prefix, after=after)) as listing:
            async for info in listing:
                yield info
        hook, self.listed = self.listed, None
        if hook is not None:
            await hook()

    async def put(self, key: str, data: Buffer, **options: Any) -> ObjectInfo:
        if key.endswith(self.name + TOMBSTONE):
            hook, self.deleting = self.deleting, None
            if hook is not None:
                await hook()
        return await super().put(key, data, **options)


Scenario = Callable[
    [AsyncCheckpointStore, AsyncCheckpointStore, Interleaved, list[Checkpoint]], Awaitable[None]
]


@pytest.fixture(params=["memory", "local"])
def with_other(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Run a scenario with a store, another one over the same storage, and four checkpoints."""
    storage = Storage(request.param, tmp_path / "store")

    async def main(scenario: Scenario) -> None:
        backends: list[Interleaved] = []

        def wrap(inner: Backend) -> Backend:
            backends.append(Interleaved(inner))
            return backends[0]

        async with await storage.open(wrap) as store, await storage.open() as other:
            saved = [await store.save("c", {"n": n}) for n in range(4)]
            await scenario(store, other, backends[0], saved)

    return lambda scenario: asyncio.run(main(scenario))


def test_what_is_pinned_after_the_listing_is_not_deleted(with_other: Any) -> None:
    async def scenario(store: Any, other: Any, backend: Interleaved, saved: list[Checkpoint]) -> None:
        backend.listed = lambda: other.pin(saved[1].ref)
        assert await store.retain("c", last(1)) == [saved[2], saved[0]]
        assert [found.ref async for found in other.list("c")] == [saved[3].ref, saved[1].ref]

    with_other(scenario)


def test_what_is_pinned_while_a_save_retains_is_not_deleted(with_other: Any) -> None:
    async def scenario(store: Any, other: Any, backend: Interleaved, saved: list[Checkpoint]) -> None:
        backend.listed = lambda: other.pin(saved[1].ref)
        newest = await store.save("c", {"n": 4}, keep=last(1))
        assert [found.ref async for found in store.list("c")] == [newest.ref, saved[1].ref]
        # Its data may be used again: it was not given up.
        assert (await store.load(saved[1]))["n"] == 1

    with_other(scenario)


def test_a_pin_in_the_moment_before_the_tombstone_can_be_lost_and_brought_back(with_other: Any) -> None:
    """The window that is left, as the docs tell it: whoever pins later is told, whoever pins earlier is kept."""

    async def scenario(store: Any, other: Any, backend: Interleaved, saved: list[Checkpoint]) -> None:
        backend.name = saved[0].ref.name
        backend.deleting = lambda: other.pin(saved[0].ref)
        assert len(await store.retain("c", last(1))) == 3
        with pytest.raises(CheckpointDeletedError):
            await other.pin(saved[0].ref)
        await other.undelete(saved[0].ref)
        assert await store.retain("c", last(1)) == []
        assert [found.ref async for found in other.list("c")] == [saved[3].ref, saved[0].ref]

    with_other(scenario)
