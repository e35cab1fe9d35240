"""Ranges of the process's memory, joined where they overlap, as blocks of bytes."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Block", "Extent", "Region", "address_of", "join", "memory_at"]


@dataclass(slots=True)
class Block:
    """Bytes of a field.

    ``view`` is one-dimensional, contiguous, of format "B", and keeps the
    memory alive. ``itemsize`` is the width of the numbers inside (1: bytes).
    ``private`` says that nobody else can change the bytes; otherwise they are
    the caller's own memory.
    """

    view: memoryview
    itemsize: int
    private: bool


class Extent:
    """The range of memory behind one array, tensor, storage or buffer.

    ``space`` names the address space ("" is this process's memory). ``owner``
    keeps the range alive. ``compact`` gives the elements without the gaps
    between them, where the range has gaps.

    On another device both ``compact`` and ``source``, which gives the range,
    return a flat tensor of bytes there; ``compact_bytes`` is the size of the former.
    """

    __slots__ = (
        "compact",
        "compact_bytes",
        "nbytes",
        "owner",
        "region",
        "source",
        "space",
        "start",
        "width",
    )

    def __init__(self, start: int, nbytes: int, *, owner: Any, width: int, space: str = "") -> None:
        self.start = start
        self.nbytes = nbytes
        self.owner = owner
        self.width = width
        self.space = space
        self.compact: Callable[[], Any] | None = None
        self.compact_bytes = 0
        self.source: Callable[[], Any] | None = None
        self.region: Region | None = None


class Region:
    """Overlapping extents, or bytes that belong to nothing else: what becomes one block."""

    __slots__ = ("data", "extents", "field", "index", "nbytes", "private", "start", "width")

    def __init__(self, start: int, *, data: memoryview | None = None, width: int = 1) -> None:
        self.start = start
        self.nbytes = 0 if data is None else data.nbytes
        self.extents: list[Extent] = []
        self.data = data
        self.private = data is not None
        self.width = width
        self.field = -1
        self.index = -1

    @property
    def compacted(self) -> bool:
        """Whether the block holds the elements of a lone extent without their gaps."""
        return len(self.extents) == 1 and self.extents[0].compact is not None

    @property
    def space(self) -> str:
        """The device that the bytes must be fetched from, "" for none."""
        return self.extents[0].space if self.extents else ""

    @property
    def stored_bytes(self) -> int:
        """Size of the block of a region on another device."""
        return self.extents[0].compact_bytes if self.compacted else self.nbytes

    def sources(self) -> Iterator[tuple[int, Any]]:
        """Yield the bytes of the block, as tensors on the region's device, each with its offset; none comes twice."""
        first = self.extents[0]
        if self.compacted and first.compact is not None:
            yield 0, first.compact()
            return
        end = self.start
        for extent in self.extents:
            beyond = extent.start + extent.nbytes
            if beyond > end:
                assert extent.source is not None
                yield end - self.start, extent.source()[end - extent.start :]
                end = beyond

    def bring(self, data: memoryview) -> None:
        """Take the bytes that were fetched from another device."""
        self.data = data
        self.private = True
        self.width = max(extent.width for extent in self.extents)

    def block(self) -> Block:
        """Return the block, a view of the memory wherever there is one. What is elsewhere was fetched before."""
        if self.data is not None:
            return Block(self.data, self.width, self.private)
        first = self.extents[0]
        assert not first.space
        if len(self.extents) == 1:
            if first.compact is not None:
                return Block(first.compact(), first.width, True)
            return Block(memory_at(self.start, self.nbytes, first.owner), first.width, False)
        width = max(extent.width for extent in self.extents)
        owners = [extent.owner for extent in self.extents]
        return Block(memory_at(self.start, self.nbytes, owners), width, False)


def join(extents: Iterable[Extent]) -> None:
    """Give every extent its region: one for all extents that overlap, directly or through others."""
    region: Region | None = None
    end = 0
    space = ""
    for extent in sorted(extents, key=lambda extent: (extent.space, extent.start)):
        if region is None or extent.start >= end or extent.space != space:
            region = Region(extent.start)
            space = extent.space
            end = extent.start
        region.extents.append(extent)
        extent.region = region
        end = max(end, extent.start + extent.nbytes)
        region.nbytes = end - region.start


class _Span:
    """Lets numpy look at a range of memory, and keeps its owner as long as anyone looks."""

    __slots__ = ("__array_interface__", "owner")

    def __init__(self, start: int, nbytes: int, owner: Any) -> None:
        self.__array_interface__ = {"version": 3, "data": (start, True), "shape": (nbytes,), "typestr": "|u1"}
        self.owner = owner


def memory_at(start: int, nbytes: int, owner: Any) -> memoryview:
    """Return a view of ``nbytes`` bytes at an address; it keeps ``owner`` alive."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        return memoryview(numpy.asarray(_Span(start, nbytes, owner)))
    # Twenty times slower, because ctypes makes a new type for every length.
    span = (ctypes.c_char * nbytes).from_address(start)
    span.owner = owner  # type: ignore[attr-defined]
    return memoryview(span).cast("B").toreadonly()


def address_of(view: memoryview) -> int | None:
    """Return the address of a contiguous view of bytes, None if nothing here can tell."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        address: int = numpy.frombuffer(view, dtype="u1").__array_interface__["data"][0]
        return address
    return None if view.readonly else ctypes.addressof(ctypes.c_char.from_buffer(view))
