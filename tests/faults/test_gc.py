"""What a garbage collection deletes, what it leaves, and what it says of both."""

from __future__ import annotations

import asyncio
import secrets
from pathlib import Path
from typing import Any

import pytest
from gc_rig import GRACE_S, Changed, age, collect, deleted, names, place, saved, size
from rig import Storage, everything, is_values

from ckptstore import _collect
from ckptstore._keys import CHUNKS, MANIFESTS, PIN, TOMBSTONE, chunk_key
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import CheckpointDeletedError, CheckpointNotFoundError


@pytest.fixture(params=["memory", "local"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    return Storage(request.param, tmp_path / "store")


def seeds(found: list[Any]) -> list[int]:
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    return [loaded["seed"] for _, loaded in found]


def test_data_of_a_deleted_checkpoint_goes_after_the_grace_and_shared_data_stays(
    storage: Storage, run: Any
) -> None:
    async def main() -> None:
        first, second = await saved(storage, 1, 2)
        alone = storage.chunks()
        await deleted(storage, first)
        age(storage, GRACE_S - 60)
        report = await collect(storage)
        assert (report.n_checkpoints, report.n_purged, report.n_garbage) == (2, 0, 0)
        assert storage.chunks() == alone
        store = await storage.open()
        assert is_values(await store.load(second), 2)
        await store.aclose()

        age(storage, 120)
        before = names(storage)
        report = await collect(storage)
        gone = set(before) - set(names(storage))
        chunks = {key for key in gone if key.startswith(CHUNKS)}
        assert gone - chunks == {f"{MANIFESTS}c/{first.ref.name}"}
        assert 0 < len(chunks) < len(alone)
        assert (report.n_checkpoints, report.n_purged, report.n_failed) == (1, 1, 0)
        assert (report.n_garbage, report.n_chunks) == (len(chunks), len(alone))
        assert seeds(await everything(storage)) == [2]
        assert (await collect(storage)).freed_bytes == 0
        store = await storage.open()
        for operation in (store.load, store.undelete, store.inspect):
            with pytest.raises((CheckpointDeletedError, CheckpointNotFoundError)):
                await operation(first)
        await store.aclose()

    run(main())


def test_a_dry_run_says_what_a_run_does_and_deletes_nothing(storage: Storage, run: Any) -> None:
    async def main() -> None:
        first, _ = await saved(storage, 1, 2)
        await deleted(storage, first)
        age(storage, 3 * GRACE_S)
        if storage.kind == "local":
            place(storage, "chunks/ab/.tmp-0123456789abcdef", b"12345", age_s=GRACE_S + 10)
        before, everything_before = names(storage), size(storage, names(storage))
        told = await collect(storage, dry_run=True)
        assert names(storage) == before
        assert size(storage, before) == everything_before
        done = await collect(storage)
        gone = set(before) - set(names(storage))
        assert told.dry_run
        assert not done.dry_run
        for name in ("n_checkpoints", "n_purged", "purged_bytes", "n_chunks", "chunk_bytes", "n_garbage"):
            assert getattr(told, name) == getattr(done, name), name
        assert told.garbage_bytes == done.garbage_bytes > 0
        assert told.freed_bytes == done.freed_bytes
        assert (told.n_unfinished, told.unfinished_bytes) == ((1, 5) if storage.kind == "local" else (0, 0))
        assert everything_before - size(storage, names(storage)) == done.freed_bytes - done.unfinished_bytes
        assert len(gone) == done.n_purged + done.n_garbage
        assert storage.unfinished() == []

    run(main())


def test_what_is_exactly_as_old_as_the_grace_stays(run: Any, tmp_path: Path) -> None:
    now = 1_800_000_000.0

    async def main() -> None:
        for younger_s in (0.0, -1e-3):
            storage = Storage("memory", tmp_path)
            kept, gone = await saved(storage, 1, 2)
            await deleted(storage, gone)
            orphan = chunk_key(b"\1" * 32, b"\2" * 8, "raw")
            storage.space[orphan] = b"x", 0.0
            tombstone = f"{MANIFESTS}c/{gone.ref.name}{TOMBSTONE}"
            for key in (orphan, tombstone):
                storage.space[key] = storage.space[key][0], now - GRACE_S + younger_s
            report = await collect(
                storage, lambda _, s=storage: MemoryBackend(s.space, clock=lambda: now), force=True
            )
            assert (orphan in storage.space) == (younger_s == 0)
            assert report.n_purged == (0 if younger_s == 0 else 1)
            assert (report.n_garbage == 0) == (younger_s == 0)
            assert f"{MANIFESTS}c/{kept.ref.name}" in storage.space

    run(main())


FOREIGN = (
    "README",
    "chunks/README",
    "chunks/ab/notes.txt",
    "chunks/ab/" + "ab" * 32,
    "chunks/ab/" + "cd" * 32 + ".0123456789abcdef.raw",
    "chunks/ab/" + "AB" * 32 + ".0123456789abcdef.raw",
    "chunks/~gc/notes",
    "chunks/~gc/" + "ab" * 16 + "/inside",
    "chunks/deep/er/.tmp-mine",
    "gc/notes.txt",
    "gc/" + "ab" * 16 + "/inside",
    "manifests/README",
    "manifests/c/notes.txt",
    "manifests/c/x.k",
    "manifests/c/deep/er",
    "manifests/~gc/notes",
    "manifests/~other/" + "ab" * 16,
    "manifests/C/notes",
    "somewhere/.tmp-0123456789abcdef",
    "manifests/c/.tmp-0123456789abcde",
    "manifests/c/.tmp-0123456789abcdef0",
)


def test_what_is_not_the_stores_own_is_left_alone_and_named(storage: Storage, run: Any) -> None:
    async def main() -> None:
        (first,) = await saved(storage, 1)
        for key in FOREIGN:
            place(storage, key, age_s=10 * GRACE_S)
        await deleted(storage, first)
        age(storage, 3 * GRACE_S)
        report = await collect(storage, force=True)
        assert report.n_purged == 1
        assert report.n_garbage > 0
        for key in FOREIGN:
            assert key in storage.space if storage.kind == "memory" else (storage.path / key).exists(), key
        shown = {key for key in FOREIGN if "/" in key and "somewhere" not in key}
        if storage.kind == "local":  # unfinished files, as it seems, are listed by nobody
            shown = {key for key in shown if ".tmp-" not in key}
        assert report.n_foreign == len(shown)
        assert set(report.foreign) == shown
        assert len(report.foreign) <= _collect._EXAMPLES

    run(main())


def test_what_crashed_runs_left_behind_goes_after_the_grace(storage: Storage, run: Any) -> None:
    run_id = secrets.token_hex(16)
    left = [f"gc/{run_id}", f"{MANIFESTS}~gc/{run_id}", f"{CHUNKS}~gc/{run_id}", f"gc/doctor-{'0a' * 8}.03"]

    async def main() -> None:
        await saved(storage, 1)
        for key in left:
            place(storage, key, age_s=GRACE_S - 60)
        if storage.kind == "local":
            place(storage, f"{MANIFESTS}c/.tmp-00112233445566aa", b"123", age_s=GRACE_S - 60)
        before = names(storage)
        assert (await collect(storage)).n_unfinished == 0
        assert names(storage) == before
        age(storage, 120)
        assert (await collect(storage, dry_run=True)).n_foreign == 0
        assert names(storage) == before
        report = await collect(storage)
        assert set(before) - set(names(storage)) == set(left)
        assert storage.unfinished() == []
        assert (report.n_unfinished, report.unfinished_bytes) == (
            (1, 3) if storage.kind == "local" else (0, 0)
        )

    run(main())


def test_tombstones_and_pins_outlive_their_manifest_by_a_grace(storage: Storage, run: Any) -> None:
    async def main() -> None:
        first, _ = await saved(storage, 1, 2)
        store = await storage.open()
        await store.pin(first)
        await store.delete(first)
        await store.aclose()
        key = f"{MANIFESTS}c/{first.ref.name}"
        age(storage, GRACE_S + 60)
        await collect(storage)
        assert {key + TOMBSTONE, key + PIN} <= set(names(storage))
        assert key not in names(storage)
        age(storage, GRACE_S - 120)
        await collect(storage)
        assert {key + TOMBSTONE, key + PIN} <= set(names(storage))
        age(storage, 120)
        await collect(storage)
        assert not [name for name in names(storage) if name.startswith(key)]
        assert seeds(await everything(storage)) == [2]

    run(main())


def test_a_manifest_that_was_hidden_does_not_outlive_its_tombstone(storage: Storage, run: Any) -> None:
    """A storage that hides it from both listings must not bring it back without its data."""

    async def main() -> None:
        first, _ = await saved(storage, 1, 2)
        await deleted(storage, first)
        age(storage, 2 * GRACE_S + 60)
        key = f"{MANIFESTS}c/{first.ref.name}"

        def wrap(inner: Any) -> Any:
            return Changed(inner, lambda _, info: None if info.key == key else info)

        await collect(storage, wrap)
        assert seeds(await everything(storage)) == [2]

    run(main())


def test_collections_at_once_delete_what_they_would_one_after_another(storage: Storage, run: Any) -> None:
    """At least what one would, and at most what all would: the tombstones too, of what another has purged."""

    async def main() -> None:
        first, second, _ = await saved(storage, 1, 2, 3)
        await deleted(storage, first, second)
        age(storage, 3 * GRACE_S)
        other = storage.copy("other")
        await collect(other, force=True)
        after_one = set(names(other))
        await collect(other, force=True)
        after_all = set(names(other))
        reports = await asyncio.gather(*(collect(storage, force=True) for _ in range(3)))
        assert after_all <= set(names(storage)) <= after_one
        assert {key for key in after_one - after_all if not key.endswith(TOMBSTONE)} == set()
        assert all(report.n_failed == 0 for report in reports)
        assert seeds(await everything(storage)) == [3]

    run(main())


def test_what_another_collection_purges_meanwhile_is_no_trouble(storage: Storage, run: Any) -> None:
    async def main() -> None:
        first, _ = await saved(storage, 1, 2)
        await deleted(storage, first)
        key = f"{MANIFESTS}c/{first.ref.name}"

        def wrap(inner: Any) -> Any:
            def purge(number: int, info: Any) -> Any:
                # It is listed with its tombstone, not yet due; and gone when it is read.
                if number == 1 and info.key == key + TOMBSTONE:
                    (storage.space.pop(key) if storage.kind == "memory" else (storage.path / key).unlink())
                return info

            return Changed(inner, purge)

        report = await collect(storage, wrap, force=True)
        assert report.n_purged == 0
        assert seeds(await everything(storage)) == [2]

    run(main())


def test_large_tables_are_taken_in_by_workers_as_small_ones_are(
    storage: Storage, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        first, _ = await saved(storage, 1, 2)
        await deleted(storage, first)
        age(storage, 3 * GRACE_S)
        told = await collect(storage, dry_run=True)
        monkeypatch.setattr(_collect, "_QUICK_CHUNKS", 0)
        assert (await collect(storage, dry_run=True)).garbage_bytes == told.garbage_bytes > 0

    run(main())


def test_of_many_foreign_objects_some_are_named(storage: Storage, run: Any) -> None:
    async def main() -> None:
        await saved(storage, 1)
        for n in range(30):
            place(storage, f"chunks/ab/mine-{n}")
        report = await collect(storage)
        assert (report.n_foreign, len(report.foreign)) == (30, 20)

    run(main())
