"""Where a local store keeps what, and what stands in its way: links and special files."""

from __future__ import annotations

import asyncio
import os
import socket
import stat

import pytest

from ckptstore.errors import (
    BackendError,
)


async def keys(backend, prefix="", after=""):
    return [info.key async for info in backend.list(prefix, after=after)]


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


def test_a_deleted_staged_object_is_no_longer_open(local, root):
    async def scenario(backend):
        before = len(os.listdir("/proc/self/fd"))
        await backend.put("a/b", b"x", staged=True)
        await backend.delete("a/b")
        assert len(os.listdir("/proc/self/fd")) <= before + 1  # the root itself
        await backend.sync()

    local(scenario)
