"""The storages that the conformance suite runs over: to add one, add its opener to ``STORAGES``."""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest
import seaweed

from ckptstore.backends import open_backend
from ckptstore.backends.base import Backend
from ckptstore.backends.local import LocalBackend
from ckptstore.backends.memory import MemoryBackend, MemorySpace
from ckptstore.config import StoreConfig

FD_DIRECTORY = "/proc/self/fd"


@dataclass(frozen=True)
class Storage:
    """One storage for one test; every ``open`` gives another backend over the same objects.

    ``exact``: it knows of two who put one key with ``if_absent`` in one moment,
    and tells the time of a put to the nanosecond.
    """

    name: str
    open: Callable[[], AbstractAsyncContextManager[Backend]]
    exact: bool = True


def memory(tmp_path: Path, executor: Executor) -> Callable[[], AbstractAsyncContextManager[Backend]]:
    space: MemorySpace = {}

    @contextlib.asynccontextmanager
    async def opener() -> AsyncIterator[Backend]:
        backend = MemoryBackend(space)
        try:
            yield backend
        finally:
            await backend.aclose()

    return opener


def local(durability: str) -> Callable[..., Callable[[], AbstractAsyncContextManager[Backend]]]:
    def make(tmp_path: Path, executor: Executor) -> Callable[[], AbstractAsyncContextManager[Backend]]:
        @contextlib.asynccontextmanager
        async def opener() -> AsyncIterator[Backend]:
            backend = LocalBackend(tmp_path / "store", durability=durability, executor=executor)
            await backend.open(create=True)
            try:
                yield backend
            finally:
                await backend.aclose()

        return opener

    return make


def s3(tmp_path: Path, executor: Executor) -> Callable[[], AbstractAsyncContextManager[Backend]]:
    server = seaweed.server()
    url = server.new_url()

    @contextlib.asynccontextmanager
    async def opener() -> AsyncIterator[Backend]:
        backend = await open_backend(url, config=StoreConfig(), executor=executor, **server.options)
        try:
            yield backend
        finally:
            await backend.aclose()

    return opener


STORAGES = {"memory": memory, "local-full": local("full"), "local-os": local("os"), "s3": s3}


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4, thread_name_prefix="ckptstore-test") as pool:
        yield pool


@pytest.fixture(params=STORAGES)
def storage(request: pytest.FixtureRequest, tmp_path: Path, executor: Executor) -> Storage:
    opener = STORAGES[request.param](tmp_path, executor)
    return Storage(request.param, opener, exact=request.param != "s3")


@pytest.fixture(autouse=True)
def _no_descriptor_left() -> Iterator[None]:
    """Fail a test that leaves a file open."""
    if not os.path.isdir(FD_DIRECTORY):
        yield
        return
    before = set(os.listdir(FD_DIRECTORY))
    yield
    gc.collect()
    left = {}
    for fd in set(os.listdir(FD_DIRECTORY)) - before:
        with contextlib.suppress(OSError):
            left[fd] = os.readlink(f"{FD_DIRECTORY}/{fd}")
    left = {fd: name for fd, name in left.items() if not name.endswith("/fd")}
    assert not left, f"descriptors left open: {left}"


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "store"
    path.mkdir()
    return path


@pytest.fixture
def local(run, root, executor):
    """Run ``scenario(backend)`` over a local backend at ``root``."""

    def running(scenario, *, durability="full", at=root):
        async def main():
            backend = LocalBackend(at, durability=durability, executor=executor)
            try:
                return await scenario(backend)
            finally:
                await backend.aclose()

        return run(main())

    return running
