"""Clocks that are a year off: nothing is lost, and what cannot be told is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gc_rig import GRACE_S, age
from rig import Faulty, Storage, everything, is_values, values

from ckptstore import AsyncCheckpointStore, last, max_age
from ckptstore._clock import Clock
from ckptstore.errors import CheckpointDeletedError, SaveExpiredError

YEAR_S = 365 * 86_400.0


class Off(Clock):
    """This machine's clock, so many seconds off."""

    def __init__(self, off_s: float) -> None:
        self.off_s = off_s

    def wall_s(self) -> float:
        return super().wall_s() + self.off_s


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.param, tmp_path / "store")


def use(
    storage: Storage,
    do: Callable[[AsyncCheckpointStore], Awaitable[Any]],
    clock: Clock | None = None,
    wrap: Callable[[Any], Any] = lambda backend: backend,
) -> Any:
    async def using() -> Any:
        store = await storage.open(wrap, clock=clock)
        try:
            return await do(store)
        finally:
            await store.aclose()

    return asyncio.run(using())


def seeds(storage: Storage) -> list[int]:
    found = asyncio.run(everything(storage))
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    return [loaded["seed"] for _, loaded in found]


@pytest.mark.parametrize("off_s", [YEAR_S, -YEAR_S], ids=["ahead", "behind"])
def test_a_machine_a_year_off_saves_loads_retains_and_collects_as_any(storage: Storage, off_s: float) -> None:
    async def right(store: AsyncCheckpointStore) -> None:
        await store.save("c", values(0))
        await store.delete(await store.save("c", values(1)))

    async def wrong(store: AsyncCheckpointStore) -> None:
        for n in (2, 3):
            await store.save("c", values(n), keep=max_age("1h"))
        assert is_values(await store.load("c"), 3)
        report = await store.collect_garbage()
        assert (report.n_purged, report.n_garbage) == (0, 0)

    use(storage, right)
    use(storage, wrong, Off(off_s))
    assert seeds(storage) == [3, 2, 0]
    use(storage, lambda store: store.retain("c", last(1)))
    age(storage, GRACE_S + 10)
    assert use(storage, lambda store: store.collect_garbage(force=True), Off(off_s)).n_purged == 3
    assert seeds(storage) == [3]


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["forth", "back"])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_clock_that_jumps_in_mid_save_costs_at_most_that_save(
    storage: Storage, jump_s: float, nth: int
) -> None:
    clock = Off(0)

    class Jumping(Faulty):
        async def put(self, key: str, data: Any, **options: Any) -> Any:
            info = await super().put(key, data, **options)
            if len(self.sent) == nth:
                clock.off_s += jump_s
            return info

    async def do(store: AsyncCheckpointStore) -> list[int]:
        kept = []
        for n in range(3):
            try:
                await store.save("c", values(n))
                kept.append(n)
            except SaveExpiredError:
                pass
        return kept

    kept = use(storage, do, clock, Jumping)
    assert len(kept) >= 2
    assert seeds(storage) == kept[::-1]


@pytest.mark.parametrize("off_s", [YEAR_S, -YEAR_S], ids=["ahead", "behind"])
def test_whose_clock_cannot_tell_how_old_a_deletion_is_undeletes_nothing(
    storage: Storage, off_s: float
) -> None:
    """Its data may be collected at any moment, if it is older than it seems."""

    async def prepare(store: AsyncCheckpointStore) -> Any:
        saved = await store.save("c", values(0))
        await store.delete(saved)
        return saved

    saved = use(storage, prepare)
    age(storage, 0.9 * GRACE_S)
    with pytest.raises(CheckpointDeletedError):
        use(storage, lambda store: store.undelete(saved), Off(off_s))
    assert seeds(storage) == []


@pytest.mark.parametrize("jump_s", [YEAR_S, -YEAR_S], ids=["forth", "back"])
def test_objects_a_year_older_or_younger_than_they_are_cost_no_live_checkpoint(
    storage: Storage, jump_s: float
) -> None:
    """The storage's clock was off while they were written."""

    async def prepare(store: AsyncCheckpointStore) -> None:
        for n in range(3):
            await store.save("c", values(n))
        await store.delete("c")

    use(storage, prepare)
    age(storage, jump_s)
    report = use(storage, lambda store: store.collect_garbage(force=True))
    assert report.n_purged == (1 if jump_s > 0 else 0)
    use(storage, lambda store: store.save("c", values(9)))
    use(storage, lambda store: store.collect_garbage(force=True))
    assert seeds(storage) == [9, 1, 0]
