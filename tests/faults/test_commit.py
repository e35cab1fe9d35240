"""The commit: what became of the manifest is found out, in time, and never claimed without knowing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from rig import Faulty, Storage, everything, is_values, nothing_is_left, values

from ckptstore import AsyncCheckpointStore, _commit
from ckptstore._clock import Clock
from ckptstore.backends.base import Backend, Buffer
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import (
    AccessDeniedError,
    CommitUnknownError,
    IntegrityError,
    SaveExpiredError,
    UnavailableError,
)
from ckptstore.testing import Fault, RecordingBackend

MANIFEST = "manifests/c/f"  # not the collection's marker
MAX_SAVE_S = 43_200.0


class SetClock(Clock):
    """Both clocks show what a test sets."""

    def __init__(self) -> None:
        self.boot, self.wall = 1000.0, 1_700_000_000.0

    def boot_s(self) -> float:
        return self.boot

    def wall_s(self) -> float:
        return self.wall

    def advance(self, which: str, seconds: float) -> None:
        if which in ("boot", "both"):
            self.boot += seconds
        if which in ("wall", "both"):
            self.wall += seconds


class Hooked(Faulty):
    """Calls ``on_put(key)`` before each put that is carried out, and ``after_put(key)`` after it."""

    on_put: Callable[[str], Awaitable[None]] | None = None
    after_put: Callable[[str], Awaitable[None]] | None = None

    async def put(self, key: str, data: Buffer, **options: Any) -> Any:
        if self.on_put is not None:
            await self.on_put(key)
        info = await super().put(key, data, **options)
        if self.after_put is not None:
            await self.after_put(key)
        return info


Scenario = Callable[[AsyncCheckpointStore, Hooked], Awaitable[None]]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commit, "_BACKOFF_S", (0.0, 0.0))


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.param, tmp_path / "store")


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def over(storage: Storage, clock: SetClock) -> Callable[[Scenario], None]:
    """Run a scenario over a store that holds one checkpoint, ``values(0)``, and its backend."""

    def run(scenario: Scenario) -> None:
        async def main() -> None:
            backends: list[Hooked] = []

            def wrap(inner: Backend) -> Backend:
                if isinstance(inner, MemoryBackend):
                    inner._clock = clock.wall_s
                backends.append(Hooked(inner))
                return backends[0]

            clock.wall = 1_700_000_000.0 if storage.kind == "memory" else Clock().wall_s()
            store = await storage.open(wrap, clock=clock)
            await store.save("c", values(0))
            await scenario(store, backends[0])
            nothing_is_left(store)
            await store.aclose()

        asyncio.run(main())

    return run


async def seeds(storage: Storage) -> list[int]:
    found = await everything(storage)
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    return [loaded["seed"] for _, loaded in found]


@pytest.mark.parametrize("lost_reads", [0, 1, 3])
def test_a_commit_whose_answer_was_lost_is_found(over: Any, storage: Storage, lost_reads: int) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        backend.arm(
            Fault(verb="put", prefix=MANIFEST, when="after"),
            Fault(verb="get", prefix=MANIFEST, times=lost_reads, nth=1 if lost_reads else 10**9),
        )
        saved = await store.save("c", values(1))
        assert len([key for key in backend.sent if key.endswith(saved.ref.name)]) == 1
        assert await seeds(storage) == [1, 0]

    over(scenario)


def test_a_commit_that_did_not_arrive_is_sent_again(over: Any, storage: Storage) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        backend.arm(Fault(verb="put", prefix=MANIFEST, times=5))
        saved = await store.save("c", values(1))
        assert len([key for key in backend.sent if key.endswith(saved.ref.name)]) == 6
        assert await seeds(storage) == [1, 0]

    over(scenario)


def test_other_bytes_under_the_commits_key_are_an_error_and_stay(over: Any, storage: Storage) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        landed = []

        async def other(key: str) -> None:
            if key.startswith(MANIFEST) and not landed:
                landed.append(key)
                await backend.inner.put(key, b"other bytes")
                raise UnavailableError("the test's fault")

        backend.on_put = other
        with pytest.raises(IntegrityError, match=r"other bytes .*manifests/c/f"):
            await store.save("c", values(1))
        assert await backend.inner.get(landed[0]) == b"other bytes"
        assert len(landed) == 1

    over(scenario)


@pytest.mark.parametrize("arrives", [True, False])
def test_a_commit_nobody_can_tell_of_is_unknown_and_named(over: Any, storage: Storage, arrives: bool) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        chunks = set(storage.chunks())
        backend.arm(
            Fault(verb="put", prefix=MANIFEST, when="after" if arrives else "before", times=None),
            Fault(verb="get", prefix=MANIFEST, times=None),
        )
        with pytest.raises(CommitUnknownError, match="manifests/c/f") as caught:
            await store.save("c", values(1))
        assert backend.sent[-1] in str(caught.value)
        assert isinstance(caught.value.__cause__, UnavailableError)
        # The manifest may still appear: its chunks must be there then.
        assert set(storage.chunks()) > chunks
        assert await seeds(storage) == ([1, 0] if arrives else [0])

    over(scenario)


def test_a_refused_commit_is_the_storages_own_error(over: Any, storage: Storage) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        refused = Fault(verb="put", prefix=MANIFEST, error=lambda: AccessDeniedError("no"))
        backend.arm(refused)
        with pytest.raises(AccessDeniedError):
            await store.save("c", values(1))
        assert await seeds(storage) == [0]
        backend.arm(Fault(verb="put", prefix=MANIFEST, when="after"), Fault(verb="get", error=refused.error))
        with pytest.raises(CommitUnknownError):  # the first may have landed, and has
            await store.save("c", values(2))
        assert await seeds(storage) == [2, 0]

    over(scenario)


def test_what_is_saved_after_an_unknown_commit_sorts_above_it(over: Any, storage: Storage) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        for seed in range(1, 21):
            backend.arm(
                Fault(verb="put", prefix=MANIFEST, when="after"),
                Fault(verb="get", error=lambda: AccessDeniedError("no")),
            )
            with pytest.raises(CommitUnknownError):
                await store.save("c", {"seed": -seed}, label="a")
            backend.arm()
            saved = await store.save("c", {"seed": seed}, label="z")
            assert (await store.latest("c")).ref == saved.ref  # type: ignore[union-attr]

    over(scenario)


@pytest.mark.parametrize("which", ["boot", "wall"])
def test_a_save_that_took_too_long_commits_nothing_and_leaves_nothing(
    over: Any, storage: Storage, clock: SetClock, which: str
) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        keys = storage.keys()

        async def slow(key: str) -> None:
            clock.advance(which, MAX_SAVE_S + 1)

        backend.on_put = slow
        with pytest.raises(SaveExpiredError, match="grace_s"):
            await store.save("c", values(1))
        assert storage.keys() == keys
        backend.on_put = None
        await store.save("c", values(2))
        assert await seeds(storage) == [2, 0]

    over(scenario)


@pytest.mark.parametrize("which", ["boot", "wall", "store"])
@pytest.mark.parametrize("collected", [False, True])
def test_a_late_commit_stays_unless_a_chunk_of_it_was_collected(
    tmp_path: Path, clock: SetClock, which: str, collected: bool
) -> None:
    async def main() -> None:
        storage = Storage("memory", tmp_path)
        backends: list[Hooked] = []
        store_clock = SetClock()

        def wrap(inner: Backend) -> Backend:
            assert isinstance(inner, MemoryBackend)
            inner._clock = store_clock.wall_s
            backends.append(Hooked(inner))
            return backends[0]

        store = await storage.open(wrap, clock=clock)
        await store.save("c", values(0))
        before = set(storage.chunks())

        async def late(key: str) -> None:
            if key.startswith(MANIFEST):
                (store_clock if which == "store" else clock).advance(
                    "wall" if which == "store" else which, MAX_SAVE_S + 1
                )
                if collected:
                    del storage.space[next(key for key in storage.chunks() if key not in before)]

        backends[0].on_put = late
        if collected:
            with pytest.raises(SaveExpiredError):
                await store.save("c", values(1))
            assert len([key for key in storage.space if key.endswith(".x")]) == 1
        else:
            await store.save("c", values(1))
        backends[0].on_put = None
        nothing_is_left(store)
        await store.aclose()
        assert await seeds(storage) == ([0] if collected else [1, 0])

    asyncio.run(main())


def test_a_late_commit_that_cannot_be_checked_is_unknown(
    over: Any, storage: Storage, clock: SetClock
) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        async def late(key: str) -> None:
            if key.startswith(MANIFEST):
                clock.advance("both", MAX_SAVE_S + 1)

        backend.on_put = late
        backend.arm(Fault(verb="head", prefix="chunks/"))
        with pytest.raises(CommitUnknownError, match="manifests/c/f"):
            await store.save("c", values(1))

    over(scenario)


def test_no_manifest_is_sent_again_after_the_deadline(over: Any, storage: Storage, clock: SetClock) -> None:
    async def scenario(store: AsyncCheckpointStore, backend: Hooked) -> None:
        async def late(key: str) -> None:
            if key.startswith(MANIFEST):
                clock.advance("both", MAX_SAVE_S + 1)

        backend.on_put = late
        backend.arm(Fault(verb="put", prefix=MANIFEST))
        sent = len(backend.sent)
        with pytest.raises(CommitUnknownError, match="manifests/c/f"):
            await store.save("c", values(1))
        assert len([key for key in backend.sent[sent:] if key.startswith(MANIFEST)]) == 1
        assert await seeds(storage) == [0]

    over(scenario)


@pytest.mark.parametrize("deleted", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_a_base_known_long_ago_is_looked_for_again_and_dropped_if_deleted(
    storage: Storage, clock: SetClock, deleted: bool, old: bool
) -> None:
    async def main() -> None:
        backends: list[RecordingBackend] = []

        def wrap(inner: Backend) -> Backend:
            backends.append(RecordingBackend(inner))
            return backends[0]

        clock.wall = Clock().wall_s()
        store = await storage.open(wrap, clock=clock)
        base = await store.save("c", values(0))
        if deleted:
            other = await storage.open()
            await other.delete(base)
            await other.aclose()
        if old:
            clock.advance("boot", MAX_SAVE_S / 2 + 1)
        backends[0].requests.clear()
        saved = await store.save("c", values(0))
        n_sent = len(backends[0].of("put", "chunks/"))
        assert n_sent == (saved.sizes.n_chunks if old and deleted else 0)
        assert len(backends[0].of("list")) == (1 if old else 0)
        await store.aclose()

    asyncio.run(main())
