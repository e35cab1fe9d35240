"""An S3 server with a proxy before it that makes trouble, and backends and stores behind that."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import seaweed
from chaos import ChaosProxy
from s3_rig import DATA, over

from ckptstore.backends._s3_options import S3Options
from ckptstore.backends.base import Backend
from ckptstore.backends.retry import RetryBackend, RetryPolicy
from ckptstore.backends.s3 import S3Backend

Opener = Callable[..., AbstractAsyncContextManager[Backend]]


@pytest.fixture(scope="session")
def server() -> seaweed.Server:
    return seaweed.server()


@pytest.fixture
def proxy(server: seaweed.Server) -> Iterator[ChaosProxy]:
    """A proxy without faults; fails a test that leaves a connection to it open."""
    with ChaosProxy(server.port, bucket=seaweed.BUCKET) as running:
        yield running
        running.wait_idle()


@pytest.fixture
def opened(server: seaweed.Server, proxy: ChaosProxy) -> Opener:
    """Open a backend behind the proxy, that tries again without pauses; ``prefix`` as for ``S3Backend``."""
    common = server.new_prefix()

    @contextlib.asynccontextmanager
    async def opener(
        *, policy: RetryPolicy | None = None, retries: bool = True, prefix: str = common, **options: Any
    ) -> AsyncIterator[Backend]:
        chosen = {**seaweed.options_for(proxy.endpoint_url), **options}
        if "client_factory" in options:
            chosen = options
        with ThreadPoolExecutor(1, thread_name_prefix="ckptstore-test") as executor:
            inner = S3Backend(
                seaweed.BUCKET, prefix, S3Options.of(chosen), max_connections=16, executor=executor
            )
            await inner.open()
            backend = RetryBackend(inner, policy=policy, sleep=no_pause) if retries else inner
            try:
                yield backend
            finally:
                await backend.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    return opener


@pytest.fixture
def stored(opened, run):
    """An object under ``a/b``, put without faults."""
    over(opened, run, lambda backend: backend.put("a/b", DATA))


async def no_pause(_: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _no_descriptor_left(server: seaweed.Server) -> Iterator[None]:
    """Fail a test that leaves a file or socket open."""
    before = set(_descriptors())
    yield
    gc.collect()
    left = {fd: name for fd, name in _descriptors().items() if fd not in before}
    assert not left, f"descriptors left open: {left}"


def _descriptors() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with contextlib.suppress(OSError):
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")
    return {fd: name for fd, name in found.items() if not name.endswith("/fd")}
