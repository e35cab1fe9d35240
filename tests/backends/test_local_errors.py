"""What goes wrong on a local disk is told, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import subprocess

import pytest

from ckptstore.backends.local import LocalBackend
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    StoreClosedError,
    StoreFullError,
    StoreNotFoundError,
)


async def keys(backend, prefix="", after=""):
    return [info.key async for info in backend.list(prefix, after=after)]


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def refusing(function, code, *, when=lambda *args, **kwargs: True):
    def call(*args, **kwargs):
        if when(*args, **kwargs):
            raise OSError(code, os.strerror(code), "secret-path")
        return function(*args, **kwargs)

    return call


ERRNOS = [
    (errno.EACCES, AccessDeniedError, False),
    (errno.EPERM, AccessDeniedError, False),
    (errno.EROFS, AccessDeniedError, False),
    (errno.EIO, BackendError, False),
    (errno.EMFILE, BackendError, True),
    (errno.ENOSPC, StoreFullError, False),
    (errno.EDQUOT, StoreFullError, False),
]


@pytest.mark.parametrize(("code", "error", "transient"), ERRNOS)
def test_an_error_of_open_is_never_not_found(local, root, monkeypatch, code, error, transient):
    async def scenario(backend):
        await backend.put("a/b", b"x")
        real = os.open
        for name in ("b", "a"):
            with monkeypatch.context() as patch:
                patch.setattr(os, "open", refusing(real, code, when=lambda path, *a, n=name, **k: path == n))
                calls = [
                    lambda: backend.get("a/b"),
                    lambda: asyncio.to_thread(backend.get_in_worker, "a/b", memoryview(bytearray(3))),
                ]
                if name == "a":
                    calls += [
                        lambda: backend.head("a/b"),
                        lambda: keys(backend, "a/"),
                        lambda: keys(backend),
                        lambda: backend.put("a/c", b""),
                        lambda: backend.put("a/c", b"", staged=True),
                        lambda: backend.delete("a/b"),
                    ]
                for call in calls:
                    with pytest.raises(BackendError) as caught:
                        await call()
                    assert type(caught.value) is error
                    assert caught.value.transient is transient
                    assert isinstance(caught.value.__cause__, OSError)
                    assert backend.url in str(caught.value)
                    assert "secret-path" not in str(caught.value)
        assert await keys(backend) == ["a/b"]

    local(scenario)


def test_permissions_that_forbid_reading_are_access_denied(local, root):
    if os.geteuid() == 0:
        pytest.skip("root may read everything")

    async def scenario(backend):
        await backend.put("a/b", b"x")
        (root / "a").chmod(0)
        try:
            for attempt in (backend.get("a/b"), keys(backend), keys(backend, "a/"), backend.head("a/b")):
                with pytest.raises(AccessDeniedError):
                    await attempt
        finally:
            (root / "a").chmod(0o700)

    local(scenario)


def test_short_writes_and_reads_are_completed(local, root, monkeypatch):
    data = bytes(range(256)) * 100
    write, readv = os.write, os.readv
    monkeypatch.setattr(os, "write", lambda fd, part: write(fd, part[:999]))
    monkeypatch.setattr(os, "readv", lambda fd, parts: readv(fd, [parts[0][:777]]))

    async def scenario(backend):
        await backend.put("a/b", data, staged=True)
        assert await backend.get("a/b") == data
        into = memoryview(bytearray(len(data)))
        assert backend.get_in_worker("a/b", into) == len(data)
        assert into == data

    local(scenario)


def test_a_disk_that_takes_nothing_is_an_error_and_not_a_hang(local, root, monkeypatch):
    monkeypatch.setattr(os, "write", lambda fd, part: 0)

    async def scenario(backend):
        with pytest.raises(BackendError, match="took no bytes"):
            await backend.put("a/b", b"data", staged=True)

    local(scenario)
    assert files(root) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_write_that_fails_leaves_no_file(local, root, monkeypatch, code, nth):
    write, calls = os.write, []

    def failing(fd, part):
        calls.append(fd)
        if len(calls) == nth:
            raise OSError(code, os.strerror(code))
        return write(fd, part[:10])

    monkeypatch.setattr(os, "write", failing)

    async def scenario(backend):
        with pytest.raises(BackendError) as caught:
            await backend.put("a/b", b"x" * 25, staged=True)
        assert isinstance(caught.value, StoreFullError) is (code != errno.EIO)
        assert files(root) == []
        monkeypatch.undo()
        await backend.put("a/b", b"x", staged=True)
        await backend.sync()

    local(scenario)


@pytest.mark.parametrize("call", ["fsync", "rename", "stat", "link"])
def test_a_put_that_fails_before_its_rename_leaves_the_old_object(local, root, monkeypatch, call):
    async def scenario(backend):
        await backend.put("a/b", b"old")
        before = files(root)
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refusing(getattr(os, call), errno.EIO))
            key = "a/new" if call == "link" else "a/b"
            with pytest.raises(BackendError, match=key) as caught:
                await backend.put(key, b"new", if_absent=call == "link")
        assert not caught.value.transient
        assert files(root) == before
        assert await backend.get("a/b") == b"old"

    local(scenario)


def test_without_hard_links_if_absent_still_works(local, root, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(os.link, errno.EOPNOTSUPP))

    async def scenario(backend):
        assert (await backend.put("a/b", b"first", if_absent=True)).size == 5
        assert (await backend.put("a/b", b"x", if_absent=True)).size == 5
        assert await backend.get("a/b") == b"first"

    local(scenario)
    assert files(root) == ["a/b"]


def test_a_directory_that_cannot_be_flushed_after_the_rename_may_be_retried(local, root, monkeypatch):
    async def scenario(backend):
        await backend.put("a/first", b"")
        real = os.fsync
        with monkeypatch.context() as patch:
            patch.setattr(
                os, "fsync", refusing(real, errno.EIO, when=lambda fd: stat.S_ISDIR(os.fstat(fd).st_mode))
            )
            with pytest.raises(BackendError, match="cannot make durable") as caught:
                await backend.put("a/b", b"x")
            assert caught.value.transient
        assert await backend.get("a/b") == b"x"
        await backend.put("a/b", b"x")

    local(scenario)


def test_a_sync_flushes_the_directory_that_a_put_could_not(local, root, monkeypatch):
    async def scenario(backend):
        await backend.put("a/first", b"")
        real, flushed = os.fsync, []

        def is_directory(fd):
            return stat.S_ISDIR(os.fstat(fd).st_mode)

        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", refusing(real, errno.EIO, when=is_directory))
            with pytest.raises(BackendError):
                await backend.put("a/b", b"x")
            with pytest.raises(BackendError):
                await backend.sync()

        def noting(fd):
            if is_directory(fd):
                flushed.append(os.fstat(fd).st_ino)
            real(fd)

        monkeypatch.setattr(os, "fsync", noting)
        await backend.sync()
        assert os.stat(root / "a").st_ino in flushed

    local(scenario)


@pytest.mark.parametrize("staged", [2, 40])
@pytest.mark.parametrize(("code", "error"), [(errno.EIO, BackendError), (errno.ENOSPC, StoreFullError)])
def test_a_failed_flush_is_final_until_the_object_is_deleted(local, root, monkeypatch, staged, code, error):
    async def scenario(backend):
        failed = []

        def once(fd):
            path = os.readlink(f"/proc/self/fd/{fd}")
            if path.endswith("/1") and not failed:
                failed.append(path)
                raise OSError(code, os.strerror(code))
            return real(fd)

        real = os.fsync
        monkeypatch.setattr(os, "fsync", once)
        for n in range(staged):
            await backend.put(f"a/{n}", b"x", staged=True)
        for _ in range(2):
            with pytest.raises(error, match="a/1 ") as caught:
                await backend.sync()
            assert not caught.value.transient
        assert failed
        await backend.delete("a/1")
        await backend.sync()

    local(scenario)


def test_a_directory_that_could_not_be_flushed_is_flushed_by_the_next_sync(local, root, monkeypatch):
    async def scenario(backend):
        await backend.put("a/b", b"x", staged=True)
        flushed = []
        real = os.fsync

        def recording(fd):
            flushed.append(os.readlink(f"/proc/self/fd/{fd}"))
            if len(flushed) == 3:
                raise OSError(errno.EIO, "x")
            real(fd)

        monkeypatch.setattr(os, "fsync", recording)
        with pytest.raises(BackendError, match="the directory a"):
            await backend.sync()
        await backend.sync()
        assert flushed == [f"{root}/a/b", f"{root}", f"{root}/a", f"{root}/a"]

    local(scenario)


@pytest.mark.parametrize("again", [False, True])
def test_a_root_that_vanished_is_an_error_and_not_an_empty_store(local, root, again):
    async def scenario(backend):
        await backend.put("a/b", b"x")
        (root / "a/b").unlink()
        (root / "a").rmdir()
        root.rmdir()
        if again:
            root.mkdir()
        for attempt in (
            backend.get("a/b"),
            backend.head("a/b"),
            keys(backend),
            keys(backend, "a/"),
            backend.put("a/b", b""),
            backend.put("a/b", b"", staged=True),
            backend.delete("a/b"),
        ):
            with pytest.raises(BackendError, match=r"gone|replaced|No such"):
                await attempt

    local(scenario)


def test_a_missing_root_is_not_made_by_a_put(local, root):
    async def scenario(backend):
        with pytest.raises(StoreNotFoundError):
            await backend.put("a/b", b"")
        with pytest.raises(StoreNotFoundError):
            await keys(backend)

    local(scenario, at=root / "missing")
    assert files(root) == []


def test_a_cancelled_put_leaves_no_temporary_file_and_no_descriptor(local, root, monkeypatch):
    async def scenario(backend):
        await backend.put("warm/up", b"")
        open_before = len(os.listdir("/proc/self/fd"))
        for staged in (False, True):
            for turns in range(0, 400, 7):
                task = asyncio.create_task(backend.put(f"a/{turns}", b"x" * 10_000, staged=staged))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                assert not any(name.startswith(".tmp-") for name in os.listdir(root))
                assert not (root / "a").exists() or not any(
                    name.startswith(".tmp-") for name in os.listdir(root / "a")
                )
                await backend.delete(f"a/{turns}")
            assert len(os.listdir("/proc/self/fd")) == open_before

    local(scenario)


def test_a_worker_that_finishes_after_the_close_leaves_nothing(run, root, executor, monkeypatch):
    write = os.write

    async def main():
        backend = LocalBackend(root, executor=executor)

        def closing(fd, part):
            n = write(fd, part)
            asyncio.run(backend.aclose())
            return n

        monkeypatch.setattr(os, "write", closing)
        with pytest.raises(StoreClosedError):
            await asyncio.to_thread(backend.put_in_worker, "a/b", b"x")

    run(main())
    assert files(root) == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one mebibyte."""
    at = tmp_path / "disk"
    at.mkdir()
    made = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(at)], capture_output=True, check=False
        )
        if os.geteuid() == 0
        else None
    )
    if made is None or made.returncode:
        pytest.skip("no file system can be mounted here")
    yield at
    subprocess.run(["umount", str(at)], check=True)


@pytest.mark.parametrize("staged", [False, True])
def test_a_full_disk_is_told_and_leaves_older_objects_whole(local, small_disk, staged):
    async def scenario(backend):
        data, n = b"x" * 100_000, 0

        async def fill():
            nonlocal n
            while True:
                await backend.put(f"a/{n}", data, staged=staged)
                n += 1

        with pytest.raises(StoreFullError, match="No space"):
            await fill()
        assert n >= 5
        assert sorted(files(small_disk)) == sorted(f"a/{m}" for m in range(n))
        for m in range(n):
            assert await backend.get(f"a/{m}") == data
        await backend.delete("a/0")
        await backend.put("a/again", data, staged=staged)
        await backend.sync()

    local(scenario, at=small_disk)
