"""A storage that does whatever a storage may do, and notices at once when a promise of the store is broken."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from simulation_loop import EPOCH_S

from ckptstore._keys import CHUNKS, COLLECTION_MARKER, MANIFESTS, TOMBSTONE, collection_of, parse_name
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.config import Limits
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    BackendProtocolError,
    ObjectNotFoundError,
    ThrottledError,
    UnavailableError,
)
from ckptstore.manifest import ManifestSource, decode_summary, decode_table

T = TypeVar("T")

LIMITS = Limits()
_PAGE = 12


@dataclass(frozen=True, kw_only=True)
class Weather:
    """How bad it is: shares of requests that fail in each way, and how long things take."""

    grace_s: float = 8000.0
    max_save_s: float = 6000.0
    zombie_s: float = 900.0
    spread_s: float = 1000.0
    lost: float = 0.0
    answer_lost: float = 0.0
    late: float = 0.0
    refused: float = 0.0
    slow: float = 0.0
    slow_s: float = 300.0
    stalls: float = 0.0
    """The share of answers that are only heard after up to one and a half graces."""
    lies: float = 0.0


@dataclass
class SimulatedStorage:
    """The objects, and what is known of them; every change is checked."""

    loop: asyncio.AbstractEventLoop
    random: random.Random
    weather: Weather
    store_id: str = ""
    objects: dict[str, tuple[bytes, float]] = field(default_factory=dict)
    named: dict[str, frozenset[str]] = field(default_factory=dict)
    """The chunks of every manifest that stands there."""
    written: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    """The bytes of every key that was ever put, and by whom."""
    counts: Counter[str] = field(default_factory=Counter)
    deleted: Counter[str] = field(default_factory=Counter)
    """How many chunks and manifests each process has deleted."""
    trace: list[str] = field(default_factory=list)
    broken: str | None = None

    def __post_init__(self) -> None:
        self.is_broken: asyncio.Future[None] = self.loop.create_future()

    def clock_s(self) -> float:
        """The storage's clock, wrong by at most half the spread, differently each time."""
        half_s = self.weather.spread_s / 2
        return EPOCH_S + self.loop.time() + self.random.uniform(-half_s, half_s)

    def note(self, what: str) -> None:
        self.trace.append(f"{self.loop.time():9.1f} {what}")

    def fail(self, what: str) -> None:
        if self.broken is None:
            self.broken = f"at {self.loop.time():.1f} s: {what}"
            self.note(what)
            self.is_broken.set_result(None)

    def is_deleted(self, manifest: str) -> bool:
        """Tell whether the checkpoint is there, and deleted."""
        return manifest in self.objects and manifest + TOMBSTONE in self.objects

    def must_be_whole(self, manifest: str) -> bool:
        """Tell whether the checkpoint is live, or was deleted less than the grace ago (I2)."""
        tombstone = self.objects.get(manifest + TOMBSTONE)
        if tombstone is None:
            return True
        return self.clock_now_s() - tombstone[1] < self.weather.grace_s - self.weather.spread_s

    def clock_now_s(self) -> float:
        """The right time, which nobody in the simulation knows."""
        return EPOCH_S + self.loop.time()

    def put(self, key: str, data: bytes, who: str) -> float:
        before = self.written.get(key)
        unique = key.startswith(CHUNKS) or _is_manifest(key)
        if unique and "~gc/" not in key and before is not None and before != (data, who):
            self.fail(f"I3: {who} writes {key}, which {before[1]} wrote")
        self.written[key] = data, who
        modified_s = self.clock_s()
        self.objects[key] = data, modified_s
        self.note(f"{who} put {key}")
        if _is_manifest(key):
            self.counts["committed"] += 1
            self.named[key] = self._chunks_of(key, data)
            self._check_whole(key, "I1")
        return modified_s

    def delete(self, key: str, who: str) -> None:
        if key not in self.objects:
            return
        if key.startswith(CHUNKS) and "~gc/" not in key:
            self.deleted[who] += 1
            self._check_chunk_goes(key, who)
        if _is_manifest(key):
            if self.must_be_whole(key) or not who.startswith("collector"):
                self.fail(f"I4: {who} deletes {key}")
            self.named.pop(key, None)
            self.deleted[who] += 1
            self.counts["purged"] += 1
        del self.objects[key]
        self.note(f"{who} delete {key}")
        if key.endswith(TOMBSTONE):
            manifest = key.removesuffix(TOMBSTONE)
            if manifest in self.objects:
                self.counts["undeleted"] += 1
                self._check_whole(manifest, "I2")

    def _check_chunk_goes(self, key: str, who: str) -> None:
        self.counts["chunks deleted"] += 1
        for manifest, chunks in self.named.items():
            if key in chunks and self.must_be_whole(manifest):
                self.fail(f"I2: {who} deletes {key} of {manifest}")
        if not who.startswith("collector"):
            self.counts["own chunks deleted"] += 1
            if self.written[key][1] != who:
                self.fail(f"I4: {who} deletes {key} of {self.written[key][1]}")

    def _check_whole(self, manifest: str, rule: str) -> None:
        if not self.must_be_whole(manifest):
            return
        missing = [key for key in self.named[manifest] if key not in self.objects]
        if missing:
            self.fail(f"{rule}: {manifest} lacks {missing[0]}")

    def _chunks_of(self, key: str, data: bytes) -> frozenset[str]:
        component, _, name = key[len(MANIFESTS) :].partition("/")
        collection = collection_of(component)
        assert collection is not None
        source = ManifestSource(self.store_id, collection, name)
        table = decode_table(data, decode_summary(data, source, LIMITS), source, LIMITS)
        return frozenset(chunk.key for chunk in table.chunks)


def _is_manifest(key: str) -> bool:
    return key.startswith(MANIFESTS) and parse_name(key.rpartition("/")[2]) is not None


class SimulatedBackend(Backend):
    """One process's way to the storage. When the process is ``dead`` nothing of it arrives any more."""

    def __init__(self, storage: SimulatedStorage, who: str, weather: Weather) -> None:
        self.storage = storage
        self.who = who
        self.weather = weather
        self.zombie_s = weather.zombie_s  # type: ignore[misc]  # the storage of this run
        self.dead = False
        self._may_lie = True

    @property
    def url(self) -> str:
        return "simulated://"

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        data = await self._request(lambda: self._at(key)[0])
        return data[start:] if length is None else data[start : start + length]

    async def head(self, key: str) -> ObjectInfo:
        def look() -> ObjectInfo:
            data, modified_s = self._at(key)
            return ObjectInfo(key, len(data), modified_s, self.storage.clock_s())

        return await self._request(look)

    async def put(self, key: str, data: Any, *, staged: bool = False, if_absent: bool = False) -> ObjectInfo:
        body = bytes(data)

        def land() -> ObjectInfo:
            if if_absent and key in self.storage.objects:
                modified_s = self.storage.objects[key][1]
            else:
                modified_s = self.storage.put(key, body, self.who)
            return ObjectInfo(key, len(body), modified_s, self.storage.clock_s())

        return await self._request(land, changes=True)

    async def delete(self, key: str) -> None:
        await self._request(lambda: self.storage.delete(key, self.who), changes=True)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        failed: dict[str, BackendError] = {}

        def land() -> None:
            for key in keys:
                if self._draws(self.weather.lost):
                    failed[key] = UnavailableError(f"cannot delete {key}")
                else:
                    self.storage.delete(key, self.who)

        await self._request(land, changes=True)
        return failed

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        rng, hide = self.storage.random, 0.0
        if self._may_lie and self._draws(self.weather.lies):
            lie = rng.choice(["empty", "cut", "hiding", "error"])
            self.storage.counts[f"lie: {lie}"] += 1
            self.storage.note(f"{self.who} is told a listing of {prefix} that is {lie}")
            if lie == "empty":
                await self._request(lambda: None)
                return
            if lie == "error":
                raise BackendProtocolError("an HTML page")
            # A storage that hides single keys does not hide the same twice in a row.
            self._may_lie = False
            hide = 0.3 if lie == "hiding" else 0.0
            left = rng.randint(0, 6) if lie == "cut" else None
        else:
            self._may_lie, left = True, None
        while True:
            page = await self._request(lambda: self._page(prefix, after))  # noqa: B023  # awaited at once
            for info in page:
                if left is not None and left <= 0:
                    return
                left = None if left is None else left - 1
                if not (hide and self._draws(hide) and "~gc/" not in info.key):
                    yield info
            if len(page) < _PAGE:
                return
            after = page[-1].key

    async def sync(self) -> None:
        await self._request(lambda: None)

    async def aclose(self) -> None:
        pass

    def _page(self, prefix: str, after: str) -> list[ObjectInfo]:
        storage = self.storage
        keys = sorted(key for key in storage.objects if key.startswith(prefix) and key > after)[:_PAGE]
        seen_s = storage.clock_s()
        return [
            ObjectInfo(key, len(storage.objects[key][0]), storage.objects[key][1], seen_s) for key in keys
        ]

    def _at(self, key: str) -> tuple[bytes, float]:
        try:
            return self.storage.objects[key]
        except KeyError:
            raise ObjectNotFoundError(f"no object {key}") from None

    def _draws(self, share: float) -> bool:
        return share > 0 and self.storage.random.random() < share

    async def _request(self, land: Callable[[], T], *, changes: bool = False) -> T:
        """Let a request arrive, or not, and its answer come back, or not."""
        storage, rng, weather = self.storage, self.storage.random, self.weather
        if self.dead:
            raise UnavailableError("the process is dead", transient=False)
        sent_s = storage.loop.time()
        slow = self._draws(weather.slow)
        try:
            await asyncio.sleep(rng.uniform(0, weather.slow_s if slow else 2.0))
        except asyncio.CancelledError:
            if changes and rng.random() < 0.5:
                self._land_late(land, sent_s)
            raise
        if self.dead:
            if changes and rng.random() < 0.5:
                self._land_late(land, sent_s)
            raise UnavailableError("the process is dead", transient=False)
        if self._draws(weather.refused):
            raise AccessDeniedError("refused")
        if self._draws(weather.lost):
            storage.counts["lost"] += 1
            raise rng.choice([UnavailableError, ThrottledError])("lost")
        if changes and self._draws(weather.late):
            self._land_late(land, sent_s)
            raise UnavailableError("no answer yet")
        answer = land()
        if self._draws(weather.answer_lost):
            storage.counts["answers lost"] += 1
            raise UnavailableError("the answer was lost")
        if self._draws(weather.stalls):
            storage.counts["stalls"] += 1
            await asyncio.sleep(rng.uniform(0, 1.5 * weather.grace_s))
        elif slow or rng.random() < 0.2:
            await asyncio.sleep(rng.uniform(0, weather.slow_s if slow else 2.0))
        return answer

    def _land_late(self, land: Callable[[], object], sent_s: float) -> None:
        """Given up, and it arrives all the same: up to Z after it was sent (B5)."""
        storage = self.storage
        storage.counts["late"] += 1
        left_s = sent_s + self.weather.zombie_s - storage.loop.time()
        storage.loop.call_later(storage.random.uniform(0, max(0.0, left_s)), land)


def live_names(storage: SimulatedStorage, collection: str) -> list[str]:
    """The names of a collection's live checkpoints, newest first: a function of the keys alone (I5)."""
    prefix = f"{MANIFESTS}{collection}/"
    names = [key[len(prefix) :] for key in storage.objects if key.startswith(prefix)]
    found = [
        name
        for name in names
        if name != COLLECTION_MARKER and parse_name(name) and name + TOMBSTONE not in names
    ]
    return sorted(found)
