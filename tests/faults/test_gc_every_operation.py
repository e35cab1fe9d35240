"""A collection fails, is cancelled or dies at every request: nothing live is hurt, and the next one ends it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gc_rig import GRACE_S, age, collect, names, own, place, read
from rig import Cancelling, Faulty, Storage, everything, is_values, nothing_is_left, values
from test_every_operation import COMMON, WAYS

from ckptstore import AsyncCheckpointStore, Checkpoint
from ckptstore._keys import CHUNKS, MANIFESTS
from ckptstore.backends.base import Backend
from ckptstore.errors import CheckpointStoreError, GCAbortedError, UnavailableError
from ckptstore.testing import Fault


def dying(when: Any) -> Callable[[Backend, int, bool], Faulty]:
    """From the nth request on nothing arrives; or that one still does."""

    def wrap(inner: Backend, nth: int, shortcuts: bool) -> Faulty:
        def dead() -> UnavailableError:
            return UnavailableError("the process is dead", transient=False)

        faults = [Fault(nth=nth + (when == "after"), times=None, error=dead)]
        if when == "after":
            faults.insert(0, Fault(nth=nth, when="after", error=dead))
        return Faulty(inner, *faults, shortcuts=shortcuts)

    return wrap


DEATHS = {"dies-before": dying("before"), "dies-after": dying("after")}
ALL = WAYS | DEATHS
# How delete and undelete fail otherwise is among the tests of every operation.
CASES = (
    [("collect", "memory", way) for way in ALL]
    + [("collect", "local", way) for way in COMMON | DEATHS]
    + [("collect_dry", "memory", way) for way in COMMON | DEATHS]
    + [(name, kind, way) for name in ("delete", "undelete") for kind in ("memory", "local") for way in DEATHS]
)


async def _collect(store: AsyncCheckpointStore, _: list[Checkpoint]) -> None:
    report = await store.collect_garbage(force=True)
    assert report.n_purged == 1


async def _collect_dry(store: AsyncCheckpointStore, _: list[Checkpoint]) -> None:
    await store.collect_garbage(dry_run=True)


async def _delete(store: AsyncCheckpointStore, saved: list[Checkpoint]) -> None:
    await store.delete(saved[1])


async def _undelete(store: AsyncCheckpointStore, saved: list[Checkpoint]) -> None:
    await store.undelete(saved[2])


OPERATIONS: dict[str, Callable[[AsyncCheckpointStore, list[Checkpoint]], Awaitable[None]]] = {
    "collect": _collect,
    "collect_dry": _collect_dry,
    "delete": _delete,
    "undelete": _undelete,
}


async def prepare(kind: str, path: Path) -> tuple[Storage, list[Checkpoint]]:
    """Four checkpoints: one deleted and due, one live, one deleted just now, one live; and litter of all kinds."""
    storage = Storage(kind, path / "base")
    store = await storage.open()
    saved = [await store.save("c", values(seed)) for seed in range(4)]
    await store.delete(saved[0])
    age(storage, 1.5 * GRACE_S)
    await store.delete(saved[2])
    await store.aclose()
    place(storage, f"{CHUNKS}ff/{'ff' * 32}.{'0' * 16}.raw", age_s=2 * GRACE_S)
    place(storage, f"{MANIFESTS}c/{'0' * 20}~~~{'0' * 32}.x", age_s=3 * GRACE_S)
    place(storage, f"gc/{'0' * 32}", age_s=2 * GRACE_S)
    if kind == "local":
        place(storage, f"{CHUNKS}ff/.tmp-{'0' * 16}", age_s=2 * GRACE_S)
    return storage, saved


def content(storage: Storage) -> dict[str, bytes]:
    ours = set(own(storage))
    return {key: read(storage, key) for key in names(storage) if key not in ours}


async def check_whole(storage: Storage, seeds: set[frozenset[int]]) -> None:
    found = await everything(storage)
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    assert frozenset(loaded["seed"] for _, loaded in found) in seeds


LIVE = {
    "collect": {frozenset({1, 3})},
    "collect_dry": {frozenset({1, 3})},
    "delete": {frozenset({1, 3}), frozenset({3})},
    "undelete": {frozenset({1, 3}), frozenset({1, 2, 3})},
}


@pytest.mark.parametrize(("name", "kind", "way"), CASES)
def test_what_fails_anywhere_hurts_nothing_and_can_be_repeated(
    tmp_path: Path, name: str, kind: str, way: str
) -> None:
    async def strike(prepared: Storage, saved: list[Checkpoint], ended: dict[str, bytes], nth: int) -> bool:
        storage = prepared.copy(f"copy{nth}")
        backends: list[Faulty] = []

        def wrap(inner: Backend) -> Backend:
            backends.append(ALL[way](inner, nth, False))
            return backends[0]

        store = await storage.open(wrap)
        (backend,) = backends
        before = content(storage)
        task = asyncio.ensure_future(OPERATIONS[name](store, saved))
        if isinstance(backend, Cancelling):
            backend.victim = task
        outcome: BaseException | None = None
        try:
            await task
        except (CheckpointStoreError, asyncio.CancelledError) as exc:
            outcome = exc
        fired = bool(backend.fired)
        nothing_is_left(store)
        assert fired or outcome is None
        await check_whole(storage, LIVE[name])
        if isinstance(outcome, GCAbortedError) or name == "collect_dry":
            assert content(storage) == before
        if way not in DEATHS:
            assert way == "refused" or len(own(storage)) <= 1 + (outcome is not None)
        backend.arm()
        if isinstance(backend, Cancelling):
            backend.victim = None
        with contextlib.suppress(CheckpointStoreError):
            await store.aclose()
        if name.startswith("collect"):
            await collect(storage, force=True)
            assert content(storage) == ended
            assert storage.unfinished() == []
        else:
            store = await storage.open()
            await OPERATIONS[name](store, saved)
            await store.aclose()
            await check_whole(storage, LIVE[name] - {frozenset({1, 3})})
        return fired

    async def main() -> int:
        prepared, saved = await prepare(kind, tmp_path)
        ended = prepared.copy("ended")
        report = await collect(ended, force=True)
        assert (report.n_purged, report.n_checkpoints, report.n_failed) == (1, 3, 0)
        nth = 2  # the first opens the store
        while await strike(prepared, saved, content(ended), nth):
            nth += 1
        return nth

    assert asyncio.run(main()) > (15 if name.startswith("collect") else 3)
