"""A storage in a directory of a local disk or a network file system: one file per object."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar

import aiofiles

from ckptstore.backends._files import (
    TEMPORARY,
    Root,
    fsync,
    mapped,
    open_object,
    require_regular,
    split_key,
    start_write_back,
    translated,
    write_all,
)
from ckptstore.backends._listing import scan
from ckptstore.backends._removal import remove_many, sweep
from ckptstore.backends._unsynced import UnsyncedFiles
from ckptstore.backends.base import Backend, Buffer, ObjectInfo
from ckptstore.errors import BackendError, StoreClosedError

__all__ = ["LocalBackend"]

P = ParamSpec("P")
R = TypeVar("R")

_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
_LIST_BATCH = 256


class LocalBackend(Backend):
    """Objects as files below ``root``, a key's parts being its directories.

    A put writes a temporary file beside the object, flushes it, renames it and
    flushes the directory: the object is whole or absent, whatever crashes. A
    staged put writes at the final name, and ``sync`` flushes what was staged.
    With ``durability="os"`` nothing is flushed: whole after a killed process,
    not after a power cut.

    ``executor`` runs the blocking calls; it is the caller's to shut down, after
    ``aclose``. The directory must exist, unless ``open(create=True)`` made it.

    A call that is cancelled waits for what its thread is doing, so nothing of it
    runs on; a cancelled staged put leaves no object.
    """

    def __init__(
        self, root: Path | str, *, durability: Literal["full", "os"] = "full", executor: Executor
    ) -> None:
        path = os.path.abspath(root)
        self._url = Path(path).as_uri()
        self._full = durability == "full"
        self._executor = executor
        self._root = Root(path, self._url)
        self._unsynced = UnsyncedFiles(self._root)
        self._sync_lock = asyncio.Lock()
        self._closed = False
        self.put_in_worker = self._put_in_worker
        self.get_in_worker = self._get_in_worker

    @property
    def url(self) -> str:
        return self._url

    async def open(self, *, create: bool) -> None:
        """Check the directory, and with ``create`` make it if it is missing.

        Raises StoreNotFoundError if it is missing, ConfigError if it is no
        directory, AccessDeniedError if it may not be used or if it belongs to
        somebody else and everybody may write to it.
        """
        await self._finish(self._call(self._root.open, create=create))

    @property
    def identity(self) -> None:
        return None

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return await self._finish(self._get(key, start, length))

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        if not staged or if_absent:
            return await self._finish(self._put_whole(key, data, if_absent=if_absent))
        try:
            return await self._finish(self._call(self._put_staged, key, data))
        except asyncio.CancelledError:
            # It may have landed; nobody will ask for it.
            with contextlib.suppress(BackendError):
                await self._finish(self._call(self._delete, key))
            raise

    async def head(self, key: str) -> ObjectInfo:
        return await self._finish(self._call(self._head, key))

    async def delete(self, key: str) -> None:
        await self._finish(self._call(self._delete, key))

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        self._check_open()
        failed = await self._finish(self._call(remove_many, self._root, keys, durable=self._full))
        for key in keys:
            if key not in failed:
                self._unsynced.forget(key)
        return failed

    async def sweep(self, prefix: str, before_s: float, *, dry_run: bool = False) -> tuple[int, int]:
        self._check_open()
        return await self._finish(self._call(sweep, self._root, prefix, before_s, dry_run=dry_run))

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        self._check_open()
        found = scan(self._root, prefix, after)
        try:
            while batch := await self._finish(self._call(_next_of, found)):
                for info in batch:
                    yield info
        finally:
            found.close()

    async def sync(self) -> None:
        """Flush what was staged. See the contract.

        The error of a file that could not be flushed is raised again by every
        later ``sync`` until that object is deleted.
        """
        self._check_open()
        async with self._sync_lock:
            await self._finish(self._call(self._unsynced.flush))

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._finish(self._call(self._close))  # a network file system flushes at close

    def _close(self) -> None:
        self._unsynced.close()
        self._root.close()

    def _put_in_worker(self, key: str, data: Buffer) -> None:
        self._put_staged(key, data)

    def _get_in_worker(self, key: str, into: memoryview) -> int:
        self._check_open()
        fd = open_object(self._root, key)
        try:
            with mapped("cannot read", key, self._url):
                size = os.fstat(fd).st_size
                if size > len(into):
                    return size
                filled = 0
                while filled < len(into):
                    n = os.readv(fd, [into[filled:]])
                    if n == 0:
                        return filled
                    filled += n
                return filled + len(os.read(fd, 1))
        finally:
            os.close(fd)

    async def _get(self, key: str, start: int, length: int | None) -> bytes:
        self._check_open()
        _, name = split_key(key, self._url)

        def opener(_path: str, _flags: int) -> int:
            return open_object(self._root, key)

        with mapped("cannot read", key, self._url):
            async with aiofiles.open(name, "rb", buffering=0, opener=opener, executor=self._executor) as file:
                if start:
                    await file.seek(start)
                if length is None:
                    return await file.read()
                parts = []
                while length > 0 and (part := await file.read(length)):
                    parts.append(part)
                    length -= len(part)
                return b"".join(parts)

    async def _put_whole(self, key: str, data: Buffer, *, if_absent: bool) -> ObjectInfo:
        self._check_open()
        directory, name = split_key(key, self._url)
        temporary = f"{TEMPORARY}{secrets.token_hex(8)}"
        with mapped("cannot write", key, self._url):
            folder = await self._call(self._root.open_directory, directory, create=True)
            try:
                await self._write_temporary(folder, temporary, memoryview(data))
                return await self._call(self._publish, key, folder, temporary, name, if_absent=if_absent)
            except BaseException:
                await self._call(_discard, folder, temporary)
                raise
            finally:
                os.close(folder)

    async def _write_temporary(self, folder: int, temporary: str, data: memoryview) -> None:
        def opener(name: str, _flags: int) -> int:
            return os.open(name, _CREATE_FLAGS, 0o666, dir_fd=folder)

        async with aiofiles.open(
            temporary, "wb", buffering=0, opener=opener, executor=self._executor
        ) as file:
            while data:
                n = await file.write(data)
                if n <= 0:
                    raise OSError(errno.EIO, "the disk took no bytes")
                data = data[n:]
            if self._full:
                await self._call(fsync, file.fileno())

    def _publish(self, key: str, folder: int, temporary: str, name: str, *, if_absent: bool) -> ObjectInfo:
        """Give the finished file its name."""
        written_s = os.stat(temporary, dir_fd=folder, follow_symlinks=False).st_mtime
        if self._full:
            self._unsynced.settle(split_key(key, self._url)[0])
        if if_absent:
            _link_if_absent(folder, temporary, name)
        else:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        if self._full:
            self._flush_folder(folder, key, "wrote")
        try:
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError as exc:
            # The object is there: never a definite refusal.
            error = translated(exc, "wrote, but cannot look at,", key, self._url)
            error.transient = True
            raise error from exc
        require_regular(found, key, self._url)
        return ObjectInfo(key, found.st_size, found.st_mtime, written_s)

    def _put_staged(self, key: str, data: Buffer) -> ObjectInfo:
        try:
            return self._write_staged(key, data)
        except BackendError as exc:
            cause = exc.__cause__
            if not isinstance(cause, OSError) or cause.errno not in _NO_DESCRIPTORS:
                raise
            if not self._unsynced.make_room():
                raise
        return self._write_staged(key, data)

    def _write_staged(self, key: str, data: Buffer) -> ObjectInfo:
        self._check_open()
        directory, name = split_key(key, self._url)
        with (
            mapped("cannot write", key, self._url),
            self._root.directory(directory, create=True) as folder,
        ):
            try:
                fd = os.open(name, _CREATE_FLAGS, 0o666, dir_fd=folder)
            except FileExistsError as exc:
                raise BackendError(
                    f"cannot write {key} in {self._url}: it exists, and staged objects are written once"
                ) from exc
            try:
                write_all(lambda part: os.write(fd, part), memoryview(data))
                found = os.fstat(fd)
                if self._full:
                    start_write_back(fd)
            except BaseException:
                os.close(fd)
                os.unlink(name, dir_fd=folder)
                raise
            try:
                if self._full:
                    self._unsynced.add(key, fd)
                else:
                    os.close(fd)
            except BaseException:
                os.unlink(name, dir_fd=folder)
                raise
        return ObjectInfo(key, found.st_size, found.st_mtime, found.st_mtime)

    def _head(self, key: str) -> ObjectInfo:
        self._check_open()
        directory, name = split_key(key, self._url)
        with (
            self._root.missing_is_believed(),
            mapped("cannot read", key, self._url, missing=True),
            self._root.directory(directory) as folder,
        ):
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        require_regular(found, key, self._url)
        return ObjectInfo(key, found.st_size, found.st_mtime)

    def _delete(self, key: str) -> None:
        self._check_open()
        directory, name = split_key(key, self._url)
        with mapped("cannot delete", key, self._url):
            try:
                folder = self._root.open_directory(directory)
            except FileNotFoundError:
                self._root.check_present()
                return
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=folder)
                if self._full:  # also where nothing was: an earlier delete may not have come this far
                    self._flush_folder(folder, key, "deleted")
            finally:
                os.close(folder)
        self._unsynced.forget(key)

    def _flush_folder(self, folder: int, key: str, done: str) -> None:
        try:
            fsync(folder)
        except OSError as exc:
            # Whoever finds the object there and goes on by ``sync`` must not be told it is durable.
            self._unsynced.add_directory(key)
            error = translated(exc, f"{done}, but cannot make durable,", key, self._url)
            error.transient = True
            raise error from exc

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"{self._url} was used after it was closed")

    async def _call(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def _finish(self, work: Coroutine[Any, Any, R]) -> R:
        """Return what ``work`` returns; cancelled, wait for its end all the same.

        A thread cannot be stopped: to leave while it runs would leave its file behind.
        """
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            if not task.cancelled():
                task.exception()
            raise


def _next_of(found: Iterator[ObjectInfo]) -> list[ObjectInfo]:
    return list(islice(found, _LIST_BATCH))


def _discard(folder: int, temporary: str) -> None:
    """Remove an unfinished file, if it is there; what cannot be removed is garbage, and collected as such."""
    with contextlib.suppress(OSError):
        os.unlink(temporary, dir_fd=folder)


def _link_if_absent(folder: int, temporary: str, name: str) -> None:
    """Give the file its name unless that is taken, and drop the temporary one."""
    try:
        os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        pass
    except OSError as exc:
        if exc.errno not in _NO_HARD_LINKS:
            raise
        # A file system without hard links: not exact, which no promise rests on.
        if not _exists(folder, name):
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
    _discard(folder, temporary)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
