"""Copies of large memory: the interpreter is left to other threads, and several copy at once."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor

__all__ = ["copy", "copy_all"]

MIB = 1024 * 1024

_SMALL = 64 * 1024
_PIECE = 8 * MIB
_WORTH_A_THREAD = 16 * MIB
"""One thread fills warm memory about as fast as two; memory that is touched for the first time it does not."""

Copy = tuple[memoryview, memoryview]
"""The target, and the source that is as long."""


def copy(target: memoryview, source: memoryview) -> None:
    """Copy bytes over as many others. With numpy loaded, other threads run meanwhile."""
    numpy = sys.modules.get("numpy")
    if numpy is None or len(source) < _SMALL:
        target[:] = source
    else:
        numpy.copyto(numpy.frombuffer(target, "u1"), numpy.frombuffer(source, "u1"))


def copy_all(copies: Iterable[Copy], workers: Executor, n_threads: int) -> None:
    """Copy everything on up to ``n_threads`` threads: the caller's, and those of ``workers`` that are free.

    The caller may be one of the workers: it waits for none that has not begun.
    """
    pieces = deque(piece for item in copies for piece in _pieces(*item))
    nbytes = sum(len(source) for _, source in pieces)

    def work() -> None:
        while pieces:
            try:
                target, source = pieces.popleft()
            except IndexError:  # another thread took the last one
                return
            copy(target, source)

    helpers = [workers.submit(work) for _ in range(min(n_threads, nbytes // _WORTH_A_THREAD) - 1)]
    try:
        work()
    finally:
        pieces.clear()
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def _pieces(target: memoryview, source: memoryview) -> Iterator[Copy]:
    for start in range(0, len(source), _PIECE):
        yield target[start : start + _PIECE], source[start : start + _PIECE]
