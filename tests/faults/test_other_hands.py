"""Others in the store's folder: it is taken away, linked elsewhere, or filled with what is none of the store's."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gc_rig import GRACE_S, age
from rig import CONFIG, Storage, everything, is_values, open_blocking, values

from ckptstore import AsyncCheckpointStore, CheckpointStore, last
from ckptstore.errors import BackendError, CheckpointStoreError, GCAbortedError
from ckptstore.testing import SlowBackend

Use = Callable[[AsyncCheckpointStore], Awaitable[Any]]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A folder with three checkpoints, of which one is deleted and old."""
    storage = Storage("local", tmp_path / "store")

    async def prepare(store: AsyncCheckpointStore) -> None:
        first = await store.save("c", values(0))
        await store.save("c", values(1))
        await store.save("d/e", values(2), label="best")
        await store.delete(first)

    use(storage, prepare)
    return storage


def use(storage: Storage, do: Use) -> Any:
    async def using() -> Any:
        store = await storage.open()
        try:
            return await do(store)
        finally:
            await store.aclose()

    return asyncio.run(using())


def seeds(storage: Storage, collection: str = "c") -> list[int]:
    found = asyncio.run(everything(storage, collection))
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    return [loaded["seed"] for _, loaded in found]


REQUESTS: dict[str, Callable[[AsyncCheckpointStore, Any], Awaitable[Any]]] = {
    "save": lambda store, saved: store.save("c", values(9)),
    "load the newest": lambda store, saved: store.load("c"),
    "load": lambda store, saved: store.load(saved),
    "inspect": lambda store, saved: store.inspect(saved),
    "latest": lambda store, saved: store.latest("c"),
    "latest of none": lambda store, saved: store.latest("never"),
    "list": lambda store, saved: listed(store),
    "delete": lambda store, saved: store.delete(saved),
    "undelete": lambda store, saved: store.undelete(saved),
    "pin": lambda store, saved: store.pin(saved),
    "retain": lambda store, saved: store.retain("c", last(1)),
    "collect": lambda store, saved: store.collect_garbage(force=True),
}


async def listed(store: AsyncCheckpointStore) -> list[Any]:
    return [found async for found in store.list()]


@pytest.mark.parametrize("again", [False, True], ids=["removed", "replaced"])
def test_a_store_whose_folder_is_gone_says_so_and_never_that_nothing_is_there(
    storage: Storage, again: bool
) -> None:
    async def do(store: AsyncCheckpointStore) -> None:
        saved = await store.latest("c")
        shutil.copytree(storage.path, storage.path.with_name("aside"))
        shutil.rmtree(storage.path)
        if again:
            storage.path.mkdir()
        for name, request in REQUESTS.items():
            with pytest.raises((BackendError, GCAbortedError), match=r"gone|replaced|No such file"):
                pytest.fail(f"{name}: {await request(store, saved)}")
        assert storage.path.exists() is again
        assert not again or not os.listdir(storage.path)

    use(storage, do)
    shutil.rmtree(storage.path, ignore_errors=True)
    shutil.move(storage.path.with_name("aside"), storage.path)
    use(storage, lambda store: store.save("c", values(3)))
    assert seeds(storage) == [3, 1]


def test_a_folder_removed_in_mid_save_fails_the_save_and_is_not_made_again(tmp_path: Path) -> None:
    storage = Storage("local", tmp_path / "store")
    slow: list[SlowBackend] = []

    def wrap(backend: Any) -> Any:
        slow.append(SlowBackend(backend))
        return slow[0]

    store = open_blocking(storage, wrap)
    store.save("c", values(0))
    gate = slow[0].gate("put", "chunks/")
    pending = store.save("c", values(1), wait=False)
    gate.wait_arrived()
    shutil.rmtree(storage.path)
    gate.open()
    with pytest.raises(BackendError):
        pending.result(10)
    store.close()
    assert not storage.path.exists()


def test_a_linked_shard_is_an_error_and_what_it_leads_to_stays(storage: Storage, tmp_path: Path) -> None:
    """Neither read, written nor collected through: it may lead anywhere."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("mine")
    for shard in sorted((storage.path / "chunks").iterdir()):
        moved = elsewhere / shard.name
        shard.rename(moved)
        shard.symlink_to(moved)
    before = sorted(str(path) for path in elsewhere.rglob("*"))
    age(storage, 2 * GRACE_S)

    async def do(store: AsyncCheckpointStore) -> None:
        with pytest.raises(CheckpointStoreError, match="link"):
            await store.load("c")
        with pytest.raises((GCAbortedError, BackendError), match="link"):
            await store.collect_garbage(force=True)

    use(storage, do)
    assert sorted(str(path) for path in elsewhere.rglob("*")) == before


ODD_NAMES = [
    "README",
    ".hidden",
    "nfs~.swp",
    ".nfs0000000012345678",
    "two words",
    "line\nbreak",
    "\u00e4\u20ac",
    os.fsdecode(b"not-\xff-unicode"),
    "%2e%2e",
    "x" * 255,
    ".tmp-of-somebody-else",
    "ab",
]


def fill(folder: Path) -> None:
    """Put files of odd names into every folder, and a folder with a file of its own."""
    for place in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        for name in ODD_NAMES:
            if not (place / name).exists():
                (place / name).write_bytes(b"not yours")
        (place / "lost+found").mkdir(exist_ok=True)
        (place / "lost+found" / "file").write_bytes(b"not yours")


def not_ours(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.read_bytes() == b"not yours")
    return sorted(str(path) for path in found)


def test_foreign_files_everywhere_disturb_nothing_and_stay(storage: Storage) -> None:
    fill(storage.path)
    before = not_ours(storage.path)
    assert len(before) > 100
    age(storage, 3 * GRACE_S)

    async def do(store: AsyncCheckpointStore) -> None:
        newest = await store.latest("c")
        assert newest is not None
        assert len(await listed(store)) == 2
        report = await store.collect_garbage(force=True)
        assert report.n_purged == 1
        assert report.n_garbage
        assert not report.n_failed
        assert report.n_foreign
        str(report).encode()
        await store.save("c", values(3), keep=last(1))
        assert await store.collect_garbage(dry_run=True)

    use(storage, do)
    assert seeds(storage) == [3]
    assert seeds(storage, "d/e") == [2]
    assert not_ours(storage.path) == before


def test_a_store_among_foreign_files_opens_and_is_new(tmp_path: Path) -> None:
    fill(tmp_path)
    with CheckpointStore.open(str(tmp_path), config=CONFIG) as store:
        assert store.latest("c") is None
        store.save("c", values(0))
        assert [found.collection for found in store.list()] == ["c"]
