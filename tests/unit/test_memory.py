"""Memory that small buffers share."""

from __future__ import annotations

import weakref

from hypothesis import given
from hypothesis import strategies as st

from ckptstore._memory import Scratch, Slabs

MIB = 1024 * 1024

SIZES = st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2 * MIB)), max_size=20)


@given(SIZES)
def test_no_two_buffers_share_a_byte(sizes: list[int]) -> None:
    slabs = Slabs(sum(size for size in sizes if Slabs.is_small(size)))
    views = [slabs.take(size) for size in sizes]
    assert [view.nbytes for view in views] == sizes
    for i, view in enumerate(views):
        view[:] = bytes([i + 1]) * view.nbytes
    for i, view in enumerate(views):
        assert not view.nbytes or set(bytes(view)) == {i + 1}


def test_a_piece_is_as_large_as_all_that_is_left_or_four_mib() -> None:
    few = Slabs(3000)
    assert len(few.take(1000).obj) == 3000
    many = Slabs(100 * MIB)
    assert len(many.take(1000).obj) == 4 * MIB


def test_a_piece_is_given_back_with_the_last_view_of_it() -> None:
    slabs = Slabs(6 * MIB)
    first = [slabs.take(MIB // 2) for _ in range(8)]
    piece = weakref.ref(first[0].obj)
    assert {id(view.obj) for view in first} == {id(piece())}
    second = slabs.take(MIB // 2)
    assert second.obj is not piece()
    del first[1:]
    assert piece() is not None
    first.clear()
    assert piece() is None


def test_more_small_buffers_than_were_told_get_memory_too() -> None:
    slabs = Slabs(0)
    views = [slabs.take(1000) for _ in range(3)]
    assert [view.nbytes for view in views] == [1000] * 3


def test_scratch_for_one_purpose_is_not_that_for_another() -> None:
    scratch = Scratch()
    raw, stored = scratch.take(100, "raw"), scratch.take(100)
    raw[:] = b"r" * 100
    stored[:] = b"s" * 100
    assert bytes(raw) == b"r" * 100
    assert scratch.take(50).obj is stored.obj
