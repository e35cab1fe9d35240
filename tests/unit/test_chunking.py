from __future__ import annotations

import hashlib

from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore._chunking import PACK_MIN_BYTES, BlockSize, Layout, Piece, digest, plan_layout

CHUNK = 1 << 20
LARGE = CHUNK // 8


def plan(blocks, *, chunk_bytes=CHUNK, inline_bytes=4096, inline_total_bytes=65536) -> Layout:
    return plan_layout(
        blocks, chunk_bytes=chunk_bytes, inline_bytes=inline_bytes, inline_total_bytes=inline_total_bytes
    )


sizes = st.one_of(
    st.integers(0, 5000),
    st.integers(0, 3 * CHUNK),
    st.sampled_from([0, 1, 4096, 4097, LARGE - 1, LARGE, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK]),
)
block_lists = st.lists(
    st.builds(BlockSize, sizes, st.sampled_from([1, 2, 3, 4, 8, 16, 24]), st.integers(0, 3)), max_size=40
)


@settings(max_examples=150, deadline=None)
@given(block_lists)
def test_every_byte_is_in_exactly_one_place(blocks):
    layout = plan(blocks)
    covered: dict[int, list[Piece]] = {index: [] for index in range(len(blocks))}
    for chunk in layout.chunks:
        assert chunk.nbytes == sum(piece.nbytes for piece in chunk.pieces)
        for piece in chunk.pieces:
            assert piece.nbytes > 0
            covered[piece.block].append(piece)
    for index, block in enumerate(blocks):
        pieces = sorted(covered[index], key=lambda piece: piece.start)
        if index in layout.inline:
            assert not pieces
            continue
        at = 0
        for piece in pieces:
            assert piece.start == at
            at += piece.nbytes
        assert at == block.nbytes
    assert len(set(layout.inline)) == len(layout.inline)


@settings(max_examples=150, deadline=None)
@given(block_lists, st.integers(1, CHUNK))
def test_chunks_are_bounded_and_of_one_element_width(blocks, chunk_bytes):
    chunk_bytes = max(chunk_bytes, max((b.nbytes for b in blocks), default=1) // 64, 1)
    for chunk in plan(blocks, chunk_bytes=chunk_bytes).chunks:
        assert 0 < chunk.nbytes <= chunk_bytes
        widths = {blocks[piece.block].itemsize for piece in chunk.pieces}
        assert {width if width in (2, 4, 8) else 1 for width in widths} == {chunk.itemsize}


@settings(max_examples=100, deadline=None)
@given(block_lists)
def test_large_blocks_are_cut_at_whole_elements(blocks):
    for chunk in plan(blocks).chunks:
        for piece in chunk.pieces:
            assert piece.start % blocks[piece.block].itemsize == 0


@settings(max_examples=100, deadline=None)
@given(block_lists)
def test_a_plan_depends_on_nothing_but_the_sizes(blocks):
    assert plan(blocks) == plan(list(blocks))


@settings(max_examples=100, deadline=None)
@given(block_lists, st.data())
def test_another_size_of_one_large_block_leaves_the_chunks_of_the_other_large_ones(blocks, data):
    large = [index for index, block in enumerate(blocks) if block.nbytes >= LARGE]
    if not large:
        return
    changed = data.draw(st.sampled_from(large))
    other = list(blocks)
    other[changed] = BlockSize(
        data.draw(st.integers(LARGE, 3 * CHUNK)), blocks[changed].itemsize, blocks[changed].group
    )

    def of_the_others(layout):
        return [chunk for chunk in layout.chunks if all(piece.block != changed for piece in chunk.pieces)]

    assert of_the_others(plan(blocks)) == of_the_others(plan(other))


def test_the_tail_of_a_large_block_is_a_chunk_of_its_own():
    layout = plan([BlockSize(2 * CHUNK + 10, 1, 0), BlockSize(5000, 1, 0)])
    assert [chunk.pieces for chunk in layout.chunks] == [
        (Piece(0, 0, CHUNK),),
        (Piece(0, CHUNK, CHUNK),),
        (Piece(0, 2 * CHUNK, 10),),
        (Piece(1, 0, 5000),),
    ]


def test_inline_is_bounded_one_by_one_and_in_all():
    blocks = [BlockSize(4096, 1, 0)] * 20 + [BlockSize(4097, 1, 0), BlockSize(0, 4, 0)]
    layout = plan(blocks)
    assert layout.inline == (*range(16), 21)
    assert plan(blocks, inline_bytes=0).inline == (21,)


def test_five_hundred_small_fields_make_one_chunk():
    assert len(plan([BlockSize(500, 4, group) for group in range(500)], inline_bytes=0).chunks) == 1


def test_a_filled_pack_is_not_shared_with_the_next_field():
    blocks = [BlockSize(LARGE - 1, 1, 0)] * 3 + [BlockSize(LARGE - 1, 1, 1)] * 3
    assert 3 * (LARGE - 1) >= PACK_MIN_BYTES
    assert [{p.block for p in chunk.pieces} for chunk in plan(blocks).chunks] == [{0, 1, 2}, {3, 4, 5}]


def test_widths_do_not_close_each_others_packs():
    blocks = [BlockSize(5000, 4, 0), BlockSize(5000, 8, 0)] * 10
    assert sorted((c.itemsize, len(c.pieces)) for c in plan(blocks).chunks) == [(4, 10), (8, 10)]


def test_digest_is_blake3_256():
    empty = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert digest(b"").hex() == empty
    data = b"0123456789" * 1000
    assert digest(data) == digest(memoryview(data)) == digest(bytearray(data))
    assert digest(data) != hashlib.sha256(data).digest()


def test_a_field_that_changes_leaves_anothers_larger_block_alone() -> None:
    sizes = [
        BlockSize(20_000, 8, 0),
        BlockSize(300_000, 8, 1),
        BlockSize(20_000, 8, 2),
        BlockSize(9_000, 8, 3),
    ]
    layout = plan_layout(sizes, chunk_bytes=8 << 20, inline_bytes=4096, inline_total_bytes=1 << 18)
    assert [[piece.block for piece in chunk.pieces] for chunk in layout.chunks] == [[0], [1], [2, 3]]
