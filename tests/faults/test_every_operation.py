"""Every request of every operation fails once, in every way: the store stays what it was, or is what it became."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rig import (
    Cancelling,
    Faulty,
    Storage,
    everything,
    is_values,
    nothing_is_left,
    values,
)

from ckptstore import AsyncCheckpointStore, Checkpoint, _commit
from ckptstore._keys import MANIFESTS, parse_name
from ckptstore.backends.base import Backend
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    BackendProtocolError,
    CheckpointStoreError,
    ClockSkewError,
    CredentialsError,
    SaveCancelledError,
    StoreFullError,
    ThrottledError,
    UnavailableError,
)
from ckptstore.testing import Fault

Wrap = Callable[[Backend, int, bool], Faulty]
Operation = Callable[[AsyncCheckpointStore, Checkpoint], Awaitable[Any]]


def failing(kind: type[BackendError], when: Any = "before") -> Wrap:
    def wrap(inner: Backend, nth: int, shortcuts: bool) -> Faulty:
        return Faulty(
            inner, Fault(nth=nth, when=when, error=lambda: kind("the test's fault")), shortcuts=shortcuts
        )

    return wrap


def broken_inside(inner: Backend, nth: int, shortcuts: bool) -> Faulty:
    return Faulty(inner, Fault(nth=nth, error=asyncio.CancelledError), shortcuts=shortcuts)


def cancelling(when: str, times: int = 1) -> Wrap:
    return lambda inner, nth, shortcuts: Cancelling(inner, nth, when=when, times=times, shortcuts=shortcuts)


COMMON: dict[str, Wrap] = {
    "unavailable": failing(UnavailableError),
    "answer-lost": failing(UnavailableError, "after"),
    "refused": failing(AccessDeniedError),
    "cancelled-before": cancelling("before"),
    "cancelled-after": cancelling("after"),
    "cancelled-twice": cancelling("before", 2),
    "cancelled-by-the-backend": broken_inside,
}
CLASSES: dict[str, Wrap] = {
    kind.__name__: failing(kind)
    for kind in (ThrottledError, StoreFullError, CredentialsError, ClockSkewError, BackendProtocolError)
}
WAYS = COMMON | CLASSES
STORAGES = {
    "memory": WAYS,
    "memory-shortcuts": COMMON,
    "local": ("answer-lost", "cancelled-before", "cancelled-after"),
    "local-shortcuts": COMMON,
}
CASES = [(storage, way) for storage, ways in STORAGES.items() for way in ways]


async def _save(store: AsyncCheckpointStore, _: Checkpoint) -> Any:
    return await store.save("c", values(1))


async def _save_in_the_background(store: AsyncCheckpointStore, _: Checkpoint) -> Any:
    pending = await store.save("c", values(1), wait=False)
    try:
        return await pending.committed
    except asyncio.CancelledError:
        pending.cancel()
        while not pending.done():
            with contextlib.suppress(asyncio.CancelledError):
                await pending.ended()
        raise


async def _save_the_first(store: AsyncCheckpointStore, _: Checkpoint) -> Any:
    return await store.save("new", values(1))


async def _save_twice(store: AsyncCheckpointStore, _: Checkpoint) -> Any:
    await store.save("c", values(0))
    return await store.save("c", values(1))


async def _load(store: AsyncCheckpointStore, base: Checkpoint) -> Any:
    assert is_values(await store.load(base), 0)


async def _load_into(store: AsyncCheckpointStore, base: Checkpoint) -> Any:
    own = {"same": values(1)["same"] - 1, "other": values(1)["other"] - 1}
    before = {name: array.copy() for name, array in own.items()}
    try:
        assert is_values(await store.load(base, into=own), 0)
    except BaseException:
        # All of it has changed, by a cancellation that came later, or nothing has.
        assert is_values(own | {"seed": 0}, 0) or all((own[name] == before[name]).all() for name in own)
        raise


async def _load_inplace(store: AsyncCheckpointStore, base: Checkpoint) -> Any:
    own = {name: values(1)[name] for name in ("same", "other")}
    assert is_values(await store.load(base, into=own, inplace=True), 0)


async def _load_a_part(store: AsyncCheckpointStore, base: Checkpoint) -> Any:
    handle = await store.handle(base)
    assert (await handle["other"].load() == values(0)["other"]).all()


async def _latest(store: AsyncCheckpointStore, base: Checkpoint) -> Any:
    found = await store.latest("c")
    assert found is not None
    assert found.ref == base.ref


async def _delete(store: AsyncCheckpointStore, base: Checkpoint) -> Any:
    await store.delete(base)


async def _save_a_capture(store: AsyncCheckpointStore, _: Checkpoint) -> Any:
    captured = await store.capture("c", values(1))
    return await captured.save()


async def _pin(store: AsyncCheckpointStore, base: Checkpoint) -> Any:
    await store.pin(base)
    await store.unpin(base)


async def _undelete(store: AsyncCheckpointStore, base: Checkpoint) -> Any:
    await store.undelete(base)


OPERATIONS: dict[str, Operation] = {
    name.strip("_"): function
    for name, function in list(globals().items())
    if name.startswith("_") and asyncio.iscoroutinefunction(function)
}
SAVES = ("save", "save_in_the_background", "save_the_first", "save_twice", "save_a_capture")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commit, "_BACKOFF_S", (0.0, 0.0))


async def _prepared(kind: str, path: Path, *, deleted: bool) -> tuple[Storage, Checkpoint]:
    storage = Storage(kind, path / "base")
    store = await storage.open()
    base = await store.save("c", values(0))
    if deleted:
        await store.delete(base)
    await store.aclose()
    return storage, base


async def _check_save(
    prepared: Storage, storage: Storage, backend: Faulty, name: str, outcome: object
) -> None:
    """The failed save is absent or whole, and left nothing unless its manifest was sent."""
    collection = "new" if name == "save_the_first" else "c"
    found = await everything(storage, collection)
    seeds = [loaded["seed"] for _, loaded in found]
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    bases = [0] if collection == "c" else []
    if isinstance(outcome, Checkpoint):
        assert seeds[0] == 1
        assert found[0][0].ref == outcome.ref
    else:
        assert seeds in ([1, 0, *bases], [0, *bases], [1, *bases], bases)
        assert seeds[len(seeds) - len(bases) :] == bases
    manifests = [key for key in backend.sent if key.startswith(MANIFESTS)]
    if not any(parse_name(key.rpartition("/")[2]) for key in manifests):
        assert storage.chunks() == prepared.chunks()
    assert storage.unfinished() == []


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(("where", "way"), CASES)
def test_an_operation_that_fails_anywhere_leaves_the_store_whole(
    tmp_path: Path, where: str, way: str, name: str
) -> None:
    kind, _, shortcuts = where.partition("-")

    async def strike(prepared: Storage, base: Checkpoint, nth: int) -> bool:
        storage = prepared.copy(f"copy{nth}")
        backends: list[Faulty] = []

        def wrap(inner: Backend) -> Backend:
            backends.append(WAYS[way](inner, nth, bool(shortcuts)))
            return backends[0]

        store = await storage.open(wrap)
        (backend,) = backends
        task = asyncio.ensure_future(OPERATIONS[name](store, base))
        if isinstance(backend, Cancelling):
            backend.victim = task
        outcome: object
        try:
            outcome = await task
        except (CheckpointStoreError, asyncio.CancelledError) as exc:
            outcome = exc
        nothing_is_left(store)
        if not backend.fired:
            assert not isinstance(outcome, BaseException)
        if name in SAVES:
            await _check_save(prepared, storage, backend, name, outcome)
        fired = bool(backend.fired)
        # What failed may be repeated on the same store, and then it works.
        backend.arm()
        if isinstance(backend, Cancelling):
            backend.victim = None
        if isinstance(outcome, BaseException) and not isinstance(outcome, SaveCancelledError):
            await OPERATIONS[name](store, base)
        last = await store.save("c", values(9))
        assert is_values(await store.load(last), 9)
        assert (await store.latest("c")).ref == last.ref  # type: ignore[union-attr]
        nothing_is_left(store)
        await store.aclose()
        nothing_is_left(store)
        if kind == "memory":
            after = await everything(storage)
            assert after[0][0].ref == last.ref
            assert all(is_values(loaded, loaded["seed"]) for _, loaded in after)
            assert (base.ref in [found.ref for found, _ in after]) == (name != "delete")
        return fired

    async def main() -> int:
        prepared, base = await _prepared(kind, tmp_path, deleted=name == "undelete")
        nth = 2  # the first opens the store
        while await strike(prepared, base, nth):
            nth += 1
        return nth

    assert asyncio.run(main()) > 2


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_an_opening_that_fails_anywhere_leaves_a_store_or_none(
    tmp_path: Path, kind: str, way: str, fresh: bool
) -> None:
    async def strike(prepared: Storage, nth: int) -> bool:
        storage = prepared.copy(f"copy{nth}")
        backends: list[Faulty] = []

        def wrap(inner: Backend) -> Backend:
            backends.append(WAYS[way](inner, nth, False))
            if isinstance(backends[0], Cancelling):
                backends[0].victim = asyncio.current_task()
            return backends[0]

        task = asyncio.ensure_future(storage.open(wrap))
        try:
            store = await task
        except (CheckpointStoreError, asyncio.CancelledError):
            pass
        else:
            await store.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert len(await everything(storage)) == (0 if fresh else 1)
        return bool(backends[0].fired)

    async def main() -> int:
        prepared = Storage(kind, tmp_path / "base")
        if not fresh:
            prepared, _ = await _prepared(kind, tmp_path, deleted=False)
        nth = 1
        while await strike(prepared, nth):
            nth += 1
        return nth

    assert asyncio.run(main()) == (5 if fresh else 2)
