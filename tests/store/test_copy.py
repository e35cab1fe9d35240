"""Copying between stores: all or nothing, verified, in order, and going on where it was interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import seaweed

from ckptstore import AsyncCheckpointStore, Checkpoint, StoreConfig
from ckptstore._copy import ORIGIN, Copying, Step
from ckptstore._listing import entries
from ckptstore.backends.base import Backend
from ckptstore.backends.memory import MemoryBackend, MemorySpace
from ckptstore.errors import ChunkCorruptError, ObjectNotFoundError, UnavailableError
from ckptstore.testing import Fault, FaultyBackend

CONFIG = StoreConfig(chunk_bytes=4096, inline_bytes=64, encode_workers=1, io_concurrency=3)


def values(seed: int) -> dict[str, Any]:
    return {
        "same": np.random.default_rng(0).integers(0, 256, 20_000, dtype="uint8"),
        "other": np.random.default_rng(seed).standard_normal(1000),
        "seed": seed,
    }


async def opened(space: MemorySpace, *faults: Fault) -> AsyncCheckpointStore:
    async def factory(_: object) -> Backend:
        return FaultyBackend(MemoryBackend(space), *faults)

    return await AsyncCheckpointStore.open(factory, config=CONFIG)


async def fill(store: AsyncCheckpointStore, n: int = 3) -> list[Checkpoint]:
    saved: list[Checkpoint] = []
    for seed in range(n):
        saved.append(
            await store.save(
                "c",
                values(seed),
                label=f"l{seed}",
                run="r",
                metadata={"loss": seed / 2},
                attributes={"mine": seed},
                parent=saved[-1].ref if saved else None,
            )
        )
    return saved


async def steps_of(
    source: AsyncCheckpointStore,
    target: AsyncCheckpointStore | None,
    *numbers: int,
    on_top: bool = False,
    progress: Callable[[int], None] | None = None,
) -> tuple[Copying, list[Step]]:
    """Plan to copy the checkpoints of these numbers, 0 the newest; all if there are none."""
    live = [entry async for entry in entries(source._engine.backend, "c") if entry.tombstone is None]
    copying = Copying(source, target, progress=progress)
    return copying, await copying.plan([live[i] for i in numbers] if numbers else live, on_top=on_top)


async def copy_all(
    source: AsyncCheckpointStore, target: AsyncCheckpointStore, *numbers: int, **options: Any
) -> list[str]:
    copying, steps = await steps_of(source, target, *numbers, **options)
    states = []
    for step in steps:
        states.append(step.state)
        if step.state == "due":
            await copying.copy(step)
    return states


async def names(store: AsyncCheckpointStore) -> list[str | None]:
    return [checkpoint.label async for checkpoint in store.list("c")]


def test_a_copy_says_the_same_and_loads_the_same(run: Callable[..., Any]) -> None:
    async def main() -> None:
        server = seaweed.server()
        source = await opened({})
        saved = await fill(source)
        for target in (
            await opened({}),
            await AsyncCheckpointStore.open(server.new_url(), config=CONFIG, **server.options),
        ):
            await copy_all(source, target)
            copies = [checkpoint async for checkpoint in target.list("c")][::-1]
            for i, (one, copy) in enumerate(zip(saved, copies, strict=True)):
                for name in ("label", "run", "metadata", "created_ns", "fields"):
                    assert getattr(copy, name) == getattr(one, name)
                assert copy.attributes == {"mine": i, ORIGIN: one.ref.to_dict()}
                assert copy.ref.store_id == target.store_id
                assert copy.ref.name != one.ref.name
                assert copy.parent == (copies[i - 1].ref if i else None)
                assert copy.sizes.raw_bytes == one.sizes.raw_bytes
                loaded = await target.load(copy)
                assert all(np.array_equal(loaded[name], value) for name, value in values(i).items())
                fields = (await source.inspect(one)).fields, (await target.inspect(copy)).fields
                assert [f.leaves for f in fields[0].values()] == [f.leaves for f in fields[1].values()]
            assert copies[2].sizes.new_bytes < copies[2].sizes.stored_bytes  # what is shared is sent once
            assert (await target.verify()).ok
            await target.aclose()
        await source.aclose()

    run(main())


def test_a_copy_that_was_interrupted_goes_on(run: Callable[..., Any]) -> None:
    async def main() -> None:
        source, target = await opened({}), await opened({})
        await fill(source)
        copying, steps = await steps_of(source, target)
        await copying.copy(steps[0])
        assert await copy_all(source, target) == ["there", "due", "due"]
        assert await copy_all(source, target) == ["there", "there", "there"]
        assert await names(target) == ["l2", "l1", "l0"]
        await source.save("c", values(9), label="l9")
        assert await copy_all(source, target) == ["there", "there", "there", "due"]
        assert (await names(target))[0] == "l9"
        for store in (source, target):
            await store.aclose()

    run(main())


def test_nothing_older_becomes_the_newest_by_itself(run: Callable[..., Any]) -> None:
    async def main() -> None:
        source, target = await opened({}), await opened({})
        await fill(source)
        assert await copy_all(source, target, 0) == ["due"]
        assert await copy_all(source, target) == ["older", "older", "there"]
        assert await names(target) == ["l2"]
        assert await copy_all(source, target, on_top=True) == ["due", "due", "there"]
        assert await names(target) == ["l1", "l0", "l2"]
        # Work that has gone on over there stays the newest as well.
        await target.save("c", {"n": 1}, label="own")
        await source.save("c", values(9), label="l9")
        assert (await copy_all(source, target))[-1] == "older"
        assert (await names(target))[0] == "own"
        assert (await copy_all(source, target, on_top=True))[-1] == "due"
        for store in (source, target):
            await store.aclose()

    run(main())


def test_a_parent_that_is_not_there_is_left_out(run: Callable[..., Any]) -> None:
    async def main() -> None:
        source, target = await opened({}), await opened({})
        await fill(source)
        await copy_all(source, target, 0)
        copy = await target.latest("c")
        assert copy is not None
        assert copy.parent is None
        for store in (source, target):
            await store.aclose()

    run(main())


def test_what_is_damaged_is_not_copied_and_what_heals_is(run: Callable[..., Any]) -> None:
    async def main() -> None:
        space: MemorySpace = {}
        source, target_space = await opened(space), MemorySpace()
        target = await opened(target_space)
        await fill(source, 1)
        key = next(key for key in space if key.startswith("chunks/") and key.endswith(".raw"))
        data, at = space[key]
        copying, (step,) = await steps_of(source, target)
        for damaged, error in (((data[:-1] + b"x", at), ChunkCorruptError), (None, ObjectNotFoundError)):
            if damaged is None:
                del space[key]
            else:
                space[key] = damaged
            with pytest.raises(error):
                await copying.copy(step)
            assert not [name for name in target_space if name.startswith("chunks/")]
            assert await names(target) == []
        digest, _, codec = key.rpartition("/")[2].split(".")
        space[f"{key.rpartition('/')[0]}/{digest}.{'0' * 16}.{codec}"] = data, at
        await copying.copy(step)
        assert (await target.verify()).ok
        for store in (source, target):
            await store.aclose()

    run(main())


def test_a_damaged_manifest_is_told_and_the_others_are_copied(run: Callable[..., Any]) -> None:
    async def main() -> None:
        space: MemorySpace = {}
        source, target = await opened(space), await opened({})
        saved = await fill(source)
        key = f"manifests/c/{saved[1].ref.name}"
        space[key] = space[key][0][:60], space[key][1]
        _, steps = await steps_of(source, target)
        assert [step.state for step in steps] == ["due", "unreadable", "due"]
        assert saved[1].ref.name in (steps[1].detail or "")
        assert await copy_all(source, target) == ["due", "unreadable", "due"]
        assert await names(target) == ["l2", "l0"]
        for store in (source, target):
            await store.aclose()

    run(main())


def arm(store: AsyncCheckpointStore, fault: Fault) -> FaultyBackend:
    """Have the storage of an open store fail from now on."""
    backend = store._engine.backend
    assert isinstance(backend, FaultyBackend)
    backend._faults, backend._seen = (fault,), [0]
    return backend


@pytest.mark.parametrize("side", ["source", "target"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_whatever_request_fails_nothing_is_half_copied_and_it_goes_on(
    run: Callable[..., Any], side: str, when: Any
) -> None:
    async def main() -> None:
        space: MemorySpace = {}
        source = await opened(space)
        await fill(source, 2)
        await source.aclose()
        for nth in range(1, 1000):
            source, target = await opened(space), await opened({})
            fault = Fault(nth=nth, when=when, error=lambda: UnavailableError("the test's"))
            backend = arm(source if side == "source" else target, fault)
            failed = False
            try:
                await copy_all(source, target)
            except UnavailableError:
                failed = True
            fired = backend.fired
            arm(source if side == "source" else target, Fault(nth=0))
            assert (await target.verify()).ok
            states = await copy_all(source, target)
            assert failed or states == ["there", "there"]
            assert await names(target) == ["l1", "l0"]
            assert (await target.verify()).ok
            await source.aclose()
            await target.aclose()
            if not fired:
                break
        assert nth > 8

    run(main())


def test_a_copy_that_is_cancelled_leaves_nothing(run: Callable[..., Any]) -> None:
    async def main() -> None:
        target_space: MemorySpace = {}
        source, target = await opened({}), await opened(target_space)
        await fill(source, 1)
        task: asyncio.Task[Any]
        copying, (step,) = await steps_of(source, target, progress=lambda _: task.cancel() and None)
        task = asyncio.ensure_future(copying.copy(step))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not [key for key in target_space if key.startswith("chunks/")]
        assert source._engine.budget.in_use == 0
        for store in (source, target):
            await store.aclose()

    run(main())
