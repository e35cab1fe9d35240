"""The life of a store: how it is opened, told apart and closed."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from types import TracebackType
from typing import TYPE_CHECKING

from ckptstore._clock import Clock
from ckptstore._marker import StoreMarker, open_marker
from ckptstore._saves import Saves
from ckptstore._signing import Keyring
from ckptstore._tasks import in_worker
from ckptstore._upload import Engine
from ckptstore._workers import WorkerPool
from ckptstore.backends import open_backend
from ckptstore.backends.base import Backend
from ckptstore.config import StoreConfig
from ckptstore.errors import ConfigError, ForkedProcessError, StoreClosedError
from ckptstore.serializers import Registry

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["BackendFactory", "StoreLife"]

_log = logging.getLogger("ckptstore")

BackendFactory = Callable[[Executor], Awaitable[Backend]]
"""Given an executor for blocking calls, gives an open backend; called on the store's loop."""


class StoreLife:
    """An open store, from its opening to its end; what is done with it is the subclass's."""

    def __init__(
        self, engine: Engine, marker: StoreMarker, workers: WorkerPool, registry: Registry, clock: Clock
    ) -> None:
        self._engine = engine
        self._marker = marker
        self._workers = workers
        self._registry = registry
        self._clock = clock
        self._saves = Saves(engine, marker, registry, clock)
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    async def open(
        cls,
        url: str | BackendFactory,
        *,
        config: StoreConfig | None = None,
        create: bool = True,
        registry: Registry | None = None,
        **backend_options: object,
    ) -> Self:
        """Open the store at ``url``: a path, ``file:///path``, ``memory://`` or ``s3://bucket/prefix``.

        For a storage of your own it is a function that is given an executor for blocking
        calls and returns, when awaited, an open ``Backend``; the store closes it.

        ``create``: make the store if there is none. ``registry`` holds the
        serializers of your own types.

        Raises InvalidURLError, ConfigError, StoreNotFoundError, BackendError,
        UnsupportedVersionError, ManifestCorruptError.
        """
        config = config or StoreConfig()
        workers = WorkerPool(config.encode_workers + 1)
        try:
            if not callable(url):
                backend = await open_backend(
                    url, config=config, executor=workers, create=create, **backend_options
                )
            elif backend_options:
                raise ConfigError("options go with a URL: give those of your own backend to its function")
            else:
                backend = await url(workers)
            return await cls._over(backend, workers, config, create=create, registry=registry)
        except BaseException:
            workers.shutdown(wait=False)
            raise

    @classmethod
    async def _over(
        cls,
        backend: Backend,
        workers: WorkerPool,
        config: StoreConfig,
        *,
        create: bool = True,
        registry: Registry | None = None,
        clock: Clock | None = None,
    ) -> Self:
        """Open the store of a backend that is open already: the end of ``open``, and the way in for faults.

        The store closes both; when this fails, only the backend is closed.
        """
        try:
            keyring = None
            if config.signing_key is not None:
                keyring = await in_worker(workers, Keyring.of, config.signing_key)
            marker = await open_marker(backend, config, create=create)
        except BaseException:
            await backend.aclose()
            raise
        engine = Engine.of(backend, config, workers, keyring)
        return cls(engine, marker, workers, registry or Registry(), clock or Clock())

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        return self._engine.backend.url

    @property
    def store_id(self) -> str:
        """The store's own id, 32 hex digits; references carry it."""
        return self._marker.store_id

    def _check_open(self) -> None:
        if self._pid != os.getpid():
            raise ForkedProcessError(
                "this store was opened before a fork: open it again in the child process"
            )
        if self._closed:
            raise StoreClosedError("the store is closed")

    async def aclose(self) -> None:
        """Wait for background saves, then let go of threads, files, memory and connections. Idempotent.

        Cancelled while it waits, it cancels them, and lets go all the same.

        Raises what a background save failed with, if nobody has been told.
        """
        if self._closed:
            return
        try:
            await self._saves.idle()
        except BaseException:
            await self._saves.stop()
            raise
        finally:
            self._closed = True
            self._engine.buffers.release()
            try:
                await self._saves.aclose()
            finally:
                try:
                    await self._engine.backend.aclose()
                finally:
                    self._workers.shutdown(wait=False)
                    self._engine.background.shutdown(wait=False)
        self._saves.raise_error()

    async def _finish(self) -> Sequence[str]:
        """Wait for background saves within ``exit_timeout_s``, close, and return what was not committed.

        For the end of a process: what fails is logged, not raised.
        """
        unfinished = await self._saves.stop(self._engine.config.exit_timeout_s)
        try:
            await self.aclose()
        except Exception as exc:  # noqa: BLE001  # the process ends: nobody is left to raise it to
            _log.error("while closing the store: %s", exc)
        return unfinished

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.aclose()
        except Exception as exc:
            if error is None:
                raise
            # The body's own exception goes on; this one was not asked for, but must be heard.
            _log.error("while closing the store: %s", exc)
