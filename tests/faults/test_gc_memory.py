"""A collection takes little memory, however much there is; sets of chunks are exact."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from ckptstore._gc_refs import ChunkSet, Garbage
from ckptstore._keys import parse_chunk_key


@pytest.mark.parametrize(
    ("n_chunks", "most_mib"),
    [(100_000, 32), pytest.param(1_000_000, 128, marks=[pytest.mark.soak, pytest.mark.timeout(600)])],
)
def test_a_collection_takes_little_memory_for_many_chunks(
    tmp_path: Path, n_chunks: int, most_mib: float
) -> None:
    script = Path(__file__).with_name("gc_memory.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(n_chunks)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    print(found)
    assert (found["n_chunks"], found["n_garbage"]) == (n_chunks, n_chunks // 2)
    assert found["deleted"] == n_chunks // 2
    assert found["grown_mib"] < most_mib


@pytest.mark.parametrize("seed", range(5))
def test_a_set_of_chunks_is_a_set(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptstore import _gc_refs

    monkeypatch.setattr(_gc_refs, "_SLACK_BYTES", 200)
    rng = random.Random(seed)
    pool = [(rng.randbytes(32), rng.randbytes(8)) for _ in range(3000)]
    ours, expected = ChunkSet(), set()
    for _ in range(20):
        some = rng.choices(pool, k=500)
        ours.update(some)
        expected.update(some)
        for chunk in rng.sample(pool, 300):
            assert (chunk in ours) == (chunk in expected)
            other = (chunk[0], rng.randbytes(8))
            assert other not in ours
    assert all(chunk in ours for chunk in expected)
    assert sum(map(len, ours._shards)) <= 2 * 40 * len(expected) + 256 * 300


def test_garbage_comes_back_as_it_was_added() -> None:
    rng = random.Random(1)
    garbage, added = Garbage(), []
    for number in range(2501):
        codec = rng.choice(["raw", "planes4", "a" * 16])
        one = (rng.randbytes(32), rng.randbytes(8), codec, rng.choice([0, 1, 2**40]))
        garbage.add(*one)
        added.append(one)
        if number == 0:
            assert [len(batch) for batch in garbage.batches(1000)] == [1]
    batches = list(garbage.batches(1000))
    assert [len(batch) for batch in batches] == [1000, 1000, 501]
    found = [one for batch in batches for one in batch]
    assert [tuple(one) for one in found] == added
    assert all(parse_chunk_key(one.key) == (one.digest, one.nonce) for one in found)
    assert (garbage.n_chunks, garbage.n_bytes) == (2501, sum(one[3] for one in added))
    assert list(Garbage().batches(3)) == []
