"""Run as a script: writers, readers and collectors on one store, for as long as they are told.

    python crew.py ORDERS      a JSON object, see ``Orders``; the last line of the output is a JSON object

Whatever happens in storage, network and other processes: what is acknowledged
is there, what is listed can be read, and nothing grows without end.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ckptstore import AsyncCheckpointStore, StoreConfig, last
from ckptstore.backends import open_backend
from ckptstore.backends.base import Backend
from ckptstore.errors import (
    BackendError,
    CheckpointDeletedError,
    CheckpointNotFoundError,
    CheckpointStoreError,
    CommitUnknownError,
    GCAbortedError,
    IntegrityError,
    SaveExpiredError,
)

KEPT = 3
N_COLLECTIONS = 4
SAME = np.random.default_rng(1).standard_normal(20_000)


@dataclass
class Orders:
    """Who does what, where and for how long. ``faulty``: the way to the storage breaks requests.

    ``at_least``: go on, for a minute at most, until so many of each have been counted.
    """

    url: str
    seconds: float
    seed: int
    name: str
    n_writers: int
    n_readers: int
    n_collectors: int
    grace_s: float
    zombie_s: float = 0.0
    faulty: bool = False
    at_least: dict[str, int] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


def values(n: int, who: str) -> dict[str, Any]:
    return {
        "same": SAME,
        "n": n,
        "who": who,
        "new": np.full(4000, n),
        "again": np.full(9000, n % 7, "float32"),
    }


def is_right(loaded: dict[str, Any]) -> bool:
    expected = values(loaded["n"], loaded["who"])
    return all(np.array_equal(loaded[name], value) for name, value in expected.items())


def resident_mib() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20


class Crew:
    """The actors of one process, what they count and what they have found wrong."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.sizes: list[dict[str, float]] = []
        self._until = float("inf")

    @property
    def is_on(self) -> bool:
        if self.violations:
            return False
        over_s = time.monotonic() - self._until
        missing = any(self.counts[what] < n for what, n in self.orders.at_least.items())
        return over_s < (60.0 if missing else 0.0)

    async def open(self) -> AsyncCheckpointStore:
        orders = self.orders
        config = StoreConfig(
            durability="os",
            chunk_bytes=65536,
            inline_bytes=64,
            encode_workers=1,
            io_concurrency=3,
            memory_bytes=4 << 20,
            grace_s=orders.grace_s,
            exclusive=True,  # that all who use the store are of this test is the promise
        )

        async def backend(executor: Executor) -> Backend:
            opened = await open_backend(orders.url, config=config, executor=executor, **orders.options)
            # A server on this machine answers within moments or never.
            opened.zombie_s = orders.zombie_s  # type: ignore[misc]
            return opened

        while True:
            try:
                return await AsyncCheckpointStore.open(backend, config=config)
            except BackendError:
                if not orders.faulty:
                    raise
                self.counts["opening failed"] += 1

    def wrong(self, what: str, exc: BaseException | None = None) -> None:
        self.violations.append(what if exc is None else f"{what}: {type(exc).__name__}: {exc}")

    def failed(self, what: str, exc: CheckpointStoreError) -> None:
        """Count a failure that may be; any other is a violation."""
        expected = (SaveExpiredError, CommitUnknownError, BackendError)
        if isinstance(exc, SaveExpiredError) or (self.orders.faulty and isinstance(exc, expected)):
            self.counts[f"{what} failed"] += 1
        else:
            self.wrong(what, exc)

    async def write(self, number: int, store: AsyncCheckpointStore) -> None:
        """Save in one collection as one run; look at what is there; begin anew now and then."""
        rng = random.Random(f"{self.orders.seed} {self.orders.name} {number}")
        run, collection = f"{self.orders.name}-{number}", f"c/{number % N_COLLECTIONS}"
        n, acknowledged = 0, -1
        try:
            while self.is_on:
                n += 1
                try:
                    wait = rng.random() < 0.5
                    saved = await store.save(
                        collection, values(n, run), run=run, keep=last(KEPT), metadata={"n": n}, wait=wait
                    )
                    if not wait:
                        saved = await saved.committed
                    acknowledged = n
                    self.counts["saved"] += 1
                    if rng.random() < 0.1:
                        acknowledged = -1  # should the way back fail
                        await store.delete(saved)
                        await store.undelete(saved)
                        acknowledged = n
                        self.counts["undeleted"] += 1
                    if rng.random() < 0.2:
                        await self.look_back(store, collection, run, acknowledged)
                except CheckpointDeletedError:  # it took us longer than the half of a grace of seconds
                    self.counts["undeleted too late"] += 1
                except CheckpointStoreError as exc:
                    self.failed("a save", exc)
                if rng.random() < 0.05:
                    await self.closed(store)
                    store = await self.open()
                await asyncio.sleep(rng.uniform(0, 0.05))
            await self.look_back(store, collection, run, acknowledged)
        except CheckpointStoreError as exc:
            self.failed("a look back", exc)
        finally:
            await self.closed(store)

    async def closed(self, store: AsyncCheckpointStore) -> None:
        try:
            await store.aclose()
        except CheckpointStoreError as exc:
            self.failed("a close", exc)

    async def look_back(
        self, store: AsyncCheckpointStore, collection: str, run: str, acknowledged: int
    ) -> None:
        """The newest of our run is what was acknowledged last, or newer where an answer was lost."""
        newest = await store.latest(collection, run=run)
        if acknowledged < 0:
            return
        if newest is None or newest.metadata["n"] < acknowledged:
            self.wrong(f"{run} acknowledged {acknowledged}, the newest is {newest}")
            return
        loaded = await store.load(newest)
        if not is_right(loaded):
            self.wrong(f"wrong data in {newest}")

    async def read(self, number: int, store: AsyncCheckpointStore) -> None:
        """Load what is listed. What is deleted meanwhile may be gone, and nothing else."""
        rng = random.Random(f"{self.orders.seed} {self.orders.name} reader {number}")
        try:
            while self.is_on:
                try:
                    async for found in store.list(f"c/{rng.randrange(N_COLLECTIONS)}"):
                        await self.read_one(store, found)
                        if not self.is_on or rng.random() < 0.1:
                            break
                except CheckpointStoreError as exc:
                    self.failed("a listing", exc)
                await asyncio.sleep(0.01)
        finally:
            await self.closed(store)

    async def read_one(self, store: AsyncCheckpointStore, found: Any) -> None:
        begun = time.monotonic()
        try:
            if not is_right(await store.load(found)):
                self.wrong(f"wrong data in {found}")
            self.counts["loaded"] += 1
        except (CheckpointDeletedError, CheckpointNotFoundError):
            self.counts["deleted while it was read"] += 1
        except IntegrityError as exc:
            if time.monotonic() - begun < self.orders.grace_s / 2:
                self.wrong(f"{found.ref}", exc)

    async def collect(self, number: int, store: AsyncCheckpointStore) -> None:
        try:
            while self.is_on:
                begun = time.monotonic()
                try:
                    report = await store.collect_garbage(force=True)
                    self.counts["collected"] += 1
                    self.counts["purged"] += report.n_purged
                    self.counts["garbage"] += report.n_garbage
                except GCAbortedError as exc:
                    self.counts["collection aborted"] += 1
                    # One that takes longer than the grace looks like a crashed one, and loses its canaries.
                    if not self.orders.faulty and time.monotonic() - begun < self.orders.grace_s / 2:
                        self.wrong("a collection", exc)
                except CheckpointStoreError as exc:
                    self.failed("a collection", exc)
                await asyncio.sleep(0.1)
        finally:
            await self.closed(store)

    async def measure(self) -> None:
        """Note what the process holds, twenty times."""
        pause_s = self.orders.seconds / 20
        while self.is_on:
            gc.collect()
            self.sizes.append(
                {
                    "mib": resident_mib(),
                    "files": len(os.listdir("/proc/self/fd")),
                    "threads": threading.active_count(),
                    "tasks": len(asyncio.all_tasks()),
                }
            )
            await asyncio.sleep(pause_s)

    async def work(self) -> None:
        orders = self.orders
        actors = [
            *((self.write, n) for n in range(orders.n_writers)),
            *((self.read, n) for n in range(orders.n_readers)),
            *((self.collect, n) for n in range(orders.n_collectors)),
        ]
        stores = await asyncio.gather(*(self.open() for _ in actors))
        # Clients of S3 take a second each to make on a busy machine: the time is for the work.
        self._until = time.monotonic() + orders.seconds
        await asyncio.gather(
            self.measure(), *(act(n, store) for (act, n), store in zip(actors, stores, strict=True))
        )
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:
            self.wrong(f"tasks left running: {left}")

    def growth(self) -> None:
        """What is held at the end is what was held when all had begun."""
        if len(self.sizes) < 12:
            return
        begin, end = self.sizes[5:9], self.sizes[-4:]
        for what, most in (("mib", 24.0), ("files", 24), ("threads", 6), ("tasks", 40)):
            # The least of a few: some work is always under way.
            before, after = min(size[what] for size in begin), min(size[what] for size in end)
            if after > before * 1.1 + most:
                self.wrong(f"{what} grew from {before:.0f} to {after:.0f}")


def main(text: str) -> None:
    crew = Crew(Orders(**json.loads(text)))
    asyncio.run(crew.work())
    crew.growth()
    print(
        json.dumps(
            {
                "violations": crew.violations,
                "counts": crew.counts,
                "first": crew.sizes[5:6],
                "last": crew.sizes[-1:],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
