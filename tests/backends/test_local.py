"""What only the local backend can break: links, special files, the disk, the order of flushes."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
import subprocess
import threading

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


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir())


def test_a_key_is_a_path_below_the_root_and_umask_is_respected(local, root):
    async def scenario(backend):
        await backend.put("manifests/c/one", b"x")
        await backend.put("chunks/ab/two", b"y", staged=True)
        await backend.sync()

    before = os.umask(0o027)
    try:
        local(scenario)
    finally:
        os.umask(before)
    assert files(root) == ["chunks/ab/two", "manifests/c/one"]
    assert stat.S_IMODE((root / "manifests/c/one").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "chunks/ab/two").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "chunks/ab").stat().st_mode) == 0o750


def test_unfinished_files_are_never_listed_and_foreign_ones_are(local, root):
    (root / "a").mkdir()
    for name in (".tmp-0123", "a/.tmp-4567", "a/object", "a/Foreign file", "a/.hidden", ".DS_Store"):
        (root / name).write_bytes(b"")

    async def scenario(backend):
        assert await keys(backend) == [".DS_Store", "a/.hidden", "a/Foreign file", "a/object"]

    local(scenario)


def special(path, kind):
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "a directory":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a symbolic link":
        (path.parent.parent / "secret").write_bytes(b"secret")
        path.symlink_to(path.parent.parent / "secret")
    elif kind == "a dangling link":
        path.symlink_to("nowhere")
    elif kind == "a device":
        try:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("devices cannot be made here")
    elif kind == "a socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(path))  # an absolute name is too long for a socket


KINDS = ["a directory", "a FIFO", "a symbolic link", "a dangling link", "a device", "a socket"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", KINDS)
def test_reading_what_is_no_file_is_a_clear_error(local, root, kind, monkeypatch):
    monkeypatch.chdir(root)
    special(root / "a" / "b", kind)
    word = kind.replace("dangling", "symbolic").split()[-1] if kind != "a socket" else "special file|socket"

    async def scenario(backend):
        into = memoryview(bytearray(10))
        with pytest.raises(BackendError, match=word):
            await backend.get("a/b")
        with pytest.raises(BackendError, match=word):
            await backend.head("a/b")
        with pytest.raises(BackendError, match=word):
            await asyncio.to_thread(backend.get_in_worker, "a/b", into)

    local(scenario)


@pytest.mark.parametrize("kind", KINDS)
def test_a_staged_put_never_writes_through_or_over_what_is_there(local, root, kind, monkeypatch):
    monkeypatch.chdir(root)
    special(root / "a" / "b", kind)
    before = files(root)

    async def scenario(backend):
        with pytest.raises(BackendError, match="a/b"):
            await backend.put("a/b", b"x", staged=True)

    local(scenario)
    assert files(root) == before
    assert not (root / "nowhere").exists()


def test_a_put_replaces_a_link_and_leaves_its_target(local, root):
    special(root / "a" / "b", "a symbolic link")

    async def scenario(backend):
        await backend.put("a/b", b"object")
        assert await backend.get("a/b") == b"object"

    local(scenario)
    assert (root / "secret").read_bytes() == b"secret"


def test_a_put_onto_a_directory_is_an_error_and_leaves_nothing(local, root):
    special(root / "a" / "b", "a directory")

    async def scenario(backend):
        for if_absent in (False, True):
            with pytest.raises(BackendError, match="directory"):
                await backend.put("a/b", b"x", if_absent=if_absent)
        with pytest.raises(BackendError, match=r"directory|permitted"):
            await backend.delete("a/b")

    local(scenario)
    assert files(root) == []


def test_a_linked_directory_is_neither_read_written_nor_silently_skipped(local, root, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_bytes(b"secret")
    (root / "chunks").mkdir()
    (root / "chunks" / "ab").symlink_to(outside)
    (root / "manifests").mkdir()

    async def scenario(backend):
        for attempt in (
            backend.get("chunks/ab/x"),
            backend.head("chunks/ab/x"),
            backend.put("chunks/ab/y", b""),
            backend.put("chunks/ab/y", b"", staged=True),
            backend.delete("chunks/ab/x"),
            keys(backend, "chunks/ab/"),
            keys(backend, "chunks/"),
            keys(backend),
        ):
            with pytest.raises(BackendError, match="chunks"):
                await attempt
        assert await keys(backend, "manifests/") == []

    local(scenario)
    assert files(outside) == ["x"]


def test_a_file_in_the_place_of_a_directory_is_an_error(local, root):
    (root / "chunks").write_bytes(b"")

    async def scenario(backend):
        for attempt in (
            backend.get("chunks/ab/x"),
            backend.head("chunks/ab/x"),
            backend.put("chunks/ab/x", b""),
            backend.put("chunks/ab/x", b"", staged=True),
            keys(backend, "chunks/ab/"),
        ):
            with pytest.raises(BackendError, match="no directory stands in its way"):
                await attempt

    local(scenario)


@pytest.mark.parametrize(
    "key", ["../x", "./x", "/x", "a/../x", "a//x", "a/..", "a/", "", "a/.tmp-1", "a/x\0"]
)
def test_a_key_that_is_no_path_below_the_store_is_refused(local, root, tmp_path, key):
    (root / "a").mkdir()

    async def scenario(backend):
        for call in (
            lambda: backend.put(key, b""),
            lambda: backend.put(key, b"", staged=True),
            lambda: backend.get(key),
            lambda: backend.head(key),
            lambda: backend.delete(key),
        ):
            with pytest.raises(BackendError, match="cannot be a file"):
                await call()

    local(scenario)
    assert files(tmp_path) == []


@pytest.mark.parametrize("prefix", ["../", "/", "a/../", "a//"])
def test_a_prefix_cannot_lead_out_of_the_store(local, root, prefix):
    (root / "a").mkdir()

    async def scenario(backend):
        with pytest.raises(BackendError, match="cannot be a file"):
            await keys(backend, prefix)

    local(scenario)


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


def test_a_staged_key_is_written_once(local, root):
    async def scenario(backend):
        await backend.put("a/b", b"first", staged=True)
        with pytest.raises(BackendError, match="written once"):
            await backend.put("a/b", b"again", staged=True)
        with pytest.raises(BackendError, match="written once"):
            backend.put_in_worker("a/b", b"again")
        await backend.sync()
        assert await backend.get("a/b") == b"first"

    local(scenario)


def test_few_files_stay_open_however_many_are_staged(local, root):
    async def scenario(backend):
        peak = 0
        for n in range(100):
            await backend.put(f"a/{n}", b"x", staged=True)
            peak = max(peak, len(os.listdir("/proc/self/fd")))
        await backend.sync()
        assert peak - len(os.listdir("/proc/self/fd")) <= 33

    local(scenario)


def test_a_deleted_staged_object_is_no_longer_open(local, root):
    async def scenario(backend):
        before = len(os.listdir("/proc/self/fd"))
        await backend.put("a/b", b"x", staged=True)
        await backend.delete("a/b")
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # the root itself
        await backend.sync()

    local(scenario)


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


def test_durability_os_flushes_nothing(local, root, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(os.fsync, errno.EIO))

    async def scenario(backend):
        await backend.put("a/b", b"x")
        await backend.put("a/c", b"x", staged=True)
        await backend.sync()
        await backend.delete("a/b")

    local(scenario, durability="os")
    assert files(root) == ["a/c"]


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

    async def scenario(backend):
        await backend.put("a/first", b"x", staged=True)
        puts = [asyncio.create_task(backend.put(f"a/{n}", b"x", staged=True)) for n in range(32)]
        await asyncio.to_thread(entered.wait, 10)
        syncing = asyncio.create_task(backend.sync())
        done, _ = await asyncio.wait([syncing], timeout=0.05)
        assert not done
        go_on.set()
        with pytest.raises(BackendError, match="a/first"):
            await syncing
        await asyncio.wait(puts)

    local(scenario)
