"""Making one store at once, on a storage that cannot tell who was first: all must come to one id."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore._marker import open_marker
from ckptstore.backends.base import Buffer, ObjectInfo
from ckptstore.backends.memory import MemoryBackend, MemorySpace
from ckptstore.backends.retry import RetryBackend
from ckptstore.errors import StoreMismatchError
from ckptstore.testing import FaultyBackend, RecordingBackend, SlowBackend

Run = Callable[[Any], Any]
VERBS = 4  # of whoever makes a store: get, list, put, get


class Careless(MemoryBackend):
    """Looks whether there is an object, and puts it later: of two at once the later one stays."""

    def __init__(self, space: MemorySpace, *, name: str = "shared") -> None:
        super().__init__(space, name=name)
        self.turns: asyncio.Semaphore | None = None
        self.done = asyncio.Semaphore(0)

    @property
    def identity(self) -> str:
        return self.url

    async def _turn(self) -> None:
        if self.turns is not None:
            self.done.release()
            await self.turns.acquire()

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        await self._turn()
        return await super().get(key, start=start, length=length)

    async def list(self, prefix: str, *, after: str = "") -> Any:
        await self._turn()
        async for info in super().list(prefix, after=after):
            yield info

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        await self._turn()
        return await super().put(key, data)


async def opened_in_turns(space: MemorySpace, order: tuple[int, ...], n: int) -> set[str]:
    """Let ``n`` creators go on by one request each time that ``order`` names them; return the ids they saw."""
    creators = [Careless(space) for _ in range(n)]
    tasks = []
    for creator in creators:
        creator.turns = asyncio.Semaphore(0)
        tasks.append(asyncio.ensure_future(open_marker(creator, StoreConfig(), create=True)))
        await creator.done.acquire()
    for number in order:
        turns = creators[number].turns
        assert turns is not None
        turns.release()
        waits = asyncio.ensure_future(creators[number].done.acquire())
        await asyncio.wait([waits, tasks[number]], return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
    for creator in creators:
        assert creator.turns is not None
        for _ in range(VERBS):
            creator.turns.release()
    return {marker.store_id for marker in await asyncio.gather(*tasks)}


def test_two_who_make_a_store_agree_however_their_requests_interleave(run: Run) -> None:
    async def all_orders() -> None:
        for firsts in itertools.combinations(range(2 * VERBS), VERBS):
            order = tuple(0 if at in firsts else 1 for at in range(2 * VERBS))
            space: MemorySpace = {}
            ids = await opened_in_turns(space, order, 2)
            final = await open_marker(Careless(space), StoreConfig(), create=False)
            assert ids == {final.store_id}, order

    run(all_orders())


def test_a_marker_that_lands_when_others_have_saved_makes_nobody_a_stranger(run: Run) -> None:
    """A put that was given up may do so a quarter of an hour later."""

    async def main() -> None:
        space: MemorySpace = {}

        async def opened(config: StoreConfig | None = None) -> AsyncCheckpointStore:
            async def backend(_: Any) -> Careless:
                return Careless(space)

            return await AsyncCheckpointStore.open(backend, config=config or StoreConfig())

        slow_space: MemorySpace = {}
        await open_marker(Careless(slow_space), StoreConfig(), create=True)
        async with await opened() as first:
            await first.save("c", {"n": 1})
            space.update(slow_space)
            await first.save("c", {"n": 2})
        async with await opened() as second:
            await second.save("c", {"n": 3})
            assert [(await second.load(found))["n"] async for found in second.list()] == [3, 2, 1]

    run(main())


def test_another_grace_makes_another_store_and_says_so(run: Run) -> None:
    """With one id, what one saves in half a day another would collect after an hour."""

    async def main() -> None:
        space: MemorySpace = {}
        other: MemorySpace = {}
        await open_marker(Careless(other), StoreConfig(grace_s=7200), create=True)

        async def backend(_: Any) -> Careless:
            return Careless(space)

        async with await AsyncCheckpointStore.open(backend) as first:
            await first.save("c", {"n": 1})
        space.update(other)
        async with await AsyncCheckpointStore.open(backend) as second:
            with pytest.raises(StoreMismatchError):
                await second.latest("c")

    run(main())


def test_an_id_is_that_of_its_storage_alone(run: Run) -> None:
    async def made(name: str, grace_s: float = 86_400) -> str:
        return (
            await open_marker(Careless({}, name=name), StoreConfig(grace_s=grace_s), create=True)
        ).store_id

    async def main() -> None:
        assert await made("a") == await made("a", 86_400.0)
        assert len({await made("a"), await made("b"), await made("a", 7200)}) == 3

    run(main())


@pytest.mark.parametrize("wrapper", [RetryBackend, FaultyBackend, SlowBackend, RecordingBackend])
def test_a_wrapper_is_what_it_wraps(wrapper: Any) -> None:
    assert wrapper(MemoryBackend()).identity is None
    assert wrapper(Careless({})).identity == "memory://shared"
