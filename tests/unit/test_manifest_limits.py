"""Limits of a manifest: each lets pass what is exactly as large, and refuses one more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import forge
import pytest
from forge import DATA, DRAFT, LIMITS, SOURCE, draft, frugal, opened, parts

from ckptstore import Limits
from ckptstore._chunking import digest
from ckptstore._table import ChunkEntry, ChunkTable, StoredBuffer
from ckptstore.checkpoint import FieldInfo
from ckptstore.errors import LimitExceededError
from ckptstore.manifest import decode_summary, encode

SUMMARY, BODY = parts()


def chunked(n_chunks: int) -> tuple[ChunkTable, FieldInfo]:
    chunks = tuple(ChunkEntry(digest(str(i).encode()), b"n" * 8, "raw", 10, 10) for i in range(n_chunks))
    table = ChunkTable(
        b"n" * 8, chunks, ((StoredBuffer(10 * n_chunks, None, tuple((i, 0, 10) for i in range(n_chunks))),),)
    )
    size = 10 * n_chunks
    return table, FieldInfo("x", "numpy.ndarray", "tree", size, size, size, (), ())


def test_limits_of_the_manifest_hold_to_the_byte_when_read() -> None:
    stored, raw = len(DATA), len(SUMMARY) + len(BODY)
    for option, size in (("max_manifest_stored_bytes", stored), ("max_manifest_raw_bytes", raw)):
        assert opened(DATA, limits=Limits(**{option: size}))
        with pytest.raises(LimitExceededError, match=f"Limits.{option}"):
            opened(DATA, limits=Limits(**{option: size - 1}))


def test_limits_of_the_manifest_hold_to_the_byte_when_written() -> None:
    stored, raw = len(DATA), len(SUMMARY) + len(BODY)
    for option, size in (("max_manifest_stored_bytes", stored), ("max_manifest_raw_bytes", raw)):
        assert encode(DRAFT, Limits(**{option: size})) == DATA
        with pytest.raises(LimitExceededError, match=f"{size} .*Limits.{option}"):
            encode(DRAFT, Limits(**{option: size - 1}))


def test_the_limit_of_chunks_holds_when_written_and_when_read() -> None:
    table, field = chunked(5)
    given = draft(fields=[field], table=table)
    data = encode(given, Limits(max_chunks=5))
    assert len(opened(data, limits=Limits(max_chunks=5))[1].chunks) == 5
    with pytest.raises(LimitExceededError, match=r"Limits\.max_chunks"):
        opened(data, limits=Limits(max_chunks=4))
    with pytest.raises(LimitExceededError, match=r"Limits\.max_chunks"):
        encode(given, Limits(max_chunks=4))


@pytest.mark.parametrize(
    ("option", "exact", "change"),
    [
        ("max_dims", 9, lambda s, b: s["fields"][1]["leaves"][0].__setitem__(3, [1] * 8 + [220])),
        ("max_depth", 7, lambda s, b: s.update(metadata={"a": [[[[[[1]]]]]]})),
        ("max_depth", 7, lambda s, b: s.update(attributes={"a": [[[[[{"b": 1}]]]]]})),
        ("max_metadata_bytes", 200, lambda s, b: s.update(metadata={"a": b"x" * (200 - 5)})),
        ("max_metadata_bytes", 200, lambda s, b: s.update(attributes={"a": b"x" * (200 - 5)})),
        ("max_nodes", 300, lambda s, b: s.update(metadata={"a": [0] * 300})),
        ("max_total_bytes", 1827, lambda s, b: None),
    ],
)
def test_a_limit_holds_to_the_one(
    option: str, exact: int, change: Callable[[forge.Tree, forge.Tree], Any]
) -> None:
    data = forge.forged(change)
    assert opened(data, limits=Limits(**{option: exact}))
    with pytest.raises(LimitExceededError, match=f"manifests/.*Limits.{option}"):
        opened(data, limits=Limits(**{option: exact - 1}))


def test_65_dimensions_are_refused_by_default() -> None:
    for n_dims, fine in ((64, True), (65, False)):
        data = forge.forged(
            lambda s, b, n=n_dims: s["fields"][1]["leaves"][0].__setitem__(3, [1] * (n - 1) + [220])
        )
        if fine:
            assert opened(data)
        else:
            with pytest.raises(LimitExceededError, match="65 dimensions"):
                opened(data)


def test_a_total_of_2_to_the_60_is_refused_before_anything_is_allocated() -> None:
    def grow(summary: forge.Tree, body: forge.Tree) -> None:
        summary["raw"] = 2**60
        summary["fields"][0]["raw"] = 2**60 - summary["fields"][1]["raw"]

    data = forge.forged(grow)
    with frugal(max_mib=1), pytest.raises(LimitExceededError, match=r"Limits\.max_total_bytes"):
        decode_summary(data, SOURCE, LIMITS)
