"""Manifests of every shape: what is encoded comes back the same, and a change of one byte never does."""

from __future__ import annotations

import dataclasses

import pytest
from forge import assembled, opened, parts, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore import Limits
from ckptstore._keys import MAX_EPOCH, MAX_SEQ, CheckpointName, check_collection
from ckptstore._table import ChunkEntry, ChunkTable, Segment, StoredBuffer
from ckptstore.checkpoint import CheckpointRef, FieldInfo, LeafInfo
from ckptstore.codecs import KNOWN_CODECS
from ckptstore.config import MAX_CHUNK_BYTES
from ckptstore.errors import FormatError, IntegrityError
from ckptstore.manifest import Draft, ManifestSource, decode_summary, encode, summary_end

LIMITS = Limits()
HEX = "0123456789abcdef"
FIT = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])
NAMES = st.text(FIT, min_size=1, max_size=8)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
COLLECTIONS = st.text("abcXYZ019 _.=~+\u00e4\u20ac", min_size=1, max_size=8).filter(
    lambda s: s not in (".", "..")
)
CHECKPOINT_NAMES = st.builds(
    CheckpointName,
    st.integers(0, MAX_EPOCH),
    st.integers(0, MAX_SEQ),
    st.none() | NAMES,
    st.none() | NAMES,
    st.text(HEX, min_size=32, max_size=32),
)
STORES = st.text(HEX, min_size=32, max_size=32)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)
METADATA = st.dictionaries(TEXT, PLAIN, max_size=4)


@st.composite
def chunk_entries(draw: st.DrawFn, nonces: list[bytes], digest: bytes) -> ChunkEntry:
    codec = draw(st.sampled_from(sorted(KNOWN_CODECS)))
    raw_bytes = draw(st.integers(2, 300) | st.just(MAX_CHUNK_BYTES))
    stored_bytes = raw_bytes if codec == "raw" else draw(st.integers(1, raw_bytes - 1))
    return ChunkEntry(digest, draw(st.sampled_from(nonces)), codec, raw_bytes, stored_bytes)


@st.composite
def segments(draw: st.DrawFn, chunks: tuple[ChunkEntry, ...], number: int) -> Segment:
    offset = draw(st.integers(0, chunks[number].raw_bytes - 1))
    return number, offset, draw(st.integers(1, chunks[number].raw_bytes - offset))


@st.composite
def tables(draw: st.DrawFn) -> ChunkTable:
    nonces = draw(st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=3, unique=True))
    digests = draw(st.lists(st.binary(min_size=32, max_size=32), max_size=5, unique=True))
    chunks = tuple(draw(chunk_entries(nonces, digest)) for digest in digests)
    inline = st.binary(max_size=40).map(lambda data: StoredBuffer(len(data), data, ()))
    fields = draw(st.lists(st.lists(inline, min_size=1, max_size=3), min_size=bool(chunks), max_size=3))
    numbers = list(range(len(chunks))) + draw(
        st.lists(st.integers(0, len(chunks) - 1), max_size=4) if chunks else st.just([])
    )
    for number in draw(st.permutations(numbers)):
        buffers = draw(st.sampled_from(fields))
        segment = draw(segments(chunks, number))
        if len(buffers) > 1 and buffers[-1].segments and draw(st.booleans()):
            last = buffers.pop()
            buffers.append(StoredBuffer(last.nbytes + segment[2], None, (*last.segments, segment)))
        else:
            buffers.append(StoredBuffer(segment[2], None, (segment,)))
    return ChunkTable(nonces[0], chunks, tuple(map(tuple, fields)))


@st.composite
def leaf_infos(draw: st.DrawFn, n_blocks: int) -> LeafInfo:
    shape = tuple(draw(st.lists(st.integers(0, 9), max_size=4)))
    n_elements = 1
    for n in shape:
        n_elements *= n
    block = draw(st.none() | st.integers(0, n_blocks - 1)) if n_blocks else None
    return LeafInfo(
        draw(TEXT),
        draw(st.sampled_from(["numpy", "torch"])),
        draw(st.sampled_from(["float32", "bfloat16", "<M8[ns]", "[('a', '<i4')]"])),
        shape,
        n_elements * draw(st.sampled_from([0, 1, 2, 8])),
        block,
    )


@st.composite
def drafts(draw: st.DrawFn) -> Draft:
    table = draw(tables())
    names = draw(st.lists(NAMES, min_size=len(table.buffers), max_size=len(table.buffers), unique=True))
    fields = [
        FieldInfo(
            name,
            draw(TEXT),
            draw(st.sampled_from(["tree", "pickle"])),
            *dataclasses.astuple(cost),
            tuple(draw(st.lists(TEXT, max_size=2))),
            tuple(draw(st.lists(leaf_infos(len(buffers) - 1), max_size=3))),
        )
        for name, cost, buffers in zip(names, table.costs(), table.buffers, strict=True)
    ]
    parent = st.builds(
        CheckpointRef,
        STORES,
        COLLECTIONS,
        CHECKPOINT_NAMES.map(lambda name: name.text),
        st.text(HEX, min_size=64, max_size=64),
    )
    return Draft(
        store_id=draw(STORES),
        collection=check_collection(draw(COLLECTIONS)),
        name=draw(CHECKPOINT_NAMES),
        created_ns=draw(st.integers(0, 2**63 - 1)),
        parent=draw(st.none() | parent),
        metadata=draw(METADATA),
        attributes=draw(METADATA),
        fields=fields,
        table=table,
    )


def source_of(given: Draft) -> ManifestSource:
    return ManifestSource(given.store_id, given.collection, given.name.text)


@settings(max_examples=150, deadline=None)
@given(drafts())
def test_everything_comes_back(given: Draft) -> None:
    data = encode(given, LIMITS)
    manifest, table = opened(data, source_of(given))
    found = manifest.checkpoint
    assert table == given.table
    assert list(manifest.fields.values()) == list(given.fields)
    assert found.fields == tuple(field.name for field in given.fields)
    assert CheckpointName(found.epoch, found.seq, found.run, found.label, given.name.id) == given.name
    assert (found.collection, found.ref.name) == (given.collection, given.name.text)
    assert (found.metadata, found.attributes) == (given.metadata, given.attributes)
    assert (found.created_ns, found.parent) == (given.created_ns, given.parent)
    assert found.sizes.raw_bytes == sum(buffer.nbytes for field in table.buffers for buffer in field)
    assert found.sizes.n_chunks == len(given.table.chunks)


@settings(max_examples=60, deadline=None)
@given(drafts())
def test_the_same_draft_is_the_same_bytes(given: Draft) -> None:
    data = encode(given, LIMITS)
    assert encode(given, LIMITS) == data
    source = source_of(given)
    head = data[: summary_end(data, source, LIMITS)]
    assert decode_summary(head, source, LIMITS) == opened(data, source)[0]


@settings(max_examples=60, deadline=None)
@given(drafts(), st.data())
def test_a_changed_byte_is_never_other_data(given: Draft, data: st.DataObject) -> None:
    encoded = encode(given, LIMITS)
    for _ in range(20):
        position = data.draw(st.integers(0, len(encoded) - 1))
        changed = bytearray(encoded)
        changed[position] ^= data.draw(st.integers(1, 255))
        with pytest.raises((FormatError, IntegrityError)):
            opened(bytes(changed), source_of(given))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_raise_only_errors_of_ours(data: bytes) -> None:
    summary, body = parts()
    for forged in (data, assembled(data, body), assembled(summary, data)):
        assert problem(forged) is not None
    frames = [{0: data}, {1: data}]
    for frame in frames:
        assert problem(assembled(summary, body, frames=frame)) is not None


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_changed_msgpack_raises_only_errors_of_ours(data: st.DataObject) -> None:
    given = [bytearray(part) for part in parts()]
    for _ in range(data.draw(st.integers(1, 4))):
        part = given[data.draw(st.integers(0, 1))]
        start = data.draw(st.integers(0, len(part) - 1))
        part[start : start + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=6))
    problem(assembled(*map(bytes, given)))
