"""Written files stay open until they are flushed: as many as the process can spare."""

from __future__ import annotations

import contextlib
import os
import resource

import pytest

from ckptstore.backends import _unsynced
from ckptstore.errors import BackendError


@pytest.fixture
def all_there_are():
    """Take every descriptor the process can still have, as another part of the program might."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def take(folder):
        most = max(map(int, os.listdir("/proc/self/fd"))) + 8
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        taken = []
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(folder, os.O_RDONLY))
        return taken

    yield take
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def n_open() -> int:
    return len(os.listdir("/proc/self/fd")) - 1


@pytest.mark.parametrize(("most", "files"), [(1, 1), (256, 32), (1024, 128), (8192, 1024), (100_000, 1024)])
def test_a_store_takes_an_eighth_of_the_processs_files(monkeypatch, most, files):
    monkeypatch.setattr(resource, "getrlimit", lambda what: (most, most))
    assert _unsynced.max_open_files() == files


def test_without_a_limit_there_is_still_one(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda what: (resource.RLIM_INFINITY,) * 2)
    assert _unsynced.max_open_files() == 1024


def test_few_files_stay_open_however_many_are_staged(local, monkeypatch):
    monkeypatch.setattr(_unsynced, "max_open_files", lambda: 32)

    async def scenario(backend):
        before = n_open()
        await backend.put("a/first", b"x", staged=True)
        peak = 0
        for n in range(100):
            await backend.put(f"a/{n}", b"x", staged=True)
            peak = max(peak, n_open())
        assert peak - before <= 34  # the store's own directory is one
        await backend.sync()
        assert n_open() <= before + 1

    local(scenario)


def test_a_process_without_a_descriptor_left_flushes_and_goes_on(local, all_there_are, root):
    async def scenario(backend):
        for n in range(20):
            await backend.put(f"a/{n}", b"x", staged=True)
        taken = all_there_are(root)
        try:
            for n in range(20, 40):
                await backend.put(f"a/{n}", b"x", staged=True)
            await backend.sync()
        finally:
            for fd in taken:
                os.close(fd)
        assert await backend.get("a/39") == b"x"

    local(scenario)


def test_a_store_that_has_no_descriptor_to_spare_says_so(local, all_there_are, root):
    async def scenario(backend):
        await backend.put("a/0", b"x", staged=True)
        await backend.sync()
        taken = all_there_are(root)
        try:
            with pytest.raises(BackendError, match="Too many open files") as caught:
                await backend.put("a/1", b"x", staged=True)
            assert caught.value.transient
        finally:
            for fd in taken:
                os.close(fd)

    local(scenario)
