"""A load that finds a damaged chunk takes another copy of its bytes, and says so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptstore import StoreConfig
from ckptstore.errors import ChunkCorruptError, ChunkMissingError

VALUES = {"a": np.random.default_rng(7).bytes(30_000), "b": {"deep": np.arange(5000.0)}}
CONFIG = StoreConfig(durability="os", chunk_bytes=8192, inline_bytes=64)


def chunks(folder: Path) -> set[Path]:
    return {path for path in (folder / "store/chunks").rglob("*.*") if path.is_file()}


def test_each_chunk_that_is_healed_is_told_once(
    open_store: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(config=CONFIG)
    checkpoint = store.save("c", VALUES)
    own = chunks(tmp_path)
    store.save("elsewhere", VALUES)
    gone = sorted(own)[:2]
    for path in gone:
        path.unlink()
    with caplog.at_level(logging.WARNING, "ckptstore"):
        assert store.load(checkpoint)["a"] == VALUES["a"]
    assert len(caplog.messages) == len(gone)
    for path in gone:
        (told,) = [message for message in caplog.messages if path.name in message]
        (copy,) = [other for other in chunks(tmp_path) - own if other.name[:64] == path.name[:64]]
        assert copy.name in told
        assert "ckptstore verify" in told


def test_a_whole_load_says_nothing(open_store: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(config=CONFIG)
    store.load(store.save("c", VALUES))
    assert not caplog.messages


def test_nothing_is_healed_with_other_bytes(open_store: Any, tmp_path: Path) -> None:
    store = open_store(config=CONFIG)
    checkpoint = store.save("c", VALUES)
    gone = next(path for path in sorted(chunks(tmp_path)) if path.name.endswith(".raw"))
    data = gone.read_bytes()
    gone.rename(gone.with_name(f"{gone.name[:64]}.{'0' * 16}.raw"))
    assert store.load(checkpoint)["a"] == VALUES["a"]
    gone.with_name(f"{gone.name[:64]}.{'0' * 16}.raw").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(ChunkMissingError):
        store.load(checkpoint)


@pytest.mark.parametrize("found_by", ["load", "verify"])
def test_what_was_found_damaged_is_stored_anew_by_later_saves(
    open_store: Any, tmp_path: Path, found_by: str
) -> None:
    store = open_store(config=CONFIG)
    store.save("c", VALUES)
    damaged = next(path for path in sorted(chunks(tmp_path)) if path.stat().st_size == 8192)
    damaged.write_bytes(b"damaged")
    unaware = store.save("c", VALUES)
    assert unaware.sizes.new_bytes < 4096
    if found_by == "load":
        with pytest.raises(ChunkCorruptError):
            store.load(unaware)
    else:
        assert not store.verify(unaware).ok
    saved = store.save("c", VALUES)
    assert 8192 <= saved.sizes.new_bytes < 2 * 8192
    assert store.verify(saved).ok
    assert store.load(saved)["a"] == VALUES["a"]
    assert store.load(unaware)["a"] == VALUES["a"]  # from the new copy
