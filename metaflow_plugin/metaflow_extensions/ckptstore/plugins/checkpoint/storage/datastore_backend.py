"""A storage for checkpoints in one of Metaflow's datastores, through Metaflow's own code."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from typing import Any, TypeVar

from ckptstore.backends.base import Backend, Buffer, ObjectInfo
from ckptstore.errors import (
    AccessDeniedError,
    CheckpointStoreError,
    ObjectNotFoundError,
    StoreClosedError,
    StoreFullError,
    UnavailableError,
)

from .datastore_access import Access, Entry, access_of, status_of

__all__ = ["DatastoreBackend"]

R = TypeVar("R")

_FULL = (errno.ENOSPC, errno.EDQUOT)


class DatastoreBackend(Backend):
    """The objects under ``folder`` of a Metaflow DataStoreStorage, each request on a thread of ``executor``.

    Metaflow's clients try again themselves, so nothing is tried again here. A
    request that is given up goes on to its end before the caller does: threads
    cannot be stopped. The time of a put is this machine's, that of a head and of
    a listing is the storage's where it tells (see ``datastore_access``).

    ``put(if_absent=True)`` is as exact as the datastore's ``overwrite=False``:
    of two at once the later one may stay.
    """

    def __init__(self, storage: Any, folder: str, executor: Executor) -> None:
        self._access: Access = access_of(storage)
        self._root = f"{folder}/"
        self._executor = executor
        self._closed = False
        root = str(storage.datastore_root).rstrip("/")
        self._url = f"{root}/{folder}" if "://" in root else f"{storage.TYPE}:{root}/{folder}"
        self.zombie_s = self._access.zombie_s  # type: ignore[misc]  # as late as the datastore

    @property
    def url(self) -> str:
        return self._url

    @property
    def identity(self) -> str:
        return self._access.identity(self._url)

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if length is not None and length <= 0:
            await self.head(key)
            return b""
        data = await self._call("read", key, self._access.read, self._root + key, start, length)
        if data is None:
            raise ObjectNotFoundError(f"no object {key} in {self._url}")
        return data

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        return await self._put(key, data, lambda: None, if_absent=if_absent)

    async def put_in_time(self, key: str, data: Buffer, check: Callable[[], None]) -> ObjectInfo:
        """Store, unless ``check`` raises when a thread is free. Metaflow's client is not stopped after that."""
        return await self._put(key, data, check, if_absent=False)

    async def _put(self, key: str, data: Buffer, check: Callable[[], None], *, if_absent: bool) -> ObjectInfo:
        def store() -> Entry | None:
            check()
            path = self._root + key
            self._access.save(path, bytes(data), overwrite=not if_absent)
            return self._access.stat(path) if if_absent else Entry(path, len(data), time.time())

        stored = await self._call("write", key, store)
        if stored is None:
            raise UnavailableError(f"cannot write {key} in {self._url}: it is not there afterwards")
        return self._info(stored)

    async def head(self, key: str) -> ObjectInfo:
        found = await self._call("read", key, self._access.stat, self._root + key)
        if found is None:
            raise ObjectNotFoundError(f"no object {key} in {self._url}")
        return self._info(found)

    async def delete(self, key: str) -> None:
        await self._call("delete", key, self._access.delete, self._root + key)

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        folder = prefix.rpartition("/")[0]
        async with aclosing(self._scan(f"{self._root}{folder}".rstrip("/"), prefix, after)) as found:
            async for info in found:
                yield info

    async def sync(self) -> None:
        self._check_open()  # what is acknowledged is as durable as the datastore makes it

    async def aclose(self) -> None:
        self._closed = True

    async def _scan(self, folder: str, prefix: str, after: str) -> AsyncGenerator[ObjectInfo, None]:
        """Yield what is below a folder, in the order of the whole key."""
        entries = await self._call("list", prefix or "all objects", self._access.folder, folder)
        # With its slash a folder sorts as what is in it does.
        for entry in sorted(entries, key=self._key):
            key = self._key(entry)
            if entry.is_folder:
                if (key.startswith(prefix) or prefix.startswith(key)) and (
                    key > after or after.startswith(key)
                ):
                    async with aclosing(self._scan(entry.path, prefix, after)) as inside:
                        async for info in inside:
                            yield info
            elif key.startswith(prefix) and key > after:
                found = entry if entry.size is not None else await self._stat(key)
                if found is not None:
                    yield self._info(found)

    async def _stat(self, key: str) -> Entry | None:
        return await self._call("read", key, self._access.stat, self._root + key)

    def _key(self, entry: Entry) -> str:
        return entry.path[len(self._root) :] + ("/" if entry.is_folder else "")

    def _info(self, entry: Entry) -> ObjectInfo:
        return ObjectInfo(self._key(entry), entry.size or 0, entry.modified_s)

    async def _call(self, action: str, key: str, function: Callable[..., R], *args: Any) -> R:
        """Run a blocking call on a worker thread. When cancelled, wait for its end, then go on with that."""
        self._check_open()
        job = self._executor.submit(function, *args)
        future = asyncio.wrap_future(job)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if not job.cancel():
                await _ended(future)
            raise
        except CheckpointStoreError:
            raise
        except Exception as error:  # the border to Metaflow and its clients
            raise _translated(error, f"cannot {action} {key} in {self._url}") from error

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"{self._url} was used after it was closed")


async def _ended(future: asyncio.Future[Any]) -> None:
    while not future.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()  # retrieved, so that asyncio does not report it as lost


def _translated(error: Exception, what: str) -> CheckpointStoreError:
    """Return the error of ours. Its text has none of the client's: that may repeat what was sent."""
    kind, status = type(error).__name__, status_of(error)
    said = f"{what}: {kind}" + (f" (HTTP {status})" if status else "")
    if status in (401, 403) or isinstance(error, PermissionError) or kind == "MetaflowS3AccessDenied":
        return AccessDeniedError(
            f"{said}: the datastore refuses it; check the permissions of the role or key"
        )
    if getattr(error, "errno", None) in _FULL or kind == "MetaflowS3InsufficientDiskSpace" or status == 507:
        return StoreFullError(said)
    return UnavailableError(said)
