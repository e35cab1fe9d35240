"""Large pieces of memory: fresh ones for loads, reused ones for the snapshots of background saves.

A page that is touched for the first time costs eight times the copy of its
bytes, so large pieces ask for huge pages, and a snapshot's are kept for the next.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Arena", "BufferPool", "Scratch", "Slabs", "allocate", "touch"]

_LARGE = 1024 * 1024
_TOUCH_STEP = 4 * _LARGE
_SLAB = 4 * _LARGE
"""What a small buffer may keep from being freed: huge pages come in pieces of 2 MiB."""


def allocate(nbytes: int) -> memoryview:
    """Return writable memory of ``nbytes`` bytes, page-aligned when large. It lives as long as the view."""
    if nbytes < _LARGE:
        return memoryview(bytearray(nbytes))
    # Python's default is a shared mapping, which gets no huge pages.
    try:
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError as exc:
        raise MemoryError(f"the system has no {nbytes} bytes of memory: {exc}") from exc
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def touch(memory: memoryview, go_on: Callable[[], bool]) -> None:
    """Have the system back ``memory`` with real pages, while other threads run. Its content becomes zero."""
    with open("/dev/zero", "rb", buffering=0) as zeros:
        for start in range(0, len(memory), _TOUCH_STEP):
            if not go_on():
                return
            zeros.readinto(memory[start : start + _TOUCH_STEP])


@dataclass(slots=True)
class _Segment:
    memory: memoryview
    used: int = 0
    reserved: bool = False
    """Kept until something was taken from it."""

    def take(self, nbytes: int) -> memoryview | None:
        start = self.used
        if start + nbytes > len(self.memory):
            return None
        self.used = -(-(start + nbytes) // 64) * 64
        self.reserved = False
        return self.memory[start : start + nbytes]


class Slabs:
    """Memory for buffers of which the small ones take ``small_bytes`` in all: they are cut from larger pieces.

    A piece lives as long as any view of it.
    """

    def __init__(self, small_bytes: int) -> None:
        self._left = small_bytes
        self._slab = _Segment(memoryview(bytearray()))

    @staticmethod
    def is_small(nbytes: int) -> bool:
        """Whether a buffer is one of those that share a piece."""
        return nbytes < _LARGE

    def take(self, nbytes: int) -> memoryview:
        """Return writable memory of ``nbytes`` bytes, aligned to 16 bytes at least."""
        if not self.is_small(nbytes):
            return allocate(nbytes)
        taken = self._slab.take(nbytes)
        if taken is None:
            size = min(_SLAB, max(self._left, nbytes))
            self._slab = _Segment(allocate(size))
            taken = self._slab.take(nbytes)
            assert taken is not None
        self._left -= nbytes
        return taken


class Arena:
    """Memory for one snapshot at a time, kept between snapshots until it is released.

    ``take`` hands out parts of it; ``reset`` makes all of it free again and must
    only be called when nobody reads the last snapshot any more.
    """

    _SEGMENT = 64 * _LARGE

    def __init__(self) -> None:
        self._segments: list[_Segment] = []
        self._reserving_bytes = 0
        self._released = False
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes kept, used or not."""
        return sum(len(segment.memory) for segment in self._segments)

    def take(self, nbytes: int) -> memoryview:
        """Return ``nbytes`` bytes nobody else has until the next ``reset``, 64-byte aligned."""
        with self._lock:
            for segment in self._segments:
                taken = segment.take(nbytes)
                if taken is not None:
                    return taken
            segment = _Segment(allocate(max(nbytes, self._SEGMENT)))
            self._segments.append(segment)
            taken = segment.take(nbytes)
            assert taken is not None
            return taken

    def reserve(self, nbytes: int) -> None:
        """Have memory for a snapshot of ``nbytes`` bytes ready and touched; it stays until it was used.

        Nobody who takes memory meanwhile waits for this, and ``release`` ends it.
        """
        with self._lock:
            missing = nbytes - self.nbytes - self._reserving_bytes
            if missing <= 0:
                return
            size = missing + missing // 64 + _LARGE  # parts are aligned
            self._reserving_bytes += size
        try:
            segment = _Segment(allocate(size), reserved=True)
            touch(segment.memory, lambda: not self._released)
            with self._lock:
                if not self._released:
                    self._segments.append(segment)
        finally:
            with self._lock:
                self._reserving_bytes -= size

    def reset(self) -> None:
        """Make all memory free for the next snapshot. What the last one did not use is given back."""
        with self._lock:
            self._segments = [segment for segment in self._segments if segment.used or segment.reserved]
            for segment in self._segments:
                segment.used = 0

    def release(self) -> None:
        """Give all memory back to the system once the last view of it is gone. The arena's end."""
        with self._lock:
            self._released = True
            self._segments.clear()


class Scratch:
    """Pieces of memory for each worker thread, by what they are for, reused from job to job."""

    def __init__(self) -> None:
        self._local = threading.local()

    def take(self, nbytes: int, purpose: str = "stored") -> memoryview:
        """Return ``nbytes`` bytes that this thread may use until it takes again for this purpose."""
        memory: memoryview | None = getattr(self._local, purpose, None)
        if memory is None or len(memory) < nbytes:
            memory = allocate(nbytes)
            setattr(self._local, purpose, memory)
        return memory[:nbytes]


class BufferPool:
    """Buffers that go from hand to hand, for bytes that are on their way: fresh memory costs more than they do.

    At most ``max_kept_bytes`` wait for their next use. For one event loop.
    """

    def __init__(self, max_kept_bytes: int = 64 * _LARGE) -> None:
        self._max_kept_bytes = max_kept_bytes
        self._kept: list[memoryview] = []

    @contextmanager
    def buffer(self, nbytes: int) -> Iterator[memoryview]:
        """Lend a buffer of ``nbytes`` bytes, with undefined content."""
        place = next((i for i, memory in enumerate(self._kept) if len(memory) >= nbytes), None)
        memory = allocate(nbytes) if place is None else self._kept.pop(place)
        try:
            yield memory[:nbytes]
        finally:
            if sum(map(len, self._kept)) + len(memory) <= self._max_kept_bytes:
                self._kept.append(memory)

    def release(self) -> None:
        """Give what waits back to the system."""
        self._kept.clear()
