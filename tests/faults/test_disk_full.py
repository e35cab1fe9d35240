"""A real disk that is full: at every page, the save is refused whole and the older checkpoints stay."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore.errors import CheckpointStoreError, StoreFullError

PAGE = 4096
N_SIZES = 64
FULL = StoreConfig(chunk_bytes=PAGE, inline_bytes=64, codec="raw", encode_workers=1, io_concurrency=2)


@pytest.fixture
def resize(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Give a disk in memory whose number of pages can be set."""
    at = tmp_path / "disk"
    at.mkdir()

    def mount(options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(at)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    if os.geteuid() != 0 or not mount(f"size={64 * PAGE}"):
        pytest.skip("no file system can be mounted here; test_io_errors has the same promises")

    def resize_to(n_pages: int) -> Path:
        assert mount(f"remount,size={n_pages * PAGE}")
        return at

    yield resize_to
    subprocess.run(["umount", str(at)], check=True)


def used_pages(at: Path) -> int:
    found = os.statvfs(at)
    return (found.f_blocks - found.f_bfree) * found.f_frsize // PAGE


def files(at: Path) -> list[Path]:
    return sorted(path for path in at.rglob("*") if path.is_file())


def state(seed: int) -> dict[str, object]:
    """A page for each of sixty chunks, and one more for the manifest."""
    return {"new": np.random.default_rng(seed).integers(0, 256, 60 * PAGE, "uint8"), "seed": seed}


async def saved_on(at: Path, seed: int) -> CheckpointStoreError | None:
    """Save, and return what the store says of that; in any case what can be read is right."""
    store = await AsyncCheckpointStore.open(str(at), config=FULL)
    try:
        await store.begin("c")
        try:
            await store.save("c", state(seed))
        except CheckpointStoreError as exc:
            return exc
        return None
    finally:
        loaded = await store.load("c")
        assert np.array_equal(loaded["new"], state(int(loaded["seed"]))["new"])
        await store.aclose()


async def seeds(at: Path) -> list[int]:
    async with await AsyncCheckpointStore.open(str(at), config=FULL) as store:
        return [(await store.load(found))["seed"] async for found in store.list("c")]


def test_a_save_on_a_disk_that_is_full_at_any_page_is_refused_whole(resize: Callable[[int], Path]) -> None:
    at = resize(8 * N_SIZES)
    assert asyncio.run(saved_on(at, 0)) is None
    kept, refused = [0], 0
    for free in range(N_SIZES):
        resize(used_pages(at) + free)
        before = files(at)
        error = asyncio.run(saved_on(at, free + 1))
        if error is None:
            kept = [free + 1, *kept]
            continue
        refused += 1
        assert isinstance(error, StoreFullError)
        assert "No space" in str(error)
        assert str(at) in str(error)
        # What a refused commit has named stays for the garbage collection; who came less far removes its own.
        left = [path for path in files(at) if path not in before]
        assert len(left) in (0, 60), left
        for path in left:
            path.unlink()
    assert refused >= 60
    assert len(kept) >= 2
    resize(8 * N_SIZES)
    assert asyncio.run(saved_on(at, 100)) is None
    assert asyncio.run(seeds(at)) == [100, *kept]
