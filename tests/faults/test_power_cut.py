"""Whatever a power cut leaves of a disk, what was acknowledged is there and what is listed can be read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gc_rig import GRACE_S, age
from power import Cut, Recorder, cuts
from rig import CONFIG, Storage, is_values, values

from ckptstore import AsyncCheckpointStore, StoreConfig, last
from ckptstore._workers import WorkerPool
from ckptstore.backends import _unsynced, local
from ckptstore.backends.local import LocalBackend
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import CheckpointStoreError

# Many chunks are on their way to the disk at once.
OPTIONS = {"durability": "full", "chunk_bytes": 4096, "io_concurrency": 6}
FULL = StoreConfig(**{name: getattr(CONFIG, name) for name in CONFIG.__slots__} | OPTIONS)


class Flushed(Storage):
    """A folder whose store flushes, as by default."""

    async def backend(self, workers: WorkerPool) -> LocalBackend:
        backend = LocalBackend(self.path, durability="full", executor=workers)
        await backend.open(create=True)
        return backend


async def life(storage: Storage, say: Callable[[Any], None]) -> None:
    """Do with a store all that can be done; ``say`` is told before and after each change of a checkpoint."""
    store = await storage.open(config=FULL)
    first = await store.save("c", values(0))
    say(("there", 0))
    pending = await store.save("c", values(1), wait=False)
    await pending.committed
    say(("there", 1))
    say(("leaving", 0))
    await store.delete(first)
    say(("gone", 0))
    await store.pin("c")
    await store.save("d/e", values(2), label="other")
    say(("there", 2))
    await store.save("c", values(3))
    say(("there", 3))
    say(("leaving", 3))
    newest = await store.save("c", values(4), keep=last(1))
    say(("there", 4))
    await store.retain("c", last(1))
    say(("gone", 3))
    await store.aclose()
    age(storage, GRACE_S + 10)
    store = await storage.open(config=FULL)
    report = await store.collect_garbage(force=True)
    assert report.n_purged == 2
    assert report.n_garbage
    say(("leaving", 4))
    await store.delete(newest)
    await store.undelete(newest)
    say(("there", 4))
    await store.save("c", values(5))
    say(("there", 5))
    await store.aclose()


def recorded(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the steps of such a life."""
    path.mkdir()
    with monkeypatch.context() as patch:
        recorder = Recorder(patch, path)
        asyncio.run(life(Flushed("local", path), recorder.say))
    return recorder.steps


async def open_after(cut: Cut, workers: WorkerPool, folder: Path | None) -> AsyncCheckpointStore:
    """Open what the cut has left: in a folder, or in memory, which is quicker."""
    if folder is None:
        space = {key: (data, 1e9) for key, data in cut.files.items() if "/.tmp-" not in f"/{key}"}
        return await AsyncCheckpointStore._over(MemoryBackend(space), workers, CONFIG)
    for name, data in cut.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    backend = LocalBackend(folder, durability="os", executor=workers)
    await backend.open(create=True)
    return await AsyncCheckpointStore._over(backend, workers, CONFIG)


async def check(store: AsyncCheckpointStore, said: list[Any]) -> None:
    """Look at all there is, as the next process does; then save."""
    found = {}
    async for one in store.list():
        loaded = await store.load(one)
        assert is_values(loaded, loaded["seed"]), "wrong data"
        found[loaded["seed"]] = one
    for seed, what in {seed: what for what, seed in said}.items():
        assert what != "there" or seed in found, f"acknowledged and lost: {seed}"
        assert what != "gone" or seed not in found, f"deleted and there again: {seed}"
    saved = await store.save("c", values(9))
    assert await store.latest("c") == saved
    for seed, one in found.items():
        assert is_values(await store.load(one), seed), "broken by the next save"


async def violations(
    steps: list[Any], folder: Path, *, n_most: int = 1, n_random: int = 0
) -> tuple[int, list[str]]:
    """Return how many states there were, and what was wrong with some of them.

    Every tenth state is looked at in a folder.
    """
    wrong: list[str] = []
    n = 0
    for cut in cuts(steps, n_random=n_random):
        n += 1
        workers = WorkerPool(2)
        try:
            store = await open_after(cut, workers, folder / str(n) if n % 10 == 0 else None)
            try:
                await check(store, cut.said)
            finally:
                await store.aclose()
        except (AssertionError, CheckpointStoreError) as exc:
            wrong.append(f"after {cut.n_steps} steps: {exc!r}")
            if len(wrong) == n_most:
                break
        finally:
            workers.shutdown(wait=False)
    return n, wrong


@pytest.mark.parametrize(
    "n_random", [2, pytest.param(300, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_every_state_that_a_power_cut_may_leave_is_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_random: int
) -> None:
    steps = recorded(tmp_path / "store", monkeypatch)
    n, wrong = asyncio.run(violations(steps, tmp_path, n_most=5, n_random=n_random))
    print(f"{len(steps)} steps, {n} states")
    assert not wrong, "\n".join(wrong)
    assert n >= 200


def close_only(unsynced: Any, key: str, fd: int, event: Any) -> None:
    """Do what ``_flush_file`` does, but the flush."""
    os.close(fd)
    with unsynced._lock:
        del unsynced._flushing[key]
    event.set()


MUTANTS: dict[str, list[tuple[Any, str, Any]]] = {
    "no flush of directories": [
        (LocalBackend, "_flush_folder", lambda *args: None),
        (_unsynced.UnsyncedFiles, "_flush_directory", lambda *args: None),
    ],
    "no flush of the manifest's directory": [(LocalBackend, "_flush_folder", lambda *args: None)],
    "no flush of the chunks' directories": [
        (_unsynced.UnsyncedFiles, "_flush_directory", lambda *args: None)
    ],
    "no flush of new directories": [(_unsynced.UnsyncedFiles, "settle", lambda *args: None)],
    "no flush of chunks": [(_unsynced.UnsyncedFiles, "_flush_file", close_only)],
    "no flush of manifests": [(local, "fsync", lambda fd: None)],
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_power_cut_catches_what_is_not_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mutant: str
) -> None:
    with monkeypatch.context() as patch:
        for place, name, instead in MUTANTS[mutant]:
            patch.setattr(place, name, instead)
        steps = recorded(tmp_path / "store", monkeypatch)
    _, wrong = asyncio.run(violations(steps, tmp_path))
    print(wrong)
    assert wrong
