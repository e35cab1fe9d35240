"""``inspect(codecs=True)`` tells how the chunks of a checkpoint are stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ckptstore import CheckpointStore, CodecUse, StoreConfig

CHUNK = 65_536
RNG = np.random.default_rng(5)
STATE = {
    "weights": RNG.standard_normal(3 * CHUNK // 4, dtype=np.float32),
    "noise": RNG.integers(0, 256, 2 * CHUNK, np.uint8),
    "zeros": np.zeros(CHUNK, np.uint8),
}


def saved(folder: Path, values: dict[str, object], **options: object) -> CheckpointStore:
    config = StoreConfig(chunk_bytes=CHUNK, inline_bytes=64, durability="os", **options)
    store = CheckpointStore.open(folder, config=config)
    store.save("run", values)
    return store


@pytest.mark.parametrize("codec", ["planes", "raw"])
def test_the_chunks_of_each_codec_are_told_as_they_are_stored(tmp_path: Path, codec: str) -> None:
    with saved(tmp_path, STATE, codec=codec) as store:
        told = store.inspect("run", codecs=True).codecs
    stored: dict[str, list[int]] = {}
    for path in (tmp_path / "chunks").rglob("*.*.*"):
        stored.setdefault(path.suffix[1:], []).append(path.stat().st_size)
    assert {name: (use.n_chunks, use.stored_bytes) for name, use in told.items()} == {
        name: (len(sizes), sum(sizes)) for name, sizes in stored.items()
    }
    assert list(told) == sorted(told)
    assert sum(use.raw_bytes for use in told.values()) == sum(array.nbytes for array in STATE.values())
    assert told["raw"].raw_bytes == told["raw"].stored_bytes
    assert (set(told) == {"raw"}) is (codec == "raw")


def test_a_chunk_that_fields_share_is_told_once(tmp_path: Path) -> None:
    noise = STATE["noise"]
    with saved(tmp_path, {"a": noise, "b": noise.copy(), "c": [noise]}) as store:
        assert store.inspect("run", codecs=True).codecs == {"raw": CodecUse(2 * CHUNK, 2 * CHUNK, 2)}


def test_what_the_manifest_itself_holds_is_in_no_codec(tmp_path: Path) -> None:
    with saved(tmp_path, {"epoch": 3}) as store:
        assert store.inspect("run", codecs=True).codecs == {}


def test_codecs_are_told_only_if_asked_for_and_nothing_else_differs(tmp_path: Path) -> None:
    with saved(tmp_path, STATE) as store:
        brief, full = store.inspect("run"), store.inspect("run", codecs=True)
    assert brief.codecs is None
    assert (brief.checkpoint, brief.fields) == (full.checkpoint, full.fields)
