"""The real store in simulated worlds: processes that crash, clocks that are wrong, a storage that fails and lies.

    python simulation.py [FIRST_SEED [N_SEEDS]]

Every change of the storage is checked against I1 to I6 when it happens, every
load against what was saved, and at the end of the world all that is left. Not
simulated: a process that is stopped between its last look at the clock and the
sending of its manifest (S7 finds out), and lies to those who do not delete.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from simulation_loop import InlineWorkers, SimulatedClock, drawn_from, run_to_end
from simulation_storage import SimulatedBackend, SimulatedStorage, Weather, live_names

from ckptstore import AsyncCheckpointStore, Checkpoint, StoreConfig, last
from ckptstore._keys import CHUNKS, MANIFESTS, TOMBSTONE, manifest_key
from ckptstore.backends.base import Backend
from ckptstore.backends.retry import RetryBackend
from ckptstore.errors import (
    BackendError,
    CheckpointDeletedError,
    CheckpointNotFoundError,
    CheckpointStoreError,
    GCAbortedError,
    IntegrityError,
)

COLLECTIONS = ("kept", "rolling")
DAYS = 3.0

WEATHERS = {
    "fair": {},
    "lossy": {"lost": 0.03, "answer_lost": 0.03, "late": 0.03},
    "slow": {"slow": 0.2, "slow_s": 880.0, "late": 0.03},
    "stalling": {"stalls": 0.05, "slow": 0.05, "slow_s": 880.0, "late": 0.02},
    "stormy": {
        "lost": 0.05,
        "answer_lost": 0.05,
        "late": 0.06,
        "slow": 0.1,
        "slow_s": 880.0,
        "refused": 0.003,
    },
    "lying": {"lies": 0.25, "slow": 0.05, "answer_lost": 0.01},
}


@dataclass
class World:
    """One storage and everybody who uses it."""

    loop: asyncio.AbstractEventLoop
    random: random.Random
    weather: Weather
    storage: SimulatedStorage
    acknowledged: dict[str, Checkpoint] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    """Names that somebody has asked to delete."""
    over: bool = False

    def config(self) -> StoreConfig:
        return StoreConfig(
            chunk_bytes=64, inline_bytes=60, codec="raw", encode_workers=1, io_concurrency=2,
            grace_s=self.weather.grace_s, max_save_s=self.weather.max_save_s,
        )  # fmt: skip

    async def open(self, backend: Backend, wrong_s: float = 0.0) -> AsyncCheckpointStore:
        return await AsyncCheckpointStore._over(
            backend, InlineWorkers(), self.config(), clock=SimulatedClock(self.loop, wrong_s)
        )

    async def rest(self, share: float) -> None:
        """Sleep for up to this share of the grace."""
        await asyncio.sleep(self.random.uniform(0, share * self.weather.grace_s))


def values(numbers: tuple[int, ...]) -> dict[str, Any]:
    """Two arrays of a chunk each; few are different, so that saves reuse chunks."""
    return {f"a{at}": np.full(16, number, "int32") for at, number in enumerate(numbers)}


Body = Callable[[World, AsyncCheckpointStore], Awaitable[None]]


async def process(world: World, role: str, body: Body) -> None:
    """Run a role in one process after another: each crashes some day, or ends."""
    rng = world.random
    for number in itertools.count():
        if world.over:
            return
        weather = world.weather if role.startswith("collector") else replace(world.weather, lies=0.0)
        own = SimulatedBackend(world.storage, f"{role}.{number}", weather)
        backend: Backend = own
        if rng.random() < 0.5:
            backend = RetryBackend(own, sleep=asyncio.sleep, clock=world.loop.time, draw=rng.uniform)
        wrong_s = rng.choice([0.0, 0.0, -7200.0, 5000.0, 86_400.0 * 365])
        task = asyncio.ensure_future(_live(world, backend, wrong_s, body))
        life_s = rng.expovariate(1 / (1.5 * world.weather.grace_s))
        await asyncio.wait([task], timeout=life_s)
        if not task.done():
            world.storage.counts["crashes"] += 1
            world.storage.note(f"{own.who} crashes")
            own.dead = True
            task.cancel()
            await asyncio.wait([task])
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, CheckpointStoreError):
            world.storage.fail(f"{own.who} ended with {error!r}")
        await world.rest(0.05)


async def _live(world: World, backend: Backend, wrong_s: float, body: Body) -> None:
    store = await world.open(backend, wrong_s)
    try:
        while not world.over:
            await body(world, store)
    finally:
        await store.aclose()


async def write(world: World, store: AsyncCheckpointStore) -> None:
    """Save, and now and then delete or bring back."""
    rng, counts = world.random, world.storage.counts
    what = rng.random()
    try:
        if what < 0.6:
            await _save(world, store)
        elif what < 0.85 and world.acknowledged:
            one = rng.choice(list(world.acknowledged.values()))
            world.given_up.add(one.ref.name)
            await store.delete(one)
            counts["deletes"] += 1
        elif deleted := [one for one in world.acknowledged.values() if world.storage.is_deleted(key_of(one))]:
            await store.undelete(rng.choice(deleted))
            counts["undeletes"] += 1
    except (CheckpointNotFoundError, CheckpointDeletedError):
        counts["too late"] += 1
    except CheckpointStoreError as exc:
        counts[f"{type(exc).__name__} of a writer"] += 1
    await world.rest(rng.choice([0.01, 0.1, 0.1, 0.5, 2.0]))


async def _save(world: World, store: AsyncCheckpointStore) -> None:
    rng = world.random
    collection = rng.choice(COLLECTIONS)
    numbers = rng.randrange(4), rng.randrange(4)
    keep = last(2) if collection == "rolling" else None
    pending = await store.save(
        collection, values(numbers), metadata={"numbers": list(numbers)}, keep=keep, wait=False
    )
    saved = await pending.committed
    if saved is None:
        return
    world.acknowledged[saved.ref.name] = saved
    world.storage.counts["acknowledged"] += 1
    check_acknowledged(world, saved)


def key_of(one: Checkpoint) -> str:
    return manifest_key(one.collection, one.ref.name)


def check_acknowledged(world: World, saved: Checkpoint) -> None:
    """What was acknowledged stands there until somebody asks to delete it."""
    key = key_of(saved)
    objects = world.storage.objects
    if saved.ref.name in world.given_up or saved.collection == "rolling":
        return
    if key not in objects or key + TOMBSTONE in objects:
        world.storage.fail(f"{key} was acknowledged, and is gone")


async def read(world: World, store: AsyncCheckpointStore) -> None:
    """Load the latest of a collection, or any."""
    rng, storage = world.random, world.storage
    one: Checkpoint | None
    try:
        if rng.random() < 0.5 and world.acknowledged:
            one = rng.choice(list(world.acknowledged.values()))
        else:
            one = await store.latest(rng.choice(COLLECTIONS))
        if one is not None:
            await check_load(world, store, one)
            storage.counts["loads"] += 1
    except (CheckpointNotFoundError, CheckpointDeletedError):
        storage.counts["loads of what is gone"] += 1
    except CheckpointStoreError as exc:
        storage.counts[f"{type(exc).__name__} of a reader"] += 1
    await world.rest(0.4)


async def check_load(world: World, store: AsyncCheckpointStore, one: Checkpoint) -> None:
    key = key_of(one)
    try:
        loaded = await store.load(one)
    except IntegrityError as exc:
        if key in world.storage.objects and world.storage.must_be_whole(key):
            world.storage.fail(f"{key} cannot be loaded: {exc}")
        return
    expected = values(tuple(one.metadata["numbers"]))
    if list(loaded) != list(expected) or any(not np.array_equal(loaded[n], expected[n]) for n in expected):
        world.storage.fail(f"{key} was loaded with other values")


async def collect(world: World, store: AsyncCheckpointStore) -> None:
    """Collect; one that was in doubt, or was not to delete, has deleted nothing (I6)."""
    rng, storage = world.random, world.storage
    backend = store._engine.backend
    who = (backend.inner if isinstance(backend, RetryBackend) else backend).who  # type: ignore[attr-defined]
    before = storage.deleted[who]
    dry_run = rng.random() < 0.1
    may_delete = not dry_run
    try:
        await store.collect_garbage(force=rng.random() < 0.9, dry_run=dry_run)
        storage.counts["collections"] += 1
    except GCAbortedError:
        may_delete = False
        storage.counts["collections aborted"] += 1
    except BackendError as exc:
        storage.counts[f"{type(exc).__name__} of a collector"] += 1
    if storage.deleted[who] != before and not may_delete:
        storage.fail(f"I6: {who} has deleted something")
    await world.rest(rng.choice([0.1, 0.6]))


async def check_end(world: World) -> None:
    """When all is quiet: the store is what its keys say, all of it loads, and no garbage is left."""
    storage = world.storage
    await asyncio.sleep(3 * world.weather.grace_s)
    fair = replace(
        world.weather,
        **dict.fromkeys(("lost", "answer_lost", "late", "refused", "slow", "stalls", "lies"), 0.0),
    )
    store = await world.open(SimulatedBackend(storage, "collector.last", fair))
    for one in world.acknowledged.values():
        check_acknowledged(world, one)
    for collection in COLLECTIONS:
        listed = [one async for one in store.list(collection)]
        if [one.ref.name for one in listed] != live_names(storage, collection):
            storage.fail(f"I5: {collection} is listed as {listed}")
        for one in listed:
            await check_load(world, store, one)
    await store.collect_garbage(force=True)
    needed = frozenset[str]().union(*storage.named.values())
    left = {key for key in storage.objects if key.startswith(CHUNKS) or "gc/" in key}
    if left != needed:
        storage.fail(f"garbage is left, or data missing: {sorted(left ^ needed)[:3]}")
    dead = [key for key in storage.objects if key.startswith(MANIFESTS) and key.endswith(TOMBSTONE)]
    if [key for key in dead if key.removesuffix(TOMBSTONE) in storage.objects]:
        storage.fail(f"deleted checkpoints are left: {dead[:3]}")
    await store.aclose()


@dataclass(frozen=True)
class Outcome:
    """What became of a world."""

    seed: int
    broken: str | None
    counts: Counter[str]
    trace: list[str]


def weather_of(rng: random.Random, name: str | None) -> Weather:
    chosen = name or rng.choice(list(WEATHERS))
    weather = Weather(**WEATHERS[chosen])
    # In half of the worlds the times of the protocol fit with nothing to spare.
    return weather if rng.random() < 0.5 else replace(weather, max_save_s=weather.grace_s / 2)


def simulate(seed: int, weather: str | None = None, *, n_days: float = DAYS) -> Outcome:
    """Live through the world of this seed, ``n_days`` graces long, until its end or until a promise is broken."""
    with drawn_from(seed) as rng:

        async def main(loop: asyncio.AbstractEventLoop) -> Outcome:
            chosen = weather_of(rng, weather)
            storage = SimulatedStorage(loop, rng, chosen)
            world = World(loop, rng, chosen, storage)
            maker = await world.open(SimulatedBackend(storage, "maker", Weather(spread_s=0.0)))
            storage.store_id = maker.store_id
            await maker.aclose()
            roles = {
                "writer": write,
                "writer two": write,
                "reader": read,
                "collector": collect,
                "collector two": collect,
            }
            people = [asyncio.ensure_future(process(world, role, body)) for role, body in roles.items()]
            await asyncio.wait([storage.is_broken], timeout=n_days * chosen.grace_s)
            world.over = True
            await asyncio.wait(people)
            if storage.broken is None:
                await check_end(world)
            return Outcome(seed, storage.broken, storage.counts, storage.trace)

        return run_to_end(main)


if __name__ == "__main__":
    logging.disable()
    first, n_seeds = (
        (int(sys.argv[1]) if len(sys.argv) > 1 else 0),
        int(sys.argv[2]) if len(sys.argv) > 2 else 1,
    )
    totals: Counter[str] = Counter()
    for seed in range(first, first + n_seeds):
        outcome = simulate(seed)
        totals += outcome.counts
        if outcome.broken or n_seeds == 1:
            print("\n".join(outcome.trace[-60:]))
            print(f"seed {seed}: {outcome.broken or 'nothing is broken'}")
            if outcome.broken:
                break
    print(dict(totals))
