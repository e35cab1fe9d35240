from __future__ import annotations

import sys

import numpy as np
import pytest

from ckptstore.serializers.memory import Extent, address_of, join, memory_at


def extent(start: int, nbytes: int, space: str = "") -> Extent:
    """Return an extent that nothing owns."""
    return Extent(start, nbytes, owner=None, width=1, space=space)


def regions(extents: list[Extent]) -> list[tuple[int, int, int]]:
    """Return start, size and number of extents of the regions, in the order of the extents."""
    join(extents)
    found = {id(e.region): e.region for e in extents}
    return [(r.start, r.nbytes, len(r.extents)) for r in found.values() if r is not None]


def test_ranges_that_overlap_become_one_block_whatever_their_order() -> None:
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        ranges = [extent(100, 10), extent(105, 20), extent(102, 2), extent(124, 6)]
        assert regions([ranges[at] for at in order]) == [(100, 30, 4)]


def test_ranges_that_touch_or_lie_in_other_devices_stay_apart() -> None:
    assert regions([extent(100, 10), extent(110, 5)]) == [(100, 10, 1), (110, 5, 1)]
    assert regions([extent(100, 10), extent(100, 10, "cuda:0"), extent(105, 10, "cuda:1")]) == [
        (100, 10, 1),
        (100, 10, 1),
        (105, 10, 1),
    ]


def test_ranges_of_another_device_are_read_piece_by_piece_and_none_twice() -> None:
    one, two, three = extent(1000, 4, "cuda:0"), extent(1002, 4, "cuda:0"), extent(1001, 2, "cuda:0")
    one.source, two.source, three.source = lambda: b"aaaa", lambda: b"bbbb", lambda: b"cc"
    join([one, two, three])
    assert one.region is two.region is three.region
    assert one.region is not None
    assert (one.region.space, one.region.stored_bytes) == ("cuda:0", 6)
    assert list(one.region.sources()) == [(0, b"aaaa"), (4, b"bb")]
    one.width, two.width = 4, 2
    one.region.bring(memoryview(b"aaaabb"))
    block = one.region.block()
    assert (bytes(block.view), block.itemsize, block.private) == (b"aaaabb", 4, True)


def test_a_lone_range_of_another_device_is_read_without_its_gaps() -> None:
    lone = extent(1000, 100, "cuda:0")
    lone.source, lone.compact, lone.compact_bytes = lambda: b"?" * 100, lambda: b"abc", 3
    join([lone])
    assert lone.region is not None
    assert lone.region.stored_bytes == 3
    assert list(lone.region.sources()) == [(0, b"abc")]


@pytest.mark.parametrize("with_numpy", [True, False])
def test_a_view_of_an_address_shows_and_keeps_the_memory(
    monkeypatch: pytest.MonkeyPatch, with_numpy: bool
) -> None:
    if not with_numpy:
        monkeypatch.delitem(sys.modules, "numpy")
    array = np.arange(10, dtype="u1")
    view = memory_at(array.__array_interface__["data"][0], 10, array)
    assert (view.format, view.ndim, view.readonly, view.nbytes) == ("B", 1, True, 10)
    array[3] = 77
    before = sys.getrefcount(array)
    del array
    assert before > 2
    assert bytes(view) == bytes([0, 1, 2, 77, 4, 5, 6, 7, 8, 9])


def test_the_address_of_a_view_is_told_without_numpy_where_it_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = bytearray(10)
    address = address_of(memoryview(data))
    monkeypatch.delitem(sys.modules, "numpy")
    assert address_of(memoryview(data)) == address
    assert address_of(memoryview(data)[4:]) == address + 4  # type: ignore[operator]
    assert address_of(memoryview(bytes(10))) is None
