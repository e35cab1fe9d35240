"""Values at the far end of what may be: one leaf beyond 2 GiB, and a million tiny ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ckptstore import CheckpointStore, StoreConfig

CONFIG = StoreConfig(durability="os", memory_bytes=64 << 20)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_a_leaf_of_more_than_two_gibibytes_comes_back(tmp_path: Path) -> None:
    leaf = np.zeros((1 << 31) + 1, "uint8")
    leaf[[0, 1 << 20, (1 << 31) - 1, 1 << 31]] = 1, 2, 3, 4
    with CheckpointStore.open(str(tmp_path / "store"), config=CONFIG) as store:
        saved = store.save("c", {"leaf": leaf})
        assert saved.sizes.raw_bytes >= leaf.nbytes
        loaded = store.load(saved)["leaf"]
    assert loaded.shape == leaf.shape
    assert np.array_equal(np.flatnonzero(loaded), np.flatnonzero(leaf))
    assert loaded[-1] == 4


@pytest.mark.timeout(900)
@pytest.mark.parametrize("n_leaves", [20_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_very_many_tiny_leaves_come_back(tmp_path: Path, n_leaves: int) -> None:
    numbers = np.arange(n_leaves)
    with CheckpointStore.open(str(tmp_path / "store"), config=CONFIG) as store:
        saved = store.save("c", {"leaves": [numbers[n : n + 1].copy() for n in range(n_leaves)]})
        loaded = store.load(saved)["leaves"]
    assert len(loaded) == n_leaves
    assert np.array_equal(np.concatenate(loaded), numbers)
