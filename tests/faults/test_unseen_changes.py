"""Promises of commit and collection that small changes of the code would break unseen."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gc_rig import GRACE_S, Changed, age, collect, place, saved
from rig import Storage

from ckptstore import _collect
from ckptstore._clock import Clock
from ckptstore._commit import TOMBSTONE_BYTES, Deadline, commit
from ckptstore._keys import CHUNKS, TOMBSTONE
from ckptstore._table import ChunkEntry
from ckptstore.backends.base import ObjectInfo
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import BackendError, SaveExpiredError

NOW_S = 1_700_000_000.0
KEY = "manifests/c/name"


class Still(Clock):
    """Stands still."""

    def boot_s(self) -> float:
        return 1000.0

    def wall_s(self) -> float:
        return NOW_S


class Telling(MemoryBackend):
    """Says with each answer which time it is, which is later than when the object was put."""

    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        return replace(await super().put(key, data, **options), seen_s=NOW_S + 61)


@pytest.mark.parametrize(("late", "missing"), [(True, True), (True, False), (False, True)])
def test_a_commit_is_as_late_as_the_storage_says_with_its_answer(late: bool, missing: bool) -> None:
    async def main() -> None:
        clock = Still()
        backend = (Telling if late else MemoryBackend)(clock=clock.wall_s)
        chunk = ChunkEntry(bytes(32), bytes(8), "raw", 1, 1)
        if not missing:
            await backend.put(chunk.key, b"x")
        work = commit(backend, KEY, b"m", deadline=Deadline(clock, clock.read(), 60.0), chunks=[chunk])
        if late and missing:
            with pytest.raises(SaveExpiredError):
                await work
            assert await backend.get(KEY + TOMBSTONE) == TOMBSTONE_BYTES
        else:
            await work
            assert KEY + TOMBSTONE not in backend.space

    asyncio.run(main())


class Undeletable(MemoryBackend):
    """Deletes no garbage of the test's."""

    async def delete(self, key: str) -> None:
        if key.startswith(CHUNKS + "ff"):
            raise BackendError(f"cannot delete {key}")
        await super().delete(key)


def test_what_several_batches_could_not_delete_is_told_of_all_and_shown_of_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_collect, "_DELETE_BATCH", 15)

    async def main() -> None:
        storage = Storage("memory", tmp_path)
        await saved(storage, 1)
        age(storage, 3 * GRACE_S)
        for n in range(50):
            place(storage, f"{CHUNKS}ff/{'ff' * 32}.{n:016x}.raw", b"123", age_s=3 * GRACE_S)
        report = await collect(storage, lambda _: Undeletable(storage.space), force=True)
        assert (report.n_failed, len(report.failed)) == (50, 20)
        assert (report.n_garbage, report.garbage_bytes) == (0, 0)

    asyncio.run(main())


def test_a_checkpoint_that_only_the_second_listing_shows_is_counted(tmp_path: Path) -> None:
    async def main() -> None:
        storage = Storage("memory", tmp_path)
        late = (await saved(storage, 1, 2))[0].ref.name
        report = await collect(
            storage,
            lambda inner: Changed(
                inner, lambda number, info: None if number == 1 and info.key.endswith(late) else info
            ),
            force=True,
        )
        assert (report.n_checkpoints, report.n_garbage) == (2, 0)

    asyncio.run(main())
