"""The asynchronous store: the one that does the work."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Literal, TypeVar, overload

from ckptstore import _edit
from ckptstore._captures import CapturedSave
from ckptstore._diff import diff
from ckptstore._fallback import Found, check_fallback, newest
from ckptstore._keys import check_collection, check_run_and_label, parse_checkpoint
from ckptstore._life import StoreLife
from ckptstore._listing import collections, entries
from ckptstore._pending import PendingSave
from ckptstore._reading import StoreReading
from ckptstore._request import check_nbytes, checked
from ckptstore._snapshot import Snapshot
from ckptstore._summaries import read_summary_of, read_with_codecs
from ckptstore._upkeep import StoreUpkeep, What
from ckptstore.checkpoint import Checkpoint, CheckpointRef, Manifest
from ckptstore.diff import Diff
from ckptstore.errors import CheckpointNotFoundError
from ckptstore.manifest import ManifestSource
from ckptstore.retention import Keep

__all__ = ["AsyncCheckpointStore"]

T = TypeVar("T")


class AsyncCheckpointStore(StoreLife, StoreReading, StoreUpkeep):
    """Checkpoints of arbitrary Python state, in one place, for one event loop.

    Made by ``await AsyncCheckpointStore.open(url)``; use it as an asynchronous
    context manager, or ``await store.aclose()``.
    """

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
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
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
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
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
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
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
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
        wait: bool = True,
    ) -> Checkpoint | PendingSave:
        """Save the values as one checkpoint, all or nothing.

        ``values`` maps field names to anything that can be serialized; what they
        share stays shared. ``label`` is your name for it (``best``), ``run`` says
        who wrote, both are free text that ``list`` and ``latest`` filter by.
        ``metadata``: your own small facts, at most 1 MiB. ``attributes``: the
        same for a layer above yours; names that begin with ``ckptstore.`` are the
        store's own. ``parent``: the checkpoint resumed from.

        ``keep``: once this checkpoint is durable and visible, delete what no
        rule keeps of this collection and run (of those saved without a run, if
        there is none here), as ``retain`` does; this checkpoint, ``parent`` and
        those in ``protect`` stay too. It goes on in the background and delays
        no save; whatever looks into the store waits for it, and so does
        ``aclose``. If it fails, that is logged, and the next save tries again.

        With ``wait`` the checkpoint is durable when this returns, and the values
        must not change before. With ``wait=False`` they are copied first and may
        change as soon as this returns; the save goes on in the background, and
        its failure is raised by the next ``save`` or ``aclose`` unless you await
        ``committed`` yourself. One save is in flight at a time (see
        ``StoreConfig.on_busy``).

        Raises InvalidNameError, InvalidPolicyError, ConfigError,
        UnserializableError, LimitExceededError, BusyError, BackendError,
        SaveExpiredError and CommitUnknownError; what an earlier background save failed with.
        """
        self._check_open()
        request, values = checked(
            collection,
            values,
            label=label,
            run=run,
            metadata=metadata,
            attributes=attributes,
            parent=parent,
            keep=keep,
            protect=protect,
            store_id=self.store_id,
            limits=self._engine.config.limits,
            started=self._clock.read(),
        )
        return await self._saves.save(request, values, wait=wait)

    async def capture(
        self,
        collection: str,
        values: Mapping[str, object],
        *,
        label: str | None = None,
        run: str | None = None,
        metadata: Mapping[str, object] | None = None,
        attributes: Mapping[str, object] | None = None,
        parent: CheckpointRef | None = None,
        keep: Keep | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
    ) -> CapturedSave:
        """Hold the values as they are now in memory, to be saved when, and if, you ask for it.

        The arguments are those of ``save``. When this returns the values may
        change; nothing was read or written, and no save in flight was waited
        for. A capture takes as much memory as its values until it was saved or
        discarded; that of two is kept for the next captures.

        Raises InvalidNameError, InvalidPolicyError, ConfigError,
        UnserializableError, LimitExceededError.
        """
        self._check_open()
        request, values = checked(
            collection,
            values,
            label=label,
            run=run,
            metadata=metadata,
            attributes=attributes,
            parent=parent,
            keep=keep,
            protect=protect,
            store_id=self.store_id,
            limits=self._engine.config.limits,
            started=self._clock.read(),
        )

        async def write(snapshot: Snapshot) -> Checkpoint:
            self._check_open()
            return await self._saves.save_captured(replace(request, started=self._clock.read()), snapshot)

        return await self._saves.captures.take(values, write)

    async def reserve(self, nbytes: int, *, wait: bool = True) -> None:
        """Have memory ready for background saves of up to ``nbytes`` bytes of values.

        Without it the first ``save(wait=False)`` asks the system for as much
        memory as the values take, and that can cost ten times their copy and
        more; the later ones use it again. With ``wait=False`` this goes on in
        the background, and a failure is logged only. What was reserved stays so
        until a background save has used it, or the store is closed.

        Raises ConfigError if ``nbytes`` is no number of bytes, MemoryError.
        """
        self._check_open()
        await self._saves.reserve(check_nbytes(nbytes), wait=wait)

    async def begin(self, collection: str, *, anew: bool = False) -> None:
        """Open a collection for writing now, instead of at the first save.

        What this store saves later sorts above all that is there now, and below
        what anybody saves who begins after: so a writer that was given up, and
        is not quite dead, cannot overtake its successor. Idempotent, unless it
        is to begin ``anew``: writers who know of each other and save in turn do
        that when another one has saved.
        """
        self._check_open()
        await self._saves.begin(check_collection(collection), anew=anew)

    def allow(self, cls: type[Any]) -> None:
        """Let loads of this store restore objects of exactly this class, by its own code, without trust.

        For classes of yours whose ``__new__``, ``__setstate__`` and what their
        ``__reduce__`` names do no harm whatever they are given. Subclasses and
        classes of its attributes are not included. Any thread may call it.

        Raises ConfigError for what is no class or has no name that can be saved.
        """
        self._check_open()
        self._engine.trust.allowed.allow(cls)

    async def inspect(self, what: What, *, codecs: bool = False) -> Manifest:
        """Return what a checkpoint says of itself, by one ranged get and no data. Raises as ``load``.

        With ``codecs`` that get takes all of the manifest, whose second part
        lists the chunks, and ``Manifest.codecs`` tells how they are stored.
        """
        read = read_with_codecs if codecs else read_summary_of
        return await read(self._engine, await self._source(what))

    async def diff(self, a: What, b: What) -> Diff:
        """Return what changed from ``a`` to ``b``: fields, arrays and tensors, metadata.

        Exact: what is the same has equal bytes. Data is read only where the
        digests of its chunks cannot tell. Nothing of a pickle runs, so no trust
        is needed. The two may be of different collections. Raises as ``load``.
        """
        source = await self._source(a)
        return await diff(self._engine, source, await self._source(b))

    async def latest(
        self, collection: str, *, label: str | None = None, run: str | None = None, fallback: int = 0
    ) -> Checkpoint | None:
        """Return the newest checkpoint of a collection, or None if there is none.

        ``fallback``: take one of up to so many older ones where the newest has a
        damaged manifest. What was passed over is logged as a warning, told by
        ``skipped`` of what is returned, and recorded by the next save of this
        store to the collection, in its attribute ``ckptstore.fallback``. The data
        is not looked at: ``load`` with ``fallback`` does that.

        Raises BackendError, FormatError or IntegrityError where there is one
        that cannot be read: never None for that.
        """
        check_run_and_label(run, label)
        read = partial(read_summary_of, self._engine)
        found = await self._newest(collection, read, label=label, run=run, fallback=check_fallback(fallback))
        return None if found is None else replace(found[0].checkpoint, skipped=found[1].skipped)

    async def _newest(
        self,
        collection: str,
        read: Callable[[ManifestSource], Awaitable[T]],
        *,
        label: str | None = None,
        run: str | None = None,
        fallback: int,
    ) -> tuple[T, Found] | None:
        self._check_open()
        collection = check_collection(collection)
        await self._saves.settled()
        found = await newest(
            self._engine, self.store_id, collection, read, label=label, run=run, fallback=fallback
        )
        if found is not None:
            self._saves.fell_back(collection, found[1])
        return found

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

    async def _source(self, what: What, *, deleted: bool = False) -> ManifestSource:
        """Resolve to the manifest's key; with ``deleted`` a deleted checkpoint will do."""
        self._check_open()
        await self._saves.settled()
        if isinstance(what, str) and parse_checkpoint(what) is None:
            found = await self.latest(what)
            if found is None:
                raise CheckpointNotFoundError(f"collection {what!r} of {self.url} has no checkpoint")
            return _edit.source_of(found.ref, self.store_id)
        source = _edit.source_of(what, self.store_id)
        if not deleted:
            await _edit.require_live(self._engine.backend, source)
        return source
