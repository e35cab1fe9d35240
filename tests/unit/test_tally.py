"""Chunks by the million: each once, in order, with all who need it."""

from __future__ import annotations

import random
import tracemalloc

from ckptstore._table import ChunkEntry
from ckptstore._tally import ChunkTally


def entry(number: int, nonce: int = 0) -> ChunkEntry:
    digest = random.Random(number).randbytes(32)
    return ChunkEntry(digest, nonce.to_bytes(8, "big"), "zstd", 1000 + number % 7, 10 + number % 5)


def test_each_chunk_comes_once_with_its_owners_in_the_order_of_digests() -> None:
    rng = random.Random(5)
    tally, expected = ChunkTally(), dict[ChunkEntry, set[int]]()
    for _ in range(300):
        owner, chunks = rng.randrange(20), [entry(rng.randrange(500), rng.randrange(2)) for _ in range(50)]
        tally.add(owner, chunks)
        for chunk in chunks:
            expected.setdefault(chunk, set()).add(owner)
    found = list(tally)
    assert {item.chunk: set(item.owners) for item in found} == expected
    assert len(found) == len(expected)
    assert [item.chunk.digest for item in found] == sorted(item.chunk.digest for item in found)
    assert tally.totals() == (len(expected), sum(chunk.stored_bytes for chunk in expected))


def test_what_contradicts_itself_is_kept_apart() -> None:
    tally, one = ChunkTally(), entry(1)
    other = ChunkEntry(one.digest, one.nonce, one.codec, one.raw_bytes, one.stored_bytes + 1)
    tally.add(0, [one])
    tally.add(1, [other])
    assert {item.chunk for item in tally} == {one, other}


def test_a_chunk_takes_little_memory_however_many_checkpoints_need_it() -> None:
    chunks = [entry(number) for number in range(20_000)]
    tracemalloc.start()
    try:
        tally = ChunkTally()
        base, _ = tracemalloc.get_traced_memory()
        for _ in range(10):
            tally.add(7, chunks)
        used = tracemalloc.get_traced_memory()[0] - base
    finally:
        tracemalloc.stop()
    assert len(list(tally)) == len(chunks)
    assert used / len(chunks) < 700  # with the slack of shards that are nearly empty
