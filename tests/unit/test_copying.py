"""Copies on several threads."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest

from ckptstore import _copying
from ckptstore._copying import copy, copy_all
from ckptstore._workers import WorkerPool

MIB = 1 << 20


@pytest.fixture
def workers() -> Iterator[WorkerPool]:
    pool = WorkerPool(2)
    yield pool
    pool.shutdown()


def pair(nbytes: int, seed: int = 0) -> tuple[memoryview, memoryview]:
    return memoryview(bytearray(nbytes)), memoryview(np.random.default_rng(seed).bytes(nbytes))


@pytest.mark.parametrize("nbytes", [0, 1, 64 * 1024 - 1, 64 * 1024, MIB + 3])
@pytest.mark.parametrize("numpy", [True, False])
def test_a_copy_has_the_same_bytes(nbytes: int, numpy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    target, source = pair(nbytes)
    if not numpy:
        monkeypatch.setitem(sys.modules, "numpy", None)
    copy(target, source)
    assert target == source


def test_everything_is_copied_by_several_threads_at_once(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    met = threading.Barrier(3)

    def copied(target: memoryview, source: memoryview) -> None:
        if threading.get_ident() not in threads:
            threads.add(threading.get_ident())
            met.wait(timeout=60)
        copy(target, source)

    monkeypatch.setattr(_copying, "copy", copied)
    pairs = [pair(nbytes, nbytes) for nbytes in (30 * MIB + 1, 0, 5, 20 * MIB)]
    copy_all(pairs, workers, 3)
    assert all(target == source for target, source in pairs)
    assert len(threads) == 3


def test_workers_that_are_busy_are_not_waited_for(workers: WorkerPool) -> None:
    free = threading.Event()
    try:
        for _ in range(2):
            workers.submit(free.wait, 60)
        target, source = pair(48 * MIB)
        copy_all([(target, source)], workers, 3)
        assert target == source
        assert not free.is_set()
    finally:
        free.set()


def test_little_is_copied_without_workers() -> None:
    pool = WorkerPool(1)
    pool.shutdown()  # it would refuse a job
    target, source = pair(MIB)
    copy_all([(target, source)], pool, 8)
    assert target == source


def test_what_fails_in_a_worker_is_raised_and_nothing_goes_on(
    workers: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, begun = threading.get_ident(), threading.Event()

    def failing(target: memoryview, source: memoryview) -> None:
        if threading.get_ident() != caller:
            begun.set()
            raise MemoryError("the test's memory is full")
        assert begun.wait(60)

    monkeypatch.setattr(_copying, "copy", failing)
    with pytest.raises(MemoryError, match="the test's memory is full"):
        copy_all([pair(48 * MIB)], workers, 2)
