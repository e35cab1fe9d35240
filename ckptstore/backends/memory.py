"""A storage in this process's memory: the reference that the other backends are measured against."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable

from ckptstore.backends.base import Backend, Buffer, ObjectInfo
from ckptstore.errors import ObjectNotFoundError, StoreClosedError

__all__ = ["MemoryBackend", "MemorySpace"]

MemorySpace = dict[str, tuple[bytes, float]]
"""The objects: key to bytes and time of the put. Backends given the same one share their objects."""


class MemoryBackend(Backend):
    """Keeps every object in a dict. Thread-safe: each verb is one operation of the dict.

    ``space`` holds the objects; None is a new, private one. ``clock`` gives the
    storage's time in seconds since the epoch. ``name`` only appears in ``url``.
    """

    def __init__(
        self,
        space: MemorySpace | None = None,
        *,
        name: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.space: MemorySpace = {} if space is None else space
        self._name = name
        self._clock = clock
        self._closed = False
        self.put_in_worker = self._put_in_worker
        self.get_in_worker = self._get_in_worker

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    @property
    def identity(self) -> None:
        return None

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        data, _ = self._read(key)
        return data[start:] if length is None else data[start : start + length]

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        return self._store(key, data, if_absent=if_absent)

    async def head(self, key: str) -> ObjectInfo:
        data, modified_s = self._read(key)
        return ObjectInfo(key, len(data), modified_s, self._clock())

    async def delete(self, key: str) -> None:
        self._check_open()
        self.space.pop(key, None)

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        self._check_open()
        for key in sorted(self.space):
            if key.startswith(prefix) and key > after:
                found = self.space.get(key)
                if found is not None:
                    yield ObjectInfo(key, len(found[0]), found[1], self._clock())

    async def sync(self) -> None:
        self._check_open()

    async def aclose(self) -> None:
        self._closed = True

    def _put_in_worker(self, key: str, data: Buffer) -> None:
        self._store(key, data, if_absent=False)

    def _get_in_worker(self, key: str, into: memoryview) -> int:
        data, _ = self._read(key)
        if len(data) <= len(into):
            into[: len(data)] = data
        return len(data)

    def _store(self, key: str, data: Buffer, *, if_absent: bool) -> ObjectInfo:
        self._check_open()
        now = self._clock()
        new = (bytes(data), now)
        if if_absent:
            new = self.space.setdefault(key, new)
        else:
            self.space[key] = new
        return ObjectInfo(key, len(new[0]), new[1], now)

    def _read(self, key: str) -> tuple[bytes, float]:
        self._check_open()
        try:
            return self.space[key]
        except KeyError:
            raise ObjectNotFoundError(f"no object {key} in {self.url}") from None

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"{self.url} was used after it was closed")
