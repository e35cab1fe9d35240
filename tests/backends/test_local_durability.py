"""What a local put promises is on the disk, in the order that a power cut asks for."""

from __future__ import annotations

import asyncio
import errno
import os
import threading

import pytest

from ckptstore.backends import _unsynced
from ckptstore.backends.local import LocalBackend
from ckptstore.errors import (
    BackendError,
)


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


class PowerCut:
    """Follows the system calls of a store, and tells what a power cut now would leave of it."""

    def __init__(self, monkeypatch, root):
        self.root = str(root)
        self.loose: set[str] = set()  # directory entries that are not on the disk
        self.unwritten: set[str] = set()  # files whose bytes are not on the disk
        self.log: list[str] = []
        for name in ("open", "mkdir", "rename", "link", "unlink", "fsync"):
            monkeypatch.setattr(os, name, getattr(self, name)(getattr(os, name)))

    @staticmethod
    def path(name, dir_fd):
        return name if dir_fd is None else f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{name}"

    def open(self, real):
        def call(name, flags, mode=0o777, *, dir_fd=None):
            fd = real(name, flags, mode, dir_fd=dir_fd)
            if flags & os.O_CREAT:
                self.loose.add(self.path(name, dir_fd))
                self.unwritten.add(self.path(name, dir_fd))
            return fd

        return call

    def mkdir(self, real):
        def call(name, mode=0o777, *, dir_fd=None):
            real(name, mode, dir_fd=dir_fd)
            self.loose.add(self.path(name, dir_fd))

        return call

    def rename(self, real):
        def call(one, two, *, src_dir_fd=None, dst_dir_fd=None):
            real(one, two, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            self._named(self.path(one, src_dir_fd), self.path(two, dst_dir_fd))
            self.loose.discard(self.path(one, src_dir_fd))

        return call

    def link(self, real):
        def call(one, two, *, src_dir_fd=None, dst_dir_fd=None, follow_symlinks=True):
            real(one, two, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd, follow_symlinks=follow_symlinks)
            self._named(self.path(one, src_dir_fd), self.path(two, dst_dir_fd))

        return call

    def _named(self, one, two):
        assert one not in self.unwritten, "a file got its name before its bytes were on the disk"
        self.loose.add(two)

    def unlink(self, real):
        def call(name, *, dir_fd=None):
            real(name, dir_fd=dir_fd)
            self.loose.add("gone: " + self.path(name, dir_fd))
            self.loose.discard(self.path(name, dir_fd))
            self.unwritten.discard(self.path(name, dir_fd))

        return call

    def fsync(self, real):
        def call(fd):
            path = os.readlink(f"/proc/self/fd/{fd}")
            real(fd)
            self.unwritten.discard(path)
            self.loose = {one for one in self.loose if os.path.dirname(one.removeprefix("gone: ")) != path}

        return call

    def check(self):
        assert not self.unwritten, f"bytes lost: {self.unwritten}"
        assert not self.loose, f"entries lost: {self.loose}"


async def each_kind_of_write(backend, cut):
    """Yield after every call that promises durability."""
    await backend.put("manifests/new/one", b"x")
    cut.check()
    await backend.put("manifests/new/two", b"x", if_absent=True)
    cut.check()
    await backend.put("manifests/new/two", b"y", if_absent=True)
    cut.check()
    for n in range(40):
        await backend.put(f"chunks/{n % 3}/{n}", b"x", staged=True)
    await backend.sync()
    cut.check()
    backend.put_in_worker("chunks/9/x", b"x")
    await backend.sync()
    cut.check()
    await backend.delete("chunks/9/x")
    cut.check()


def test_what_is_acknowledged_survives_a_power_cut(local, root, monkeypatch):
    cut = PowerCut(monkeypatch, root)
    local(lambda backend: each_kind_of_write(backend, cut))


@pytest.mark.parametrize(
    "mutant",
    [
        ("ckptstore.backends.local.LocalBackend._flush_folder", lambda *args: None),
        ("ckptstore.backends.local.fsync", lambda fd: None),
        ("ckptstore.backends._unsynced.fsync", lambda fd: None),
        ("ckptstore.backends._unsynced.UnsyncedFiles.settle", lambda *args: None),
        ("ckptstore.backends._unsynced.UnsyncedFiles._flush_directory", lambda *args: None),
        ("ckptstore.backends._unsynced.UnsyncedFiles.flush", lambda *args: None),
    ],
    ids=lambda mutant: mutant[0].rpartition("backends.")[2],
)
def test_the_power_cut_catches_a_missing_flush(local, root, monkeypatch, mutant):
    monkeypatch.setattr(*mutant)
    cut = PowerCut(monkeypatch, root)
    with pytest.raises(AssertionError, match=r"lost|before its bytes"):
        local(lambda backend: each_kind_of_write(backend, cut))


def test_a_new_root_and_its_parents_are_flushed(run, root, executor, monkeypatch):
    cut = PowerCut(monkeypatch, root)

    async def main():
        backend = LocalBackend(root / "x" / "y", executor=executor)
        await backend.open(create=True)
        cut.check()
        await backend.aclose()

    run(main())


def refusing(function, code, *, when=lambda *args, **kwargs: True):
    def call(*args, **kwargs):
        if when(*args, **kwargs):
            raise OSError(code, os.strerror(code), "secret-path")
        return function(*args, **kwargs)

    return call


def test_durability_os_flushes_nothing(local, root, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(os.fsync, errno.EIO))

    async def scenario(backend):
        await backend.put("a/b", b"x")
        await backend.put("a/c", b"x", staged=True)
        await backend.sync()
        await backend.delete("a/b")

    local(scenario, durability="os")
    assert files(root) == ["a/c"]


def test_a_delete_that_was_not_flushed_is_flushed_when_it_is_repeated(local, root, monkeypatch):
    async def scenario(backend):
        await backend.put("a/b", b"x")
        flushed = []
        real = os.fsync

        def recording(fd):
            flushed.append(os.readlink(f"/proc/self/fd/{fd}"))
            if len(flushed) == 1:
                raise OSError(errno.EIO, "x")
            real(fd)

        monkeypatch.setattr(os, "fsync", recording)
        with pytest.raises(BackendError, match="cannot make durable") as caught:
            await backend.delete("a/b")
        assert caught.value.transient
        await backend.delete("a/b")
        assert flushed == [f"{root}/a"] * 2

    local(scenario)


def test_a_sync_waits_for_files_that_others_are_flushing(local, root, executor, monkeypatch):
    """The file that an overflowing put flushes belongs to whoever put it."""
    entered, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def slow(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith("/first"):
            entered.set()
            assert go_on.wait(10)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(fd)

    monkeypatch.setattr(os, "fsync", slow)
    monkeypatch.setattr(_unsynced, "max_open_files", lambda: 16)

    async def scenario(backend):
        await backend.put("a/first", b"x", staged=True)
        puts = [asyncio.create_task(backend.put(f"a/{n}", b"x", staged=True)) for n in range(32)]
        assert await asyncio.to_thread(entered.wait, 10)
        syncing = asyncio.create_task(backend.sync())
        done, _ = await asyncio.wait([syncing], timeout=0.05)
        assert not done
        go_on.set()
        with pytest.raises(BackendError, match="a/first"):
            await syncing
        await asyncio.wait(puts)

    local(scenario)
