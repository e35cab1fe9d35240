"""Garbage collection through both doors of the store."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seaweed

from ckptstore import AsyncCheckpointStore, GCReport, StoreConfig, last
from ckptstore._collect import collect
from ckptstore.errors import CheckpointNotFoundError, ConfigError, GCAbortedError

CONFIG = StoreConfig(durability="os", chunk_bytes=8192, inline_bytes=64, codec="raw")
GRACE_S = CONFIG.grace_s


def values(seed: int) -> dict[str, Any]:
    return {"same": np.arange(4000), "own": np.random.default_rng(seed).standard_normal(5000)}


def is_values(loaded: dict[str, Any], seed: int) -> bool:
    return all(np.array_equal(loaded[name], value) for name, value in values(seed).items())


@pytest.fixture(params=["memory", "local"])
def aging(request: pytest.FixtureRequest, open_store: Any, tmp_path: Path) -> tuple[Any, Any]:
    """A store, and a function that lets all that is in it grow older."""
    if request.param == "memory":
        space: dict[str, Any] = {}
        return open_store("memory://", CONFIG, space=space), lambda seconds: space.update(
            {key: (data, then - seconds) for key, (data, then) in space.items()}
        )

    def age(seconds: float) -> None:
        for path in (tmp_path / "store").rglob("*"):
            if path.is_file():
                then = path.stat().st_mtime - seconds
                os.utime(path, (then, then))

    return open_store(None, CONFIG), age


def test_what_retention_deletes_is_collected_after_the_grace(aging: Any) -> None:
    store, age = aging
    saved = [store.save("c", values(seed), keep=last(2)) for seed in range(6)]
    assert len(store.list("c")) == 2
    nothing = store.collect_garbage()
    assert (nothing.n_checkpoints, nothing.freed_bytes, nothing.n_failed) == (6, 0, 0)
    age(GRACE_S + 60)
    told = store.collect_garbage(dry_run=True)
    assert len(store.list("c")) == 2
    with pytest.raises(GCAbortedError, match=r"force=True"):
        store.collect_garbage()
    done = store.collect_garbage(force=True)
    assert isinstance(done, GCReport)
    assert asdict(done) | {"run": "", "dry_run": True} == asdict(told) | {"run": ""}
    assert (done.n_checkpoints, done.n_purged) == (2, 4)
    # Each has 40,000 bytes of its own.
    assert done.garbage_bytes == 4 * 40_000
    assert done.chunk_bytes == 32_000 + 6 * 40_000
    assert done.freed_bytes == done.garbage_bytes + done.purged_bytes
    assert [is_values(store.load(one), seed) for seed, one in enumerate(saved) if seed > 3] == [True, True]
    with pytest.raises(CheckpointNotFoundError):
        store.undelete(saved[0])
    again = store.collect_garbage()
    assert (again.freed_bytes, again.chunk_bytes) == (0, 32_000 + 2 * 40_000)
    assert is_values(store.load(store.save("c", values(7))), 7)


def test_what_is_undeleted_in_time_keeps_its_data(aging: Any) -> None:
    store, age = aging
    first = store.save("c", values(1))
    store.save("c", values(2))
    store.delete(first)
    age(GRACE_S / 2 - 60)
    store.undelete(first)
    age(GRACE_S)
    assert store.collect_garbage(force=True).freed_bytes == 0
    assert is_values(store.load(first), 1)


def test_a_save_reuses_nothing_that_a_collection_took(aging: Any) -> None:
    store, age = aging
    first = store.save("c", values(1))
    store.delete(first)
    age(GRACE_S + 60)
    store.collect_garbage(force=True)
    assert is_values(store.load(store.save("c", values(1))), 1)


def test_collections_beside_a_background_save_do_not_wait_for_it(aging: Any) -> None:
    store, age = aging
    store.save("c", values(0))
    age(GRACE_S + 60)
    for seed in range(1, 5):
        pending = store.save("c", values(seed), wait=False)
        assert store.collect_garbage().n_garbage == 0
        assert is_values(store.load(store.committed(pending)), seed)


def test_an_exclusive_store_has_a_grace_of_its_own(open_store: Any, tmp_path: Path) -> None:
    config = StoreConfig(durability="os", exclusive=True, grace_s=30.0, codec="raw")
    store = open_store(None, config)
    gone = store.save("c", values(1))
    kept = store.save("c", values(2))
    store.delete(gone)
    assert store.collect_garbage(force=True).freed_bytes == 0
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (path.stat().st_mtime - 31,) * 2)
    assert store.collect_garbage(force=True).n_purged == 1
    assert is_values(store.load(kept), 2)


def test_wrong_words_are_refused(store: Any) -> None:
    for options in ({"dry_run": "no"}, {"force": 1}):
        with pytest.raises(ConfigError, match="must be a bool"):
            store.collect_garbage(**options)


def test_a_young_store_is_left_as_it_is(store: Any) -> None:
    first = store.save("c", values(1))
    store.delete(store.save("c", values(2)))
    for dry_run in (True, False):
        report = store.collect_garbage(dry_run=dry_run)
        assert (report.n_checkpoints, report.n_purged, report.n_garbage) == (2, 0, 0)
        assert (report.n_foreign, report.n_failed) == (0, 0)
        assert report.n_chunks > 0
    assert is_values(store.load(first), 1)


def test_garbage_goes_from_a_real_server(run: Any) -> None:
    """Nobody can wait for a grace on a server: the collection is told one that is over already."""

    async def main() -> None:
        server = seaweed.server()
        store = await AsyncCheckpointStore.open(server.new_url(), config=CONFIG, **server.options)
        async with store:
            saved = [await store.save("c", values(seed)) for seed in range(4)]
            for one in saved[:3]:
                await store.delete(one)
            before = [info async for info in store._engine.backend.list("")]
            options = {"store_id": store.store_id, "grace_s": -3600.0, "clock": store._clock}
            told = await collect(store._engine, dry_run=True, force=False, **options)
            assert [info.key async for info in store._engine.backend.list("")] == [one.key for one in before]
            done = await collect(store._engine, dry_run=False, force=True, **options)
            assert (done.n_purged, done.garbage_bytes) == (3, 3 * 40_000) == (3, told.garbage_bytes)
            left = [info async for info in store._engine.backend.list("")]
            tombstones = [one for one in before if one.key.endswith(".x")]
            assert sum(one.size for one in before) - sum(one.size for one in left) == done.freed_bytes
            assert {one.key for one in tombstones} <= {one.key for one in left}
            assert is_values(await store.load(saved[3]), 3)
            await collect(store._engine, dry_run=False, force=True, **options)
            assert not [key async for key in store._engine.backend.list("") if key.key.endswith(".x")]

    run(main())
