"""One operation's cost: wall, blocked and CPU time, memory above the state, bytes written."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import resource
import sys
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = [
    "Cost",
    "Memory",
    "Meter",
    "ready_memory",
    "resident_bytes",
    "settle_disk",
    "trim_memory",
]

Memory = Literal["warm", "as-is"]

BLOCK_BYTES = 8 << 20
SETTLED_BYTES = 16 << 20
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Cost:
    """What one operation cost. None: this machine cannot tell."""

    wall_s: float
    blocked_s: float
    """How long the caller could not go on: all of `wall_s` unless the work goes on in the background."""
    cpu_s: float
    """User and system time of all threads, and of children that ended meanwhile."""
    peak_bytes: int
    """Highest resident memory above the base."""
    peak_is_exact: bool
    """False: the peak could not be reset, and belongs to the process up to here."""
    written_bytes: int | None
    """Bytes given to write calls, temporary files included."""
    write_calls: int | None
    read_bytes: int | None
    """Bytes that read calls gave, from the page cache too; what is mapped is not among them."""


class Meter:
    """Measures one operation at a time, against memory of `base_bytes`."""

    def __init__(self, base_bytes: int) -> None:
        self._base_bytes = base_bytes
        self._blocked_s: float | None = None

    def __enter__(self) -> Meter:
        gc.collect()
        self._blocked_s = None
        self._peak_is_exact = _reset_peak()
        self._moved = _moved()
        self._cpu = _cpu_s()
        self._start = time.perf_counter()
        return self

    def unblocked(self) -> None:
        """Call when the caller has its thread back."""
        self._blocked_s = time.perf_counter() - self._start

    def __exit__(self, *error: object) -> None:
        wall_s = time.perf_counter() - self._start
        cpu_s = _cpu_s() - self._cpu
        written, calls, read = _since(self._moved, _moved()) or (None, None, None)
        self.cost = Cost(
            wall_s=wall_s,
            blocked_s=wall_s if self._blocked_s is None else self._blocked_s,
            cpu_s=cpu_s,
            peak_bytes=max(0, _peak_bytes() - self._base_bytes),
            peak_is_exact=self._peak_is_exact,
            written_bytes=written,
            write_calls=calls,
            read_bytes=read,
        )


Moved = tuple[int, int, int]


def _since(before: Moved | None, after: Moved | None) -> Moved | None:
    if before is None or after is None:
        return None
    return after[0] - before[0], after[1] - before[1], after[2] - before[2]


def _cpu_s() -> float:
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def _reset_peak() -> bool:
    """Sets the kernel's high-water mark of this process to what it holds now (proc(5), clear_refs)."""
    try:
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _status_bytes(field: str) -> int | None:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _rusage_peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _peak_bytes() -> int:
    peak = _status_bytes("VmHWM")
    return _rusage_peak_bytes() if peak is None else peak


def resident_bytes() -> int:
    """What this process holds in memory now; without /proc the most it ever held."""
    resident = _status_bytes("VmRSS")
    return _rusage_peak_bytes() if resident is None else resident


def _moved() -> Moved | None:
    """Bytes and calls of all writes, and bytes of all reads, by now (proc(5), io)."""
    try:
        with open("/proc/self/io", encoding="ascii") as file:
            facts = dict(line.split(": ") for line in file)
        return int(facts["wchar"]), int(facts["syscw"]), int(facts["rchar"])
    except (OSError, KeyError):
        return None


def trim_memory() -> None:
    """Gives freed memory back to the system, so that a base holds the state and nothing else."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def settle_disk(directory: str, nbytes: int) -> None:
    """Brings the page cache into a like state before every write.

    Local write times swing severalfold with it: a dummy of the same size is
    written and unlinked, and what earlier rounds left dirty is flushed. Toy
    sizes are left alone: the flush would wait for what other processes wrote.
    """
    if nbytes < SETTLED_BYTES:
        return
    path = os.path.join(directory, "dummy")
    block = os.urandom(min(BLOCK_BYTES, max(1, nbytes)))
    with open(path, "wb", buffering=0) as file:
        for start in range(0, nbytes, BLOCK_BYTES):
            file.write(block[: nbytes - start])
    os.unlink(path)
    os.sync()


def ready_memory(memory: Memory, nbytes: int) -> None:
    """Brings free memory into the same state before every operation.

    A virtual machine hands free pages back to its host, and the first touch of
    such a page costs several times a copy of it: without this, an operation's
    time depends on what happened to run before it. ``warm`` touches and frees
    about `nbytes`, at most half of what is free; ``as-is`` does nothing.
    """
    if memory == "as-is":
        return
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    nbytes = min(nbytes, free // 2)
    if nbytes >= PAGE_BYTES:
        room = _map_memory(nbytes)
        np.frombuffer(room, np.uint8)[::PAGE_BYTES] = 1
        room.close()


def _map_memory(nbytes: int) -> mmap.mmap:
    """New memory in huge pages where there are any: whole blocks of it are then warm, whoever takes them next."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return mmap.mmap(-1, nbytes)
    room = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel built without them
        room.madvise(mmap.MADV_HUGEPAGE)
    return room
