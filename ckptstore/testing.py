"""Backends for tests of your own: one that fails, one that waits for you, one that takes notes.

Each wraps any other backend and passes every request through, one by one::

    backend = FaultyBackend(MemoryBackend(), Fault(nth=3, verb="put", when="after"))

The verbs are ``get``, ``put``, ``head``, ``delete``, ``delete_many``, ``list``,
``sync`` and ``sweep``. The key of a ``delete_many`` is the first of its keys, that
of ``list`` and ``sweep`` their prefix, that of ``sync`` is ``""``. None of the
wrappers offers the shortcuts for worker threads, so nothing goes past them.
"""

from __future__ import annotations

import asyncio
import builtins
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from ckptstore.backends.base import Backend, Buffer, ObjectInfo
from ckptstore.errors import BackendError, UnavailableError

__all__ = ["Fault", "FaultyBackend", "Gate", "RecordingBackend", "Request", "SlowBackend", "Verb"]

Verb = Literal["get", "put", "head", "delete", "delete_many", "list", "sync", "sweep"]
T = TypeVar("T")


def _unavailable() -> BaseException:
    return UnavailableError("the test's fault")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong, and when: at the ``nth`` request (from 1) of those that match.

    A request matches by ``verb`` (None: any) and by the start of its key.

    * ``before``: ``error`` is raised and the request was not carried out;
    * ``after``: it was carried out, its answer is lost and ``error`` raised;
    * ``corrupt``: the bytes of a ``get`` come back with bit number ``bit``
      (counted modulo their length) flipped. Other verbs never match.

    ``times``: as many matching requests in a row fail; None is for ever.
    """

    nth: int = 1
    when: Literal["before", "after", "corrupt"] = "before"
    verb: Verb | None = None
    prefix: str = ""
    error: Callable[[], BaseException] = _unavailable
    bit: int = 0
    times: int | None = 1

    def matches(self, verb: Verb, key: str) -> bool:
        """Tell whether the fault counts this request."""
        if self.when == "corrupt" and verb != "get":
            return False
        return self.verb in (None, verb) and key.startswith(self.prefix)


class FaultyBackend(Backend):
    """Fails as its ``faults`` say, and counts.

    ``operations`` is the number of requests so far, ``fired`` the number of
    those that a fault has hit. A test of every request of an operation raises
    ``nth`` from 1 until ``fired`` stays 0.
    """

    def __init__(self, inner: Backend, *faults: Fault) -> None:
        self.inner = inner
        self.zombie_s = inner.zombie_s  # type: ignore[misc]  # a wrapper is as late as what it wraps
        self.operations = 0
        self.fired = 0
        self._faults = faults
        self._seen = [0] * len(faults)

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def identity(self) -> str | None:
        return self.inner.identity

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        fault = self._before("get", key)
        data = await self.inner.get(key, start=start, length=length)
        if fault is not None and fault.when == "corrupt" and data:
            flipped = bytearray(data)
            at = fault.bit % (8 * len(data))
            flipped[at // 8] ^= 1 << at % 8
            return bytes(flipped)
        return _after(fault, data)

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        fault = self._before("put", key)
        return _after(fault, await self.inner.put(key, data, staged=staged, if_absent=if_absent))

    async def head(self, key: str) -> ObjectInfo:
        fault = self._before("head", key)
        return _after(fault, await self.inner.head(key))

    async def delete(self, key: str) -> None:
        fault = self._before("delete", key)
        await self.inner.delete(key)
        _after(fault, None)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        fault = self._before("delete_many", _first(keys))
        return _after(fault, await self.inner.delete_many(keys))

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        """List as the inner backend does; a fault ``after`` strikes when all was listed."""
        fault = self._before("list", prefix)
        async with aclosing(self.inner.list(prefix, after=after)) as listing:
            async for info in listing:
                yield info
        _after(fault, None)

    async def sync(self) -> None:
        fault = self._before("sync", "")
        await self.inner.sync()
        _after(fault, None)

    async def sweep(self, prefix: str, before_s: float, *, dry_run: bool = False) -> tuple[int, int]:
        fault = self._before("sweep", prefix)
        return _after(fault, await self.inner.sweep(prefix, before_s, dry_run=dry_run))

    async def aclose(self) -> None:
        await self.inner.aclose()

    def _before(self, verb: Verb, key: str) -> Fault | None:
        """Count the request; raise, or return the fault that strikes later."""
        self.operations += 1
        struck = None
        for i, fault in enumerate(self._faults):
            if fault.matches(verb, key):
                self._seen[i] += 1
                last = None if fault.times is None else fault.nth + fault.times - 1
                if struck is None and fault.nth <= self._seen[i] and (last is None or self._seen[i] <= last):
                    struck = fault
        if struck is not None:
            self.fired += 1
            if struck.when == "before":
                raise struck.error()
        return struck


def _after(fault: Fault | None, answer: T) -> T:
    if fault is not None and fault.when == "after":
        raise fault.error()
    return answer


def _first(keys: Sequence[str]) -> str:
    return keys[0] if keys else ""


class Gate:
    """Holds requests until it is opened. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._opened = False
        self._arrived = 0
        self._held: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._watchers: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []

    @property
    def arrived(self) -> int:
        """How many requests have come to the gate so far."""
        return self._arrived

    def open(self) -> None:
        """Let those that wait, and all that come, pass."""
        with self._lock:
            self._opened = True
            held, self._held = self._held, []
        for loop, waiting in held:
            loop.call_soon_threadsafe(_settle, waiting)

    def close(self) -> None:
        """Hold those that come from now on."""
        with self._lock:
            self._opened = False

    def wait_arrived(self, n: int = 1, *, timeout_s: float = 10.0) -> None:
        """Block until ``n`` requests have come. Raises TimeoutError."""
        with self._lock:
            if not self._lock.wait_for(lambda: self._arrived >= n, timeout_s):
                raise TimeoutError(f"{self._arrived} requests came to the gate, expected {n}")

    async def until_arrived(self, n: int = 1) -> None:
        """Return when ``n`` requests have come."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._arrived >= n:
                return
            watcher: asyncio.Future[None] = loop.create_future()
            self._watchers.append((n, loop, watcher))
        await watcher

    async def _pass(self) -> None:
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[None] = loop.create_future()
        with self._lock:
            self._arrived += 1
            self._lock.notify_all()
            ready = [one for one in self._watchers if one[0] <= self._arrived]
            self._watchers = [one for one in self._watchers if one[0] > self._arrived]
            if not self._opened:
                self._held.append((loop, waiting))
            opened = self._opened
        for _, watching, watcher in ready:
            watching.call_soon_threadsafe(_settle, watcher)
        if not opened:
            await waiting


def _settle(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)


class SlowBackend(Backend):
    """Makes requests wait: all of them for ``delay_s``, those that come to a gate until it opens."""

    def __init__(self, inner: Backend, *, delay_s: float = 0.0) -> None:
        self.inner = inner
        self.zombie_s = inner.zombie_s  # type: ignore[misc]  # a wrapper is as late as what it wraps
        self.delay_s = delay_s
        self._gates: list[tuple[Verb | None, str, Gate]] = []

    def gate(self, verb: Verb | None = None, prefix: str = "") -> Gate:
        """Return a new, closed gate before the requests of ``verb`` whose key starts with ``prefix``."""
        gate = Gate()
        self._gates.append((verb, prefix, gate))
        return gate

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def identity(self) -> str | None:
        return self.inner.identity

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return await self._late("get", key, lambda: self.inner.get(key, start=start, length=length))

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        return await self._late(
            "put", key, lambda: self.inner.put(key, data, staged=staged, if_absent=if_absent)
        )

    async def head(self, key: str) -> ObjectInfo:
        return await self._late("head", key, lambda: self.inner.head(key))

    async def delete(self, key: str) -> None:
        await self._late("delete", key, lambda: self.inner.delete(key))

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        return await self._late("delete_many", _first(keys), lambda: self.inner.delete_many(keys))

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        await self._wait("list", prefix)
        async with aclosing(self.inner.list(prefix, after=after)) as listing:
            async for info in listing:
                yield info

    async def sync(self) -> None:
        await self._late("sync", "", self.inner.sync)

    async def sweep(self, prefix: str, before_s: float, *, dry_run: bool = False) -> tuple[int, int]:
        return await self._late("sweep", prefix, lambda: self.inner.sweep(prefix, before_s, dry_run=dry_run))

    async def aclose(self) -> None:
        await self.inner.aclose()

    async def _late(self, verb: Verb, key: str, request: Callable[[], Awaitable[T]]) -> T:
        await self._wait(verb, key)
        return await request()

    async def _wait(self, verb: Verb, key: str) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        for wanted, prefix, gate in self._gates:
            if wanted in (None, verb) and key.startswith(prefix):
                await gate._pass()


@dataclass(frozen=True, slots=True)
class Request:
    """One request. ``nbytes`` is what was put or got; ``start`` and ``length`` the range of a ``get``.

    ``keys`` are all those of a ``delete_many``.
    """

    verb: Verb
    key: str
    nbytes: int = 0
    start: int = 0
    length: int | None = None
    staged: bool = False
    keys: tuple[str, ...] = ()
    failed: bool = False
    """It raised, whatever: also that there is no such object."""


class RecordingBackend(Backend):
    """Keeps a list of all ``requests``, in the order of their ends (a listing: of its beginning)."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.zombie_s = inner.zombie_s  # type: ignore[misc]  # a wrapper is as late as what it wraps
        self.requests: builtins.list[Request] = []

    def of(self, verb: Verb, prefix: str = "") -> builtins.list[Request]:
        """Return the requests of ``verb`` whose key starts with ``prefix``."""
        return [one for one in self.requests if one.verb == verb and one.key.startswith(prefix)]

    @property
    def url(self) -> str:
        return self.inner.url

    @property
    def identity(self) -> str | None:
        return self.inner.identity

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        with self._noted(Request("get", key, 0, start, length)) as note:
            data = await self.inner.get(key, start=start, length=length)
            note(len(data))
            return data

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        with self._noted(Request("put", key, len(data), staged=staged)):
            return await self.inner.put(key, data, staged=staged, if_absent=if_absent)

    async def head(self, key: str) -> ObjectInfo:
        with self._noted(Request("head", key)):
            return await self.inner.head(key)

    async def delete(self, key: str) -> None:
        with self._noted(Request("delete", key)):
            await self.inner.delete(key)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        with self._noted(Request("delete_many", _first(keys), keys=tuple(keys))):
            return await self.inner.delete_many(keys)

    @contextmanager
    def _noted(self, request: Request) -> Iterator[Callable[[int], None]]:
        """Note the request at its end, whatever that is; the yielded function tells the bytes it gave."""
        nbytes = request.nbytes
        failed = True

        def tell(got: int) -> None:
            nonlocal nbytes
            nbytes = got

        try:
            yield tell
            failed = False
        finally:
            self.requests.append(replace(request, nbytes=nbytes, failed=failed))

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        """List as the inner backend does, and note it when it begins."""
        self.requests.append(Request("list", prefix))
        async with aclosing(self.inner.list(prefix, after=after)) as listing:
            async for info in listing:
                yield info

    async def sync(self) -> None:
        with self._noted(Request("sync", "")):
            await self.inner.sync()

    async def sweep(self, prefix: str, before_s: float, *, dry_run: bool = False) -> tuple[int, int]:
        with self._noted(Request("sweep", prefix)):
            return await self.inner.sweep(prefix, before_s, dry_run=dry_run)

    async def aclose(self) -> None:
        await self.inner.aclose()
