"""The asynchronous store: the one that does the work."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from types import TracebackType
from typing import Any, Literal, overload

from ckptstore import _edit
from ckptstore._clock import Clock
from ckptstore._keys import check_collection, check_field, check_run_and_label
from ckptstore._listing import collections, entries
from ckptstore._marker import StoreMarker, open_marker
from ckptstore._metadata import plain_metadata
from ckptstore._pending import PendingSave
from ckptstore._reader import load
from ckptstore._saves import Saves
from ckptstore._summaries import read_summary_of
from ckptstore._upload import Engine
from ckptstore._workers import WorkerPool
from ckptstore._writer import Request
from ckptstore.backends import open_backend
from ckptstore.backends.base import Backend
from ckptstore.checkpoint import Checkpoint, CheckpointRef, Manifest
from ckptstore.config import StoreConfig
from ckptstore.errors import (
    CheckpointNotFoundError,
    ConfigError,
    ForkedProcessError,
    StoreClosedError,
)
from ckptstore.manifest import ManifestSource
from ckptstore.serializers import Registry

__all__ = ["AsyncCheckpointStore"]

_log = logging.getLogger("ckptstore")

What = Checkpoint | CheckpointRef | Mapping[str, str] | str

BackendFactory = Callable[[Executor], Awaitable[Backend]]
"""Given an executor for blocking calls, gives an open backend; called on the store's loop."""


class AsyncCheckpointStore:
    """Checkpoints of arbitrary Python state, in one place, for one event loop.

    Made by ``await AsyncCheckpointStore.open(url)``; use it as an asynchronous
    context manager, or ``await store.aclose()``.
    """

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
    ) -> AsyncCheckpointStore:
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
    ) -> AsyncCheckpointStore:
        """Open the store of a backend that is open already: the end of ``open``, and the way in for faults.

        The store closes both; when this fails, only the backend is closed.
        """
        try:
            marker = await open_marker(backend, config, create=create)
        except BaseException:
            await backend.aclose()
            raise
        engine = Engine.of(backend, config, workers)
        return cls(engine, marker, workers, registry or Registry(), clock or Clock())

    @property
    def url(self) -> str:
        """Where the store is, without credentials."""
        return self._engine.backend.url

    @property
    def store_id(self) -> str:
        """The store's own id, 32 hex digits; references carry it."""
        return self._marker.store_id

    @overload
    async def save(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        wait: Literal[True] = True,
    ) -> Checkpoint: ...
    @overload
    async def save(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        wait: Literal[False],
    ) -> PendingSave: ...
    @overload
    async def save(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        wait: bool,
    ) -> Checkpoint | PendingSave: ...
    async def save(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        wait: bool = True,
    ) -> Checkpoint | PendingSave:
        """Save the values as one checkpoint, all or nothing.

        ``values`` maps field names to anything that can be serialized; what they
        share stays shared. ``label`` is your name for it (``best``), ``run`` says
        who wrote, both are free text that ``list`` and ``latest`` filter by.
        ``metadata``: your own small facts, at most 1 MiB. ``attributes``: the
        same for a layer above yours. ``parent``: the checkpoint resumed from.

        With ``wait`` the checkpoint is durable when this returns, and the values
        must not change before. With ``wait=False`` they are copied first and may
        change as soon as this returns; the save goes on in the background, and
        its failure is raised by the next ``save`` or ``aclose`` unless you await
        ``committed`` yourself. One save is in flight at a time (see
        ``StoreConfig.on_busy``).

        Raises InvalidNameError, ConfigError, UnserializableError,
        LimitExceededError, BusyError, BackendError, SaveExpiredError and
        CommitUnknownError; what an earlier background save failed with.
        """
        self._check_open()
        collection = check_collection(collection)
        label_and_run = check_run_and_label(run, label)
        if not isinstance(values, Mapping):
            raise ConfigError(f"values must be a mapping of names to values, not {type(values).__name__}")
        values = {check_field(name): value for name, value in values.items()}
        if parent is not None and not isinstance(parent, CheckpointRef):
            raise ConfigError(f"parent must be a CheckpointRef, not {type(parent).__name__}")
        limits = self._engine.config.limits
        request = Request(
            collection=collection,
            run=label_and_run[0],
            label=label_and_run[1],
            metadata=plain_metadata("metadata", metadata, limits),
            attributes=plain_metadata("attributes", attributes, limits),
            parent=parent,
            started=self._clock.read(),
        )
        return await self._saves.save(request, values, wait=wait)

    async def begin(self, collection: str) -> None:
        """Open a collection for writing now, instead of at the first save.

        What this store saves later sorts above all that is there now, and below
        what anybody saves who begins after: so a writer that was given up, and
        is not quite dead, cannot overtake its successor. Idempotent.
        """
        self._check_open()
        await self._saves.begin(check_collection(collection))

    async def load(
        self,
        what: What,
        *,
        fields: Sequence[str] | None = None,
        trusted: bool = False,
        device: str | None = None,
    ) -> dict[str, Any]:
        """Return the saved values, or those of some ``fields``; everything is verified before anything is built.

        ``what``: a checkpoint, its reference (also as a dict), or the name of a
        collection, which stands for its newest. ``trusted``: you trust who wrote
        the store, so pickled parts may run. ``device``: where tensors that were
        saved from another device than the CPU go; None is the CPU.

        Raises CheckpointNotFoundError, CheckpointDeletedError,
        UntrustedPickleError, ChunkCorruptError, ChunkMissingError,
        StoreMismatchError, IntegrityError, FormatError, BackendError.
        """
        source = await self._source(what)
        return await load(
            self._engine, source, fields=fields, trusted=trusted, device=device, registry=self._registry
        )

    async def inspect(self, what: What) -> Manifest:
        """Return what a checkpoint says of itself, by one ranged get and no data. Raises as ``load``."""
        source = await self._source(what)
        return await read_summary_of(self._engine, source)

    async def latest(
        self, collection: str, *, label: str | None = None, run: str | None = None
    ) -> Checkpoint | None:
        """Return the newest checkpoint of a collection, or None if there is none.

        Raises BackendError, FormatError or IntegrityError where there is one
        that cannot be read: never None for that.
        """
        async with aclosing(self.list(check_collection(collection), label=label, run=run)) as found:
            return await anext(found, None)

    async def list(
        self, collection: str | None = None, *, label: str | None = None, run: str | None = None
    ) -> AsyncGenerator[Checkpoint, None]:
        """Yield the checkpoints of one collection, or of all, newest first within each. Raises as ``latest``."""
        self._check_open()
        check_run_and_label(run, label)
        if collection is not None:
            collection = check_collection(collection)
        await self._saves.settled()
        backend = self._engine.backend
        names = [collection] if collection is not None else [name async for name in collections(backend)]
        for name in names:
            async with aclosing(entries(backend, name)) as listed:
                async for entry in listed:
                    if entry.tombstone is not None or not entry.matches(label, run):
                        continue
                    source = ManifestSource(self.store_id, name, entry.text)
                    try:
                        manifest = await read_summary_of(self._engine, source)
                    except CheckpointNotFoundError:
                        continue  # deleted and collected since the listing
                    yield manifest.checkpoint

    async def delete(self, what: What) -> None:
        """Make a checkpoint invisible; its data stays for the store's grace, ``undelete`` brings it back.

        Idempotent. Raises CheckpointNotFoundError, BackendError.
        """
        source = await self._source(what, deleted=True)
        self._saves.forget(source)
        await _edit.delete(self._engine.backend, source)

    async def undelete(self, what: CheckpointRef | Checkpoint | Mapping[str, str]) -> None:
        """Bring a deleted checkpoint back, within half the grace of its deletion.

        Idempotent. Raises CheckpointNotFoundError, CheckpointDeletedError (too late), BackendError.
        """
        source = await self._source(what, deleted=True)
        await _edit.undelete(self._engine.backend, source, self._marker.grace_s, self._clock)

    async def pin(self, what: What) -> None:
        """Keep retention away from a checkpoint. Idempotent. Raises as ``delete``, and CheckpointDeletedError."""
        await _edit.pin(self._engine.backend, await self._source(what))

    async def unpin(self, what: What) -> None:
        """Take the pin away. Idempotent. Raises as ``pin``."""
        await _edit.unpin(self._engine.backend, await self._source(what))

    async def _source(self, what: What, *, deleted: bool = False) -> ManifestSource:
        """Resolve to the manifest's key; with ``deleted`` a deleted checkpoint will do."""
        self._check_open()
        await self._saves.settled()
        if isinstance(what, str):
            found = await self.latest(what)
            if found is None:
                raise CheckpointNotFoundError(f"collection {what!r} of {self.url} has no checkpoint")
            return _edit.source_of(found.ref, self.store_id)
        source = _edit.source_of(what, self.store_id)
        if not deleted:
            await _edit.require_live(self._engine.backend, source)
        return source

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
            self._saves.release_memory()
            self._engine.buffers.release()
            try:
                await self._engine.backend.aclose()
            finally:
                self._workers.shutdown(wait=False)
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

    async def __aenter__(self) -> AsyncCheckpointStore:
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
