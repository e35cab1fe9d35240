"""The bytes of a manifest: whatever happens to them is an error of ours, and never other data."""

from __future__ import annotations

import dataclasses
import os
import random
import struct

import forge
import msgpack
import pytest
import zstandard
from forge import (
    DATA,
    DRAFT,
    LIMITS,
    SOURCE,
    assembled,
    draft,
    frugal,
    opened,
    parts,
    problem,
    source_of,
    zipped,
)

from ckptstore import Limits
from ckptstore._keys import CheckpointName
from ckptstore._msgpack import unpack
from ckptstore._table import ChunkTable, StoredBuffer
from ckptstore.checkpoint import FieldInfo, Sizes
from ckptstore.errors import (
    FormatError,
    IntegrityError,
    LimitExceededError,
    ManifestCorruptError,
    StoreMismatchError,
    UnsupportedVersionError,
)
from ckptstore.manifest import (
    HEADER_BYTES,
    ManifestSource,
    decode_summary,
    decode_table,
    encode,
    summary_end,
)

SUMMARY, BODY = parts()
END = summary_end(DATA, SOURCE, LIMITS)
OURS = (FormatError, IntegrityError)


def test_everything_comes_back() -> None:
    manifest, table = opened(DATA)
    found = manifest.checkpoint
    assert (found.collection, found.run, found.label) == ("exp/Run 1", "host-1", "best")
    assert (found.epoch, found.seq, found.created_ns) == (3, 7, DRAFT.created_ns)
    assert (found.metadata, found.attributes, found.parent) == (
        DRAFT.metadata,
        DRAFT.attributes,
        DRAFT.parent,
    )
    assert found.fields == ("model", "opt")
    assert found.sizes == Sizes(1605 + 222, 1005 + 2, 505 + 2, 3)
    assert list(manifest.fields.values()) == list(DRAFT.fields)
    assert table == DRAFT.table
    assert found.ref.digest == DATA[136:168].hex()
    assert found.ref.to_dict().keys() == {"store_id", "collection", "name", "digest"}


def test_a_checkpoint_of_nothing_comes_back() -> None:
    empty = draft(
        fields=[],
        table=ChunkTable(b"n" * 8, (), ()),
        metadata={},
        name=CheckpointName(1, 0, None, None, "0" * 32),
    )
    manifest, table = opened(encode(empty, LIMITS), source_of(empty))
    assert manifest.fields == {}
    assert (table.chunks, table.buffers) == ((), ())
    assert (manifest.checkpoint.run, manifest.checkpoint.label) == (None, None)


@pytest.mark.parametrize("n_bytes", [100, 4096, 200_000])
def test_what_cannot_be_compressed_comes_back(n_bytes: int) -> None:
    noise = random.Random(n_bytes).randbytes(n_bytes)
    table = ChunkTable(b"n" * 8, (), ((StoredBuffer(n_bytes, noise, ()),),))
    field = FieldInfo("x", "builtins.bytes", "tree", n_bytes, n_bytes, n_bytes, (), ())
    given = draft(fields=[field], table=table, metadata={"noise": noise})
    manifest, found = opened(encode(given, LIMITS), source_of(given))
    assert found == table
    assert manifest.checkpoint.metadata == {"noise": noise}


def test_the_summary_needs_no_byte_of_the_chunk_table() -> None:
    whole, _ = opened(DATA)
    assert decode_summary(DATA[:END], SOURCE, LIMITS) == whole
    assert summary_end(DATA[:HEADER_BYTES], SOURCE, LIMITS) == END < len(DATA)


def test_a_manifest_cut_at_any_length_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(ManifestCorruptError, match="manifests/exp"):
            opened(DATA[:length])


@pytest.mark.parametrize("extra", [b"\0", DATA, b"x" * 1000], ids=["byte", "itself", "text"])
def test_a_manifest_with_something_behind_it_is_refused(extra: bytes) -> None:
    with pytest.raises(ManifestCorruptError, match="bytes"):
        opened(DATA + extra)


def test_every_flipped_bit_is_found() -> None:
    for position in range(len(DATA)):
        for bit in range(8):
            damaged = bytearray(DATA)
            damaged[position] ^= 1 << bit
            with pytest.raises(OURS):
                opened(bytes(damaged))


def test_flipped_bits_are_found_by_digests_and_not_by_luck() -> None:
    """The mutant: with the digest made to fit, a flip in the metadata would be read as other data."""
    changed = SUMMARY.replace(b"Train", b"Brain")
    assert opened(assembled(changed, BODY))[0].checkpoint.attributes == {"flow": "Brain"}
    with pytest.raises(ManifestCorruptError, match="damaged"):
        opened(DATA[:HEADER_BYTES] + zipped(changed) + DATA[END:])


@pytest.mark.parametrize("part", [0, 1], ids=["summary", "table"])
def test_flipped_bits_under_digests_that_fit_raise_only_errors_of_ours(part: int) -> None:
    for position in range(len((SUMMARY, BODY)[part])):
        for bit in range(8):
            changed = [bytearray(SUMMARY), bytearray(BODY)]
            changed[part][position] ^= 1 << bit
            found = problem(assembled(*map(bytes, changed)))
            assert found is None or "manifests/" in str(found)


@pytest.mark.parametrize("part", [0, 1], ids=["summary", "table"])
def test_flipped_bits_in_a_frame_whose_digest_fits_raise_only_errors_of_ours(part: int) -> None:
    frame = zipped((SUMMARY, BODY)[part])
    for position in range(len(frame)):
        changed = bytearray(frame)
        changed[position] ^= 1 << position % 8
        found = problem(assembled(SUMMARY, BODY, frames={part: bytes(changed)}))
        assert found is None or "manifests/" in str(found)


HTML = b"<!DOCTYPE html><html><body><h1>503 Service Unavailable</h1></body></html>"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"C",
        b"CKPT",
        HTML,
        HTML * 20,
        bytes(1000),
        b"\xff" * 1000,
        b"ckpt" + DATA[4:],
        DATA[1:],
        DATA[::-1],
    ],
)
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ManifestCorruptError, match="manifests/exp"):
        opened(data)


@pytest.mark.parametrize("n_bytes", [1, 167, 168, 169, 5000])
def test_random_bytes_are_refused(n_bytes: int) -> None:
    for _ in range(50):
        data = os.urandom(n_bytes)
        with pytest.raises(OURS):
            opened(data)
        with pytest.raises(OURS):
            opened(DATA[:6] + data)


def test_a_future_version_is_named_as_one() -> None:
    for version in (0, 2, 65535):
        with pytest.raises(UnsupportedVersionError, match=f"version {version} .*upgrade"):
            opened(assembled(SUMMARY, BODY, version=version))
    longer = DATA[:4] + b"\0\2" + DATA[6:] + bytes(64)
    with pytest.raises(UnsupportedVersionError, match="upgrade"):
        opened(longer)


def test_unknown_flags_are_refused() -> None:
    for bit in range(1, 16):
        with pytest.raises(UnsupportedVersionError):
            opened(assembled(SUMMARY, BODY, flags=1 << bit))
    with pytest.raises(ManifestCorruptError, match="without its flag"):
        opened(assembled(SUMMARY, BODY, signature=bytes(47) + b"\1"))


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("change", [-1, 1, -100, 100, 2**31, -(2**40)])
def test_lengths_that_lie_are_refused(which: int, change: int) -> None:
    true = struct.unpack_from(">IIII", DATA, 8)[which]
    lie = max(0, true + change)
    with frugal(max_mib=2), pytest.raises(FormatError):
        opened(assembled(SUMMARY, BODY, lengths={which: lie}))


ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"


def no_size(data: bytes) -> bytes:
    return zipped(data, write_content_size=False)


def huge_window(data: bytes) -> bytes:
    """One raw block under a window of 2 GiB."""
    # Frame header: size in 4 bytes, not a single segment; the window byte is 2^(10 + 21).
    block = struct.pack("<I", len(data) << 3 | 1)[:3] + data
    return ZSTD_MAGIC + b"\x80" + bytes([21 << 3]) + struct.pack("<I", len(data)) + block


def with_dictionary(data: bytes) -> bytes:
    samples = [str(i).encode() * 40 for i in range(500)]
    return zipped(data, dict_data=zstandard.train_dictionary(2000, samples))


FRAMES = {
    "two frames": lambda data: zipped(data[:50]) + zipped(data[50:]),
    "a frame twice": lambda data: zipped(data) * 2,
    "an empty frame behind": lambda data: zipped(data) + zipped(b""),
    "a skippable frame before": lambda data: (
        b"\x50\x2a\x4d\x18" + struct.pack("<I", 4) + b"abcd" + zipped(data)
    ),
    "trailing bytes": lambda data: zipped(data) + b"\0",
    "no size": no_size,
    "a huge window": huge_window,
    "a dictionary": with_dictionary,
    "not zstd": lambda data: data,
    "empty": lambda data: b"",
    "cut": lambda data: zipped(data)[:-1],
    "another size": lambda data: zipped(data + b"\0"),
    "bomb": lambda data: zipped(bytes(2**30)),
}


@pytest.mark.parametrize("part", [0, 1], ids=["summary", "table"])
@pytest.mark.parametrize("name", FRAMES)
def test_anything_but_the_one_frame_is_refused(part: int, name: str) -> None:
    data = assembled(SUMMARY, BODY, frames={part: FRAMES[name]((SUMMARY, BODY)[part])})
    with frugal(max_mib=2), pytest.raises(ManifestCorruptError, match=("summary", "chunk table")[part]):
        opened(data)


@pytest.mark.parametrize("part", [0, 1], ids=["summary", "table"])
def test_a_bomb_that_says_its_size_is_refused_unopened(part: int) -> None:
    bomb = zipped(bytes(2**29))
    data = assembled(SUMMARY, BODY, frames={part: bomb}, lengths={2 * part + 1: 2**29})
    with frugal(max_mib=2), pytest.raises(LimitExceededError, match=r"Limits\.max_manifest_raw_bytes"):
        opened(data)


@pytest.mark.parametrize("part", [0, 1], ids=["summary", "table"])
def test_a_bomb_of_empty_containers_takes_little_memory(part: int) -> None:
    limits = Limits(max_nodes=1000, max_chunks=100)
    for empty in (b"\x90", b"\x80"):
        row = b"\xdc" + struct.pack(">H", 900) + empty * 900
        bomb = b"\xdc" + struct.pack(">H", 500) + row * 500
        given = [SUMMARY, BODY]
        given[part] = bomb
        data = assembled(*given)
        with frugal(max_mib=2), pytest.raises(LimitExceededError, match="values"):
            opened(data, limits=limits)
        # The mutant: without the count, the bomb is forty megabytes.
        assert len(unpack(bomb, what="bomb", max_items=1000)) == 500


def test_a_manifest_under_another_name_is_refused() -> None:
    name = DRAFT.name
    for change in (
        {"epoch": 4},
        {"seq": 8},
        {"run": "host-2"},
        {"run": None},
        {"label": "last"},
        {"label": None},
        {"id": "f" * 32},
    ):
        other = dataclasses.replace(SOURCE, name=dataclasses.replace(name, **change).text)
        with pytest.raises(ManifestCorruptError):
            decode_summary(DATA, other, LIMITS)


def test_a_manifest_of_another_collection_is_refused() -> None:
    for collection in ("exp/run 1", "exp", "exp/Run 1/x"):
        with pytest.raises(ManifestCorruptError, match="another checkpoint"):
            decode_summary(DATA, dataclasses.replace(SOURCE, collection=collection), LIMITS)


def test_a_manifest_of_another_store_is_refused() -> None:
    with pytest.raises(StoreMismatchError, match=forge.OTHER_STORE):
        decode_summary(DATA, dataclasses.replace(SOURCE, store_id=forge.OTHER_STORE), LIMITS)


def test_a_chunk_table_of_another_checkpoint_is_refused() -> None:
    other = draft(name=dataclasses.replace(DRAFT.name, seq=8))
    body = parts(encode(other, LIMITS))[1]
    data = assembled(SUMMARY, body)
    assert decode_summary(data, SOURCE, LIMITS).checkpoint.seq == 7
    with pytest.raises(ManifestCorruptError, match="belongs to another checkpoint"):
        opened(data)


def test_a_pin_that_differs_is_refused() -> None:
    right = opened(DATA)[0].checkpoint.ref.digest
    assert opened(DATA, dataclasses.replace(SOURCE, digest=right))[1] == DRAFT.table
    for wrong in ("0" * 64, right[:-1] + ("0" if right[-1] != "0" else "1")):
        with pytest.raises(IntegrityError, match="pins"):
            decode_summary(DATA, dataclasses.replace(SOURCE, digest=wrong), LIMITS)
        with pytest.raises(IntegrityError, match="pins"):
            decode_table(DATA, opened(DATA)[0], dataclasses.replace(SOURCE, digest=wrong), LIMITS)


def test_a_pin_covers_the_data_and_not_only_the_header() -> None:
    pinned = dataclasses.replace(SOURCE, digest=opened(DATA)[0].checkpoint.ref.digest)
    for data in (
        assembled(SUMMARY.replace(b"Train", b"Brain"), BODY),
        assembled(SUMMARY, BODY.replace(b"graph", b"GRAPH")),
    ):
        assert opened(data)
        with pytest.raises(IntegrityError, match="pins"):
            opened(data, pinned)


def test_every_error_names_the_key_and_holds_no_data() -> None:
    secret = draft(metadata={"secret": "hunter2"}, attributes={"x": "hunter2"})
    data = encode(secret, LIMITS)
    for position in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[position] ^= 255
        with pytest.raises(OURS) as info:
            opened(bytes(damaged))
        assert "hunter2" not in str(info.value)
        assert SOURCE.key in str(info.value)


def test_the_dialect_of_the_writer_is_the_strict_one() -> None:
    for part in (SUMMARY, BODY):
        assert msgpack.packb(unpack(part, what="x", max_items=100)) == part


def test_a_source_names_its_key() -> None:
    key = ManifestSource(forge.STORE, "exp/Run 1", DRAFT.name.text).key
    assert key.startswith("manifests/exp=2f+run=201/fffffffcfffffffffff8~host-1~best~")
