"""Large pieces of memory: fresh ones for loads, reused ones for the snapshots of background saves.

A page that is touched for the first time costs eight times the copy of its
bytes, so large pieces ask for huge pages, and a snapshot's are kept for the next.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["Arena", "BufferPool", "Scratch", "allocate"]

_LARGE = 1024 * 1024


def allocate(nbytes: int) -> memoryview:
    """Return writable memory of ``nbytes`` bytes, page-aligned when large. It lives as long as the view."""
    if nbytes < _LARGE:
        return memoryview(bytearray(nbytes))
    # Python's default is a shared mapping, which gets no huge pages.
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


class Arena:
    """Memory for one snapshot at a time, kept between snapshots until it is released.

    ``take`` hands out parts of it; ``reset`` makes all of it free again and must
    only be called when nobody reads the last snapshot any more.
    """

    _SEGMENT = 64 * _LARGE

    def __init__(self) -> None:
        self._segments: list[memoryview] = []
        self._used: list[int] = []
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes kept, used or not."""
        return sum(len(segment) for segment in self._segments)

    def take(self, nbytes: int) -> memoryview:
        """Return ``nbytes`` bytes nobody else has until the next ``reset``, 64-byte aligned."""
        with self._lock:
            for i, segment in enumerate(self._segments):
                start = self._used[i]
                if start + nbytes <= len(segment):
                    self._used[i] = -(-(start + nbytes) // 64) * 64
                    return segment[start : start + nbytes]
            segment = allocate(max(nbytes, self._SEGMENT))
            self._segments.append(segment)
            self._used.append(-(-nbytes // 64) * 64)
            return segment[:nbytes]

    def reset(self) -> None:
        """Make all memory free for the next snapshot. What the last one did not use is given back."""
        with self._lock:
            kept = [segment for segment, used in zip(self._segments, self._used, strict=True) if used]
            self._segments = kept
            self._used = [0] * len(kept)

    def release(self) -> None:
        """Give all memory back to the system once the last view of it is gone."""
        with self._lock:
            self._segments.clear()
            self._used.clear()


class Scratch:
    """A piece of memory for each worker thread, reused from job to job."""

    def __init__(self) -> None:
        self._local = threading.local()

    def take(self, nbytes: int) -> memoryview:
        """Return ``nbytes`` bytes that this thread may use until it takes again."""
        memory: memoryview | None = getattr(self._local, "memory", None)
        if memory is None or len(memory) < nbytes:
            self._local.memory = memory = allocate(nbytes)
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
