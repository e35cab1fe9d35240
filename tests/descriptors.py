"""A process that may open only so many files more, by the system's own limit."""

from __future__ import annotations

import contextlib
import itertools
import os
import resource
from collections.abc import Iterator


@contextlib.contextmanager
def only(n: int) -> Iterator[None]:
    """Let this process open ``n`` files or sockets more: their numbers are the lowest that are free."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = itertools.filterfalse(_is_open, itertools.count())
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, n, None)), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
