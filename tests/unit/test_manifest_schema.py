"""The structure of a manifest whose digests are all right: every value out of place is refused."""

from __future__ import annotations

import math
import resource
import struct
import time
from collections.abc import Callable
from typing import Any

import forge
import msgpack
import pytest
from forge import Raw, Tree, assembled, forged, frugal, opened, packed, places, replaced, trees, value_at

from ckptstore._msgpack import unpack
from ckptstore._table import ChunkTable
from ckptstore.errors import (
    FormatError,
    IntegrityError,
    LimitExceededError,
    ManifestCorruptError,
    StoreMismatchError,
    UnsupportedVersionError,
)
from ckptstore.manifest import encode

SUMMARY, BODY = trees()

NESTED = Raw(b"\x91" * 10_000 + b"\xc0")
NESTED_MAPS = Raw(b"\x81\xa1a" * 10_000 + b"\xc0")

BEYOND_THE_DIALECT = {
    "timestamp of 4": Raw(b"\xd6\xff" + bytes(4)),
    "timestamp of 8": Raw(b"\xd7\xff" + bytes(8)),
    "timestamp of 12": Raw(b"\xc7\x0c\xff" + bytes(12)),
    "timestamp of 0": Raw(b"\xc7\x00\xff"),
    "ext of 1": Raw(b"\xd4\x05x"),
    "ext of 16": Raw(b"\xd8\x05" + bytes(16)),
    "empty ext": Raw(b"\xc7\x00\x05"),
    "long ext": Raw(b"\xc9" + struct.pack(">I", 300) + b"\x05" + bytes(300)),
    "never used": Raw(b"\xc1"),
    "depth 10^4": NESTED,
    "maps to depth 10^4": NESTED_MAPS,
    "list of 2^32": Raw(b"\xdd\xff\xff\xff\xff"),
    "map of 2^32": Raw(b"\xdf\xff\xff\xff\xff"),
    "str of 2^32": Raw(b"\xdb\xff\xff\xff\xff"),
    "bin of 2^32": Raw(b"\xc6\xff\xff\xff\xff"),
    "ext of 2^32": Raw(b"\xc9\xff\xff\xff\xff\x05"),
    "lists of 2^31 in one another": Raw(b"\xdd\x7f\xff\xff\xff" * 1000),
    "int key": Raw(b"\x81\x01\x02"),
    "bin key": Raw(b"\x81\xc4\x01a\x02"),
    "nil key": Raw(b"\x81\xc0\x02"),
    "list as key": Raw(b"\x81\x90\x02"),
    "NaN as key": Raw(b"\x81\xcb" + struct.pack(">d", math.nan) + b"\x02"),
    "key twice": Raw(b"\x82\xa1a\x01\xa1a\x02"),
    "not UTF-8": Raw(b"\xa1\xff"),
    "half a surrogate pair": Raw(b"\xa3\xed\xa0\x80"),
}


@pytest.mark.parametrize("name", BEYOND_THE_DIALECT)
@pytest.mark.parametrize(
    "path", [("metadata", "x"), ("attributes", "x"), ("fields", 0, "leaves", 0, 0), ("run",)]
)
def test_what_the_dialect_lacks_is_refused_in_the_summary(name: str, path: forge.Path) -> None:
    data = assembled(packed(replaced(SUMMARY, path, BEYOND_THE_DIALECT[name])), packed(BODY))
    with frugal(max_mib=1), pytest.raises(ManifestCorruptError, match="summary"):
        opened(data)


@pytest.mark.parametrize("name", BEYOND_THE_DIALECT)
@pytest.mark.parametrize("path", [(), ("buffers", 0, 1), ("chunks", "raw", 0), ("nonces", 1)])
def test_what_the_dialect_lacks_is_refused_in_the_chunk_table(name: str, path: forge.Path) -> None:
    data = assembled(packed(SUMMARY), packed(replaced(BODY, path, BEYOND_THE_DIALECT[name])))
    with frugal(max_mib=1), pytest.raises(ManifestCorruptError, match="chunk table"):
        opened(data)


def test_long_lists_in_one_another_take_no_memory() -> None:
    """Each promises two million elements, and space for them, before the next one is read."""
    deep = (b"\xdd" + struct.pack(">I", 2_000_000)) * 900 + bytes(2_000_000)
    before, begin = peak_mib(), time.perf_counter()
    with pytest.raises(ManifestCorruptError):
        unpack(deep, what="x", max_items=2_000_000)
    assert time.perf_counter() - begin <= 1
    assert peak_mib() - before < 100


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("behind", [b"\xc0", b"\x80", b"\0" * 10])
def test_a_second_value_is_refused(behind: bytes) -> None:
    for data in (
        assembled(packed(SUMMARY) + behind, packed(BODY)),
        assembled(packed(SUMMARY), packed(BODY) + behind),
    ):
        with pytest.raises(ManifestCorruptError, match="ExtraData"):
            opened(data)


VALUES = (
    None, True, False, 0, 1, 2, 3, 7, -1, 10**6, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, -(2**63),
    0.0, 1.0, 3.0, 7.0, math.nan, math.inf, "", "x", "..", "\0", "raw", "O", "object", b"", b"x", b"\0" * 8, b"\0" * 32,
    [], [0], [0, 0, 1], [None], [[]], [b""], {}, {"x": 1},
)  # fmt: skip


def is_free(path: forge.Path) -> bool:
    """True where another value of its kind is as good: it is for information, or only the chunk can tell."""
    if path[:-1] in (("chunks", "codecs"), ("chunks", "raw"), ("nonces",)) or is_segment(path):
        return True
    return path[0] in ("metadata", "attributes", "created_ns", "parent") or (
        path[0] == "fields" and len(path) > 2 and path[2] in ("name", "type", "kind", "globals", "leaves")
    )


def is_segment(path: forge.Path) -> bool:
    return path[0] == "buffers" and len(path) == 4


def same(one: Any, other: Any) -> bool:
    return bool(type(one) is type(other) and msgpack.packb(one) == msgpack.packb(other))


@pytest.mark.parametrize("part", [0, 1], ids=["summary", "table"])
def test_no_other_value_is_taken_for_one_that_matters(part: int) -> None:
    original = trees()[part]
    n_tried = 0
    for path in places(original):
        for value in VALUES:
            there = value_at(original, path)
            if same(there, value) or (path and is_free(path) and (part == 0 or type(there) is type(value))):
                continue
            given = [SUMMARY, BODY]
            given[part] = replaced(original, path, value)
            found = forge.problem(assembled(*map(packed, given)))
            assert isinstance(found, (FormatError, IntegrityError)), f"{path} = {value!r} was taken"
            assert len(str(found)) < 1000
            n_tried += 1
    assert n_tried > 800


@pytest.mark.parametrize("part", [0, 1], ids=["summary", "table"])
def test_no_value_is_missing_doubled_or_added(part: int) -> None:
    original = trees()[part]
    for path in places(original):
        value = value_at(original, path)
        if (path and is_free((*path, "", ""))) or not value or not isinstance(value, (dict, list)):
            continue
        if isinstance(value, dict):
            changed = [{k: v for k, v in value.items() if k != left_out} for left_out in value]
            changed.append({**value, "unknown": 1})
        else:
            changed = [value[1:], value[:-1], [*value, value[-1]], [value[0], *value]]
        for other in changed:
            given = [SUMMARY, BODY]
            given[part] = replaced(original, path, other)
            found = forge.problem(assembled(*map(packed, given)))
            unused = (path == ("nonces",) and len(other) > len(value)) or path == ("codecs",)
            assert found is not None or (unused and len(other) >= len(value)), f"{path}: {other!r} was taken"


INFORMATION = {
    ("metadata",): dict, ("attributes",): dict, ("created_ns",): int, ("fields", 0, "type"): str,
    ("fields", 0, "globals"): list, ("fields", 0, "globals", 0): str, ("fields", 0, "leaves"): list,
    ("fields", 0, "leaves", 0): list, ("fields", 0, "leaves", 0, 0): str, ("fields", 0, "leaves", 0, 1): str,
    ("fields", 0, "leaves", 0, 2): str, ("fields", 0, "leaves", 0, 3): list, ("fields", 0, "leaves", 0, 3, 0): int,
    ("fields", 0, "leaves", 0, 4): int, ("fields", 0, "name"): str, ("fields", 0, "kind"): str,
}  # fmt: skip


@pytest.mark.parametrize("path", INFORMATION, ids=lambda path: ".".join(map(str, path)))
def test_what_is_for_information_has_its_type_all_the_same(path: forge.Path) -> None:
    assert type(value_at(SUMMARY, path)) is INFORMATION[path]
    for value in VALUES:
        if type(value) is INFORMATION[path]:
            continue
        with pytest.raises(ManifestCorruptError):
            opened(assembled(packed(replaced(SUMMARY, path, value)), packed(BODY)))


def leaf(at: int, value: Any, nbytes: int = 1500) -> Callable[[Tree, Tree], Any]:
    def change(summary: Tree, body: Tree) -> None:
        first = summary["fields"][0]["leaves"][0]
        first[4] = nbytes
        first[at] = value

    return change


def field(key: str, value: Any) -> Callable[[Tree, Tree], Any]:
    return lambda s, b: s["fields"][0].__setitem__(key, value)


def column(name: str, at: int, value: Any) -> Callable[[Tree, Tree], Any]:
    return lambda s, b: b["chunks"][name].__setitem__(at, value)


def buffer(at: int, value: Any) -> Callable[[Tree, Tree], Any]:
    return lambda s, b: b["buffers"][0].__setitem__(at, value)


def unused_chunk(summary: Tree, body: Tree) -> None:
    for name, value in (("nonces", 0), ("codecs", 0), ("raw", 9), ("stored", 3)):
        body["chunks"][name].append(value)
    body["chunks"]["digests"] += b"\4" * 32
    summary["chunks"] += 1


def digest_twice(summary: Tree, body: Tree) -> None:
    body["chunks"]["digests"] = b"\1" * 64 + b"\3" * 32


def swap_buffers(summary: Tree, body: Tree) -> None:
    body["buffers"].reverse()


def more_raw(summary: Tree, body: Tree) -> None:
    """Sums that add up by themselves, and contradict the chunk table."""
    summary["raw"] += 1
    summary["fields"][0]["raw"] += 1


def moved_raw(summary: Tree, body: Tree) -> None:
    summary["fields"][0]["raw"] += 1
    summary["fields"][1]["raw"] -= 1


def same_field_twice(summary: Tree, body: Tree) -> None:
    summary["fields"][1]["name"] = "model"


def no_graph(summary: Tree, body: Tree) -> None:
    summary["fields"].append(
        {**summary["fields"][1], "name": "x", "raw": 0, "stored": 0, "new": 0, "leaves": []}
    )
    body["buffers"].append([])


CORRUPT = {
    "a sum too small": lambda s, b: s.update(raw=s["raw"] - 1),
    "a sum of others": lambda s, b: s.update(stored=s["stored"] + 1),
    "a sum of new bytes": lambda s, b: s.update(new=s["new"] + 1),
    "another number of chunks": lambda s, b: s.update(chunks=4),
    "sums that contradict the table": more_raw,
    "sizes moved between fields": moved_raw,
    "negative size": field("raw", -1605),
    "a field twice": same_field_twice,
    "a field without a name": field("name", ""),
    "a field's name with a NUL": field("name", "a\0b"),
    "a field's name of 2000": field("name", "x" * 2000),
    "a field of unknown kind": field("kind", "exec"),
    "a field without a graph": no_graph,
    "fields in another order": swap_buffers,
    "a leaf of unknown kind": leaf(1, "jax"),
    "a leaf's kind a deep list": leaf(1, Raw(b"\x91" * 900 + b"\xc0")),
    "a shape that overflows": leaf(3, [2**32, 2**32]),
    "a shape that overflows before a zero": leaf(3, [2**62, 4, 0]),
    "a shape that overflows in 64 dimensions": leaf(3, [2] * 64),
    "a shape that overflows without bytes": leaf(3, [2**62, 4], 0),
    "a negative dimension": leaf(3, [-15, -25]),
    "a dimension that is true": leaf(3, [True, 375]),
    "a float for a dimension": leaf(3, [15.0, 25]),
    "a shape that the bytes do not fit": leaf(3, [15, 26]),
    "bytes without elements": leaf(3, [0]),
    "bytes that the shape does not fit": leaf(4, 1501),
    "dtype O": leaf(2, "O"),
    "dtype |O": leaf(2, "|O"),
    "dtype object": leaf(2, "object"),
    "a block that is not there": leaf(5, 2),
    "a block far away": leaf(5, 2**63 - 1),
    "a negative block": leaf(5, -1),
    "parent of three": lambda s, b: s.update(parent=s["parent"][:3]),
    "parent with another id": lambda s, b: s.update(parent=["x", *s["parent"][1:]]),
    "parent without a name": lambda s, b: s.update(parent=[*s["parent"][:2], "x", s["parent"][3]]),
    "parent in no collection": lambda s, b: s.update(parent=[s["parent"][0], "../x", *s["parent"][2:]]),
    "parent of numbers": lambda s, b: s.update(parent=[1, 2, 3, 4]),
    "store id in capitals": lambda s, b: s.update(store="AB" * 16),
    "epoch a float": lambda s, b: (s.update(epoch=3.0), b.update(epoch=3.0)),
    "table's epoch a float": lambda s, b: b.update(epoch=3.0),
    "epoch negative": lambda s, b: (s.update(epoch=-1), b.update(epoch=-1)),
    "summary of another id": lambda s, b: s.update(id="f" * 32),
    "table of another id": lambda s, b: b.update(id="f" * 32),
    "table of another collection": lambda s, b: b.update(collection="exp"),
    "no nonces": lambda s, b: b.update(nonces=[]),
    "nonce twice": lambda s, b: b.update(nonces=[forge.NONCE] * 2),
    "another nonce twice": lambda s, b: b["nonces"].append(forge.OLD_NONCE),
    "nonce of 7": lambda s, b: b["nonces"].__setitem__(0, b"1234567"),
    "nonce of 9": lambda s, b: b["nonces"].__setitem__(0, b"123456789"),
    "nonce a str": lambda s, b: b["nonces"].__setitem__(0, "12345678"),
    "half a digest": lambda s, b: b["chunks"].update(digests=b["chunks"]["digests"][:-16]),
    "a digest and a half": lambda s, b: b["chunks"].update(digests=b["chunks"]["digests"] + bytes(16)),
    "a digest too few": lambda s, b: b["chunks"].update(digests=b["chunks"]["digests"][:-32]),
    "digest twice": digest_twice,
    "unused chunk": unused_chunk,
    "chunk of 0": column("raw", 0, 0),
    "chunk of 64 MiB + 1": column("raw", 0, 64 * 2**20 + 1),
    "chunk stored as nothing": column("stored", 0, 0),
    "chunk stored larger": column("stored", 0, 1001),
    "raw chunk stored smaller": column("stored", 1, 499),
    "nonce out of range": column("nonces", 0, 2),
    "codec out of range": column("codecs", 0, 3),
    "negative codec": column("codecs", 0, -1),
    "chunk out of range": buffer(1, [0, 0, 1000, 3, 0, 500]),
    "negative chunk": buffer(1, [0, 0, 1000, -2, 0, 500]),
    "chunk number true": buffer(1, [0, 0, 1000, True, 0, 500]),
    "segment beyond its chunk": buffer(1, [0, 0, 1000, 1, 1, 500]),
    "segment behind its chunk": buffer(1, [0, 0, 1000, 1, 500, 1]),
    "segment of 0": buffer(1, [0, 0, 1000, 1, 0, 500, 1, 0, 0]),
    "negative offset": buffer(1, [0, 0, 1000, 1, -1, 500]),
    "segment missing": buffer(1, [0, 0, 1000]),
    "segment twice": buffer(1, [0, 0, 1000, 1, 0, 500, 1, 0, 500]),
    "segment too short": buffer(1, [0, 0, 1000, 1, 0, 499]),
    "two numbers": buffer(1, [0, 0]),
    "no segment": buffer(1, []),
    "buffer a str": buffer(0, "graph"),
    "buffer missing": lambda s, b: b["buffers"][0].pop(),
    "buffers of a field missing": lambda s, b: b["buffers"].pop(),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRUPT)
def test_a_contradiction_is_refused(name: str) -> None:
    data = forged(CORRUPT[name])
    with frugal(max_mib=1), pytest.raises(ManifestCorruptError, match=r"^manifest manifests/exp"):
        opened(data)


def test_a_table_without_a_nonce_is_refused_even_if_it_is_empty() -> None:
    empty = forge.draft(fields=[], table=ChunkTable(forge.NONCE, (), ()))
    summary, body = trees(encode(empty, forge.LIMITS))
    assert opened(assembled(packed(summary), packed(body)))
    with pytest.raises(ManifestCorruptError, match="nonces"):
        opened(assembled(packed(summary), packed({**body, "nonces": []})))


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_what_msgpack_gives_up_on_is_refused(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(*args: Any, **options: Any) -> Any:
        raise error

    monkeypatch.setattr(msgpack, "unpackb", give_up)
    with pytest.raises(ManifestCorruptError, match=r"^summary: "):
        unpack(b"\xc0", what="summary", max_items=1)


def test_the_unchanged_trees_are_taken() -> None:
    """Nothing above is refused for another reason than the one it was changed for."""
    assert opened(forged(lambda s, b: None)) == (
        forge.decode_summary(forged(lambda s, b: None), forge.SOURCE, forge.LIMITS),
        forge.table(),
    )


def test_an_unknown_codec_asks_for_an_upgrade() -> None:
    for codec in ("lz4", "", "planes3", "ZSTD", "../x"):
        with pytest.raises(UnsupportedVersionError, match="upgrade"):
            opened(forged(lambda s, b, codec=codec: b["codecs"].__setitem__(0, codec)))


def test_another_store_is_a_mismatch() -> None:
    with pytest.raises(StoreMismatchError):
        opened(forged(lambda s, b: s.update(store=forge.OTHER_STORE)))


def test_metadata_to_depth_10_000_is_refused() -> None:
    for depth in (65, 400):
        with pytest.raises(LimitExceededError, match="nested too deeply"):
            opened(forged(lambda s, b, n=depth: s["metadata"].update(x=Raw(b"\x91" * n + b"\xc0"))))
    for depth in (1100, 10_000):
        with pytest.raises(ManifestCorruptError):
            opened(forged(lambda s, b, n=depth: s["metadata"].update(x=Raw(b"\x91" * n + b"\xc0"))))


def test_nan_in_metadata_is_data() -> None:
    found = opened(forged(lambda s, b: s.update(metadata={"x": math.nan})))[0].checkpoint.metadata
    assert math.isnan(found["x"])


def test_nothing_long_is_repeated_in_an_error() -> None:
    long = "y" * 100_000
    for change in (
        lambda s, b: s.update({long: 1}),
        lambda s, b: b.update({long: 1}),
        field("kind", long),
        field("name", long),
        leaf(1, long),
        lambda s, b: b["codecs"].__setitem__(0, long),
        lambda s, b: s.update(collection=long),
        lambda s, b: s.update(store=long),
        lambda s, b: s["metadata"].update({long: Raw(b"\x91" * 100 + b"\xc0")}),
    ):
        with pytest.raises(FormatError) as info:
            opened(forged(change))
        assert len(str(info.value)) < 1000
