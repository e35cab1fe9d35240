"""Files of interrupted writes, and files that do not let themselves be removed."""

from __future__ import annotations

import asyncio
import os
import shutil
import time

import pytest

from ckptstore.backends import _removal
from ckptstore.errors import AccessDeniedError, BackendError

OURS = ".tmp-0123456789abcdef"


def put(path, data=b"123", *, age_s=0.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    then = time.time() - age_s
    os.utime(path, (then, then))
    return path


def test_sweep_removes_old_unfinished_files_of_ours_below_the_directory(local, root):
    old = [
        put(root / "chunks" / "ab" / OURS, age_s=100),
        put(root / "chunks" / OURS, b"4567", age_s=100),
    ]
    kept = [
        put(root / "chunks" / "cd" / OURS),
        put(root / "chunks" / "ab" / ".tmp-mine", age_s=100),
        put(root / "chunks" / "ab" / (OURS + "0"), age_s=100),
        put(root / "chunks" / "ab" / OURS.upper(), age_s=100),
        put(root / "elsewhere" / OURS, age_s=100),
        put(root / OURS, age_s=100),
        put(root / "chunksy" / OURS, age_s=100),
    ]
    (root / "chunks" / "ef" / OURS).mkdir(parents=True)
    os.mkfifo(root / "chunks" / "ff")
    (root / "chunks" / "link").symlink_to(root / "elsewhere")
    (root / "chunks" / "ef" / ".tmp-00112233445566aa").symlink_to(kept[0])

    async def scenario(backend):
        cut = time.time() - 50
        assert await backend.sweep("chunks/", cut, dry_run=True) == (2, 7)
        assert all(path.exists() for path in [*old, *kept])
        assert await backend.sweep("chunks/", cut) == (2, 7)
        assert not any(path.exists() for path in old)
        assert all(path.exists() for path in kept)
        assert await backend.sweep("chunks/", cut) == (0, 0)
        assert await backend.sweep("none/", cut) == (0, 0)

    local(scenario)


def test_what_was_written_exactly_then_is_not_older(local, root):
    path = put(root / "chunks" / OURS)

    async def scenario(backend):
        written = path.stat().st_mtime
        assert await backend.sweep("chunks/", written) == (0, 0)
        assert await backend.sweep("chunks/", written + 1e-3) == (1, 3)

    local(scenario)


def test_an_unfinished_file_that_vanishes_meanwhile_is_no_trouble(local, root, monkeypatch):
    path = put(root / "chunks" / OURS, age_s=100)
    found = _removal._unfinished

    def vanishing(fd):
        for one in found(fd):
            path.unlink()
            yield one

    monkeypatch.setattr(_removal, "_unfinished", vanishing)
    local(lambda backend: _equals(backend.sweep("chunks/", time.time()), (0, 0)))


async def _equals(awaitable, expected):
    assert await awaitable == expected


def test_a_store_that_is_gone_is_not_empty(local, root):
    async def scenario(backend):
        await backend.put("a/b", b"x")
        await asyncio.to_thread(shutil.rmtree, root)
        for attempt in (backend.delete_many(["a/b"]), backend.sweep("a/", 0.0)):
            with pytest.raises(BackendError, match=r"the directory of .* is gone"):
                await attempt

    local(scenario)


def test_what_cannot_be_removed_is_told_and_the_rest_is_removed(local, root):
    (root / "a").mkdir()
    (root / "a" / "directory").mkdir()
    put(root / "a" / "file")
    put(root / "is-a-file")
    (root / "link").symlink_to(root / "a")

    async def scenario(backend):
        failed = await backend.delete_many(["a/directory", "a/file", "is-a-file/x", "link/file", "b/none"])
        assert set(failed) == {"a/directory", "is-a-file/x", "link/file"}
        for key, error in failed.items():
            assert isinstance(error, BackendError)
            assert f"cannot delete {key} in file://" in str(error)
        assert (root / "a" / "directory").is_dir()
        assert not (root / "a" / "file").exists()

    local(scenario)


@pytest.mark.parametrize("durability", ["full", "os"])
def test_each_directory_is_flushed_once_and_a_failure_is_told_for_its_keys(
    local, root, monkeypatch, durability
):
    names = [f"{folder}/{n}" for folder in "ab" for n in range(10)]
    for key in names:
        put(root / key)
    flushed = []

    def fsync(fd):
        flushed.append(os.readlink(f"/proc/self/fd/{fd}"))
        if flushed[-1].endswith("/a"):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(_removal, "fsync", fsync)

    async def scenario(backend):
        failed = await backend.delete_many(names)
        if durability == "os":
            assert flushed == []
            assert failed == {}
            return
        assert flushed == [str(root / "a"), str(root / "b")]
        assert set(failed) == {key for key in names if key.startswith("a/")}
        assert all("deleted, but cannot make durable" in str(error) for error in failed.values())

    local(scenario, durability=durability)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may do everything")
def test_a_directory_that_may_not_be_changed_refuses(local, root):
    put(root / "a" / "b")
    (root / "a").chmod(0o500)

    async def scenario(backend):
        assert [type(error) for error in (await backend.delete_many(["a/b"])).values()] == [AccessDeniedError]

    local(scenario)
