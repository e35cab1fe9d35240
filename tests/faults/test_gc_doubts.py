"""A garbage collection that is in doubt deletes nothing; one that fails half-way breaks nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from gc_rig import GRACE_S, Changed, age, collect, deleted, names, own, place, read, saved
from rig import Faulty, Storage, everything, is_values

from ckptstore._keys import CHUNKS, MANIFESTS, TOMBSTONE
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    GCAbortedError,
    ObjectNotFoundError,
    StoreClosedError,
    StoreFullError,
    UnavailableError,
)
from ckptstore.testing import Fault, SlowBackend

Edit = Callable[[int, ObjectInfo], ObjectInfo | None]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage("memory", tmp_path / "store")


@pytest.fixture
def two(storage: Storage, run: Any) -> list[Any]:
    """Two checkpoints; the first is deleted, and due."""

    async def main() -> list[Any]:
        found = await saved(storage, 1, 2)
        await deleted(storage, found[0])
        age(storage, 3 * GRACE_S)
        return found

    return run(main())  # type: ignore[no-any-return]


def content(storage: Storage) -> dict[str, bytes]:
    return {key: read(storage, key) for key in names(storage) if "gc/" not in key}


def refused(storage: Storage, run: Any, match: str, *wraps: Any, **options: Any) -> GCAbortedError:
    """A collection that is refused, dry or not, deletes nothing, and leaves nothing of its own."""
    before = content(storage)
    for dry_run in (True, False):
        with pytest.raises(GCAbortedError, match=match) as caught:
            run(collect(storage, *wraps, dry_run=dry_run, **options))
        assert "nothing was deleted" in str(caught.value)
        assert content(storage) == before
        assert own(storage) == []
    return caught.value


def hiding(text: str) -> Edit:
    return lambda _, info: None if text in info.key else info


def swapping() -> Edit:
    seen: list[ObjectInfo] = []

    def edit(_: int, info: ObjectInfo) -> ObjectInfo:
        seen.append(info)
        return replace(info, key=seen[-2].key) if len(seen) == 3 else info

    return edit


LIES: dict[str, Edit] = {
    "empty": lambda _, __: None,
    "cut": lambda _, info: info if info.key < MANIFESTS + "c/6" else None,
    "without the canary": hiding("~gc/"),
    "repeated": swapping(),
    "from elsewhere": lambda _, info: replace(info, key="elsewhere/" + info.key),
}


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("prefix", [MANIFESTS, CHUNKS])
@pytest.mark.usefixtures("two")
def test_a_listing_that_lies_is_not_believed(storage: Storage, run: Any, prefix: str, lie: str) -> None:
    def wrap(inner: Backend) -> Backend:
        edit = LIES[lie] if lie != "repeated" else swapping()
        if lie == "cut" and prefix == CHUNKS:
            edit = hiding("~gc")
        return Changed(inner, edit, prefix=prefix)

    refused(storage, run, "is not believed", wrap, force=True)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.usefixtures("two")
def test_a_manifest_that_one_listing_hides_keeps_its_data(storage: Storage, run: Any, number: int) -> None:
    newest = min(key for key in names(storage) if key.startswith(MANIFESTS + "c/") and "~" in key)

    def edit(listing: int, info: ObjectInfo) -> ObjectInfo | None:
        return None if listing == number and info.key == newest else info

    async def main() -> None:
        await collect(storage, lambda inner: Changed(inner, edit), force=True)
        ((_, loaded),) = await everything(storage)
        assert is_values(loaded, 2)

    run(main())


def test_a_tombstone_that_one_listing_does_not_show_purges_nothing(
    storage: Storage, run: Any, two: list[Any]
) -> None:
    key = f"{MANIFESTS}c/{two[0].ref.name}"

    async def main() -> None:
        for number in (1, 2):

            def edit(listing: int, info: ObjectInfo, n: int = number) -> ObjectInfo | None:
                return None if listing == n and info.key == key + TOMBSTONE else info

            before = content(storage)
            report = await collect(storage, lambda inner, e=edit: Changed(inner, e), force=True)
            assert (report.n_purged, report.n_garbage) == (0, 0)
            assert content(storage) == before

    run(main())


@pytest.mark.parametrize(
    "there", ["chunks/in/ckptstore.json", "manifests/c/ckptstore.json", "gc/ckptstore.json"]
)
@pytest.mark.usefixtures("two")
def test_another_store_inside_is_not_touched(storage: Storage, run: Any, there: str) -> None:
    place(storage, there)
    refused(storage, run, "another store inside", force=True)


def test_a_manifest_that_cannot_be_read_keeps_all_data(storage: Storage, run: Any, two: list[Any]) -> None:
    key = f"{MANIFESTS}c/{two[1].ref.name}"
    data = read(storage, key)
    place(storage, key, data[:-1] + bytes([data[-1] ^ 1]), age_s=3 * GRACE_S)
    refused(
        storage, run, "cannot be read, so nobody knows .* Restore it, or delete that checkpoint", force=True
    )
    run(deleted(storage, two[1]))
    refused(storage, run, "deleted already, and blocks collections until 86400 s after", force=True)
    age(storage, GRACE_S + 60, [key + TOMBSTONE])
    report = run(collect(storage, force=True))
    assert report.n_purged == 2
    assert storage.chunks() == []


@pytest.mark.usefixtures("two")
def test_a_manifest_that_vanishes_while_it_is_read_is_an_alarm(storage: Storage, run: Any) -> None:
    def wrap(inner: Backend) -> Backend:
        gone = Fault(verb="get", prefix=MANIFESTS, error=lambda: ObjectNotFoundError("gone"))
        return Faulty(inner, gone)

    refused(storage, run, "cannot be read", wrap, force=True)


@pytest.mark.parametrize("key", ["manifests/c/future-name", "manifests/future", "manifests/~future/x"])
@pytest.mark.usefixtures("two")
def test_a_manifest_under_a_name_of_the_future_keeps_all_data(storage: Storage, run: Any, key: str) -> None:
    some = next(key for key in names(storage) if key.startswith(MANIFESTS + "c/") and "~" in key)
    place(storage, key, read(storage, some))
    refused(storage, run, "a manifest under a name that this release does not", force=True)


def test_what_cannot_be_looked_at_may_be_a_manifest(storage: Storage, run: Any, two: list[Any]) -> None:
    place(storage, "manifests/c/foreign")

    def failing(error: BackendError) -> Callable[[Backend], Backend]:
        return lambda inner: Faulty(
            inner, Fault(verb="get", prefix="manifests/c/foreign", error=lambda: error)
        )

    refused(storage, run, "not understood and cannot be read", failing(BackendError("a FIFO")), force=True)
    with pytest.raises(UnavailableError):
        run(collect(storage, failing(UnavailableError("down")), force=True))

    def vanishing(inner: Backend) -> Backend:
        return Faulty(
            inner, Fault(verb="get", prefix="manifests/c/foreign", error=lambda: ObjectNotFoundError("x"))
        )

    assert run(collect(storage, vanishing, force=True)).n_purged == 1


@pytest.mark.parametrize("jump_s", [-86_400 * 365, -7200, 7200, 86_400 * 365])
@pytest.mark.parametrize("nth", [2, 3, 6])
@pytest.mark.usefixtures("two")
def test_a_storage_whose_clock_jumps_is_not_believed(
    storage: Storage, run: Any, jump_s: int, nth: int
) -> None:
    def wrap(inner: Backend) -> Backend:
        times = 0

        def clock() -> float:
            nonlocal times
            times += 1
            return 2e9 + (jump_s if times >= nth else 0)

        # The times of heads and listings are read off the clock as well: all but the first few are after the jump.
        return MemoryBackend(storage.space, clock=clock)

    refused(storage, run, "the clock of memory:// went on by", wrap, force=True)


def test_most_of_a_store_goes_only_by_force(storage: Storage, run: Any) -> None:
    async def main() -> None:
        first, second = await saved(storage, 1, 2)
        await deleted(storage, first)
        age(storage, 2 * GRACE_S)
        assert (await collect(storage)).n_purged == 1  # less than half
        await deleted(storage, second)
        age(storage, 2 * GRACE_S)
        before = content(storage)
        for options in ({}, {"force": False}):
            with pytest.raises(
                GCAbortedError, match=r"no checkpoint at all.*dry_run=True, then say force=True"
            ):
                await collect(storage, **options)
            assert content(storage) == before
        told = await collect(storage, dry_run=True)
        assert told.garbage_bytes == told.chunk_bytes > 0
        assert (await collect(storage, force=True)).garbage_bytes == told.garbage_bytes
        assert storage.chunks() == []

        first, second = await saved(storage, 3, 4)
        place(storage, f"{CHUNKS}ab/{'ab' * 32}.{'cd' * 8}.raw", b"x" * 100_000, age_s=2 * GRACE_S)
        with pytest.raises(
            GCAbortedError, match=r"would delete \d\d% of its data \(1 chunks, 100000 bytes\)"
        ):
            await collect(storage)
        assert (await collect(storage, force=True)).n_garbage == 1
        assert len(await everything(storage)) == 2

    run(main())


class Undeletable(MemoryBackend):
    """Refuses to delete some keys."""

    def __init__(self, space: Any, error: type[BackendError], *parts: str) -> None:
        super().__init__(space)
        self._error, self._parts = error, parts

    async def delete(self, key: str) -> None:
        if any(part in key for part in self._parts):
            raise self._error(f"cannot delete {key}")
        await super().delete(key)


@pytest.mark.parametrize("where", [MANIFESTS, CHUNKS, ""])
@pytest.mark.usefixtures("two")
def test_without_the_right_to_delete_it_says_so_before_all_else(
    storage: Storage, run: Any, where: str
) -> None:
    before = content(storage)
    for dry_run in (False, True):
        with pytest.raises(AccessDeniedError, match=r"needs the right to delete, under \w+/ as well"):
            run(
                collect(
                    storage,
                    lambda _: Undeletable(storage.space, AccessDeniedError, where),
                    dry_run=dry_run,
                    force=True,
                )
            )
    assert content(storage) == before
    with pytest.raises(StoreFullError):
        run(collect(storage, lambda _: Undeletable(storage.space, StoreFullError, where), force=True))


def test_data_of_a_checkpoint_that_cannot_be_removed_stays(
    storage: Storage, run: Any, two: list[Any]
) -> None:
    name = two[0].ref.name
    before = storage.chunks()
    orphan = f"{CHUNKS}00/{'00' * 32}.{'cd' * 8}.raw"
    place(storage, orphan, age_s=3 * GRACE_S)
    report = run(collect(storage, lambda _: Undeletable(storage.space, AccessDeniedError, name), force=True))
    assert storage.chunks() == before
    assert (report.n_purged, report.purged_bytes, report.n_checkpoints) == (0, 0, 2)
    assert (report.n_garbage, report.garbage_bytes, report.n_failed) == (1, 1, 1)
    assert report.failed == {f"{MANIFESTS}c/{name}": f"cannot delete {MANIFESTS}c/{name}"}
    assert run(collect(storage, force=True)).n_purged == 1
    assert len(storage.chunks()) < len(before)


@pytest.mark.usefixtures("two")
def test_what_could_not_be_deleted_is_told_and_not_counted(storage: Storage, run: Any) -> None:
    told = run(collect(storage, dry_run=True))
    for n in range(50):
        place(storage, f"{CHUNKS}ff/{'ff' * 32}.{n:016x}.raw", b"123", age_s=3 * GRACE_S)
    report = run(
        collect(storage, lambda _: Undeletable(storage.space, BackendError, CHUNKS + "ff"), force=True)
    )
    assert (report.n_failed, len(report.failed)) == (50, 20)
    assert (report.n_garbage, report.garbage_bytes) == (told.n_garbage, told.garbage_bytes)
    again = run(collect(storage, force=True))
    assert (again.n_garbage, again.garbage_bytes, again.n_failed) == (50, 150, 0)


@pytest.mark.usefixtures("two")
def test_cleaning_up_does_not_hide_what_went_wrong(storage: Storage, run: Any) -> None:
    def wrap(inner: Backend) -> Backend:
        return Faulty(
            Changed(inner, LIES["empty"]),
            Fault(
                verb="delete_many", nth=2, times=None, error=lambda: UnavailableError("the storage is down")
            ),
        )

    with pytest.raises(GCAbortedError):
        run(collect(storage, wrap, force=True))
    assert len(own(storage)) == 3
    assert run(collect(storage, force=True)).n_purged == 1


@pytest.mark.usefixtures("two")
def test_collections_in_wrong_words_are_refused_before_anything_is_read(storage: Storage, run: Any) -> None:
    async def main() -> None:
        store = await storage.open()
        for options in ({"dry_run": "no"}, {"force": 1}, {"force": None}):
            with pytest.raises(ConfigError, match="must be a bool"):
                await store.collect_garbage(**options)
        await store.aclose()
        with pytest.raises(StoreClosedError):
            await store.collect_garbage()

    run(main())


def test_a_cancelled_collection_takes_its_canaries_along(storage: Storage, run: Any, two: list[Any]) -> None:
    async def main() -> None:
        slow: list[SlowBackend] = []

        def wrap(inner: Backend) -> Backend:
            slow.append(SlowBackend(inner))
            return slow[0]

        store = await storage.open(wrap)
        gate = slow[0].gate("list", CHUNKS)
        task = asyncio.ensure_future(store.collect_garbage(force=True))
        await gate.until_arrived()
        assert len(own(storage)) == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        gate.open()
        assert own(storage) == []
        await store.aclose()

    run(main())


@pytest.mark.usefixtures("two")
def test_a_storage_that_fails_while_manifests_are_read_says_so(storage: Storage, run: Any) -> None:
    before = content(storage)
    with pytest.raises(UnavailableError):
        run(collect(storage, lambda inner: Faulty(inner, Fault(verb="get", prefix=MANIFESTS)), force=True))
    assert content(storage) == before


@pytest.mark.usefixtures("two")
def test_a_collection_whose_record_is_gone_is_not_the_only_one_and_too_slow(
    storage: Storage, run: Any
) -> None:
    def wrap(inner: Backend) -> Backend:
        gone = Fault(verb="head", prefix="gc/", error=lambda: ObjectNotFoundError("gone"), nth=2)
        return Faulty(inner, gone)

    refused(storage, run, "longer than the store's grace", wrap, force=True)
