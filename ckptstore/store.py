"""The asynchronous store: the one that does the work."""

from __future__ import annotations

import builtins
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal, overload

from ckptstore import _edit
from ckptstore._captures import CapturedSave
from ckptstore._collect import collect
from ckptstore._diff import diff
from ckptstore._keys import check_collection, check_run_and_label
from ckptstore._life import StoreLife
from ckptstore._listing import collections, entries
from ckptstore._pending import PendingSave
from ckptstore._reader import load
from ckptstore._request import checked
from ckptstore._retention import Wish, check_keep, protected_names
from ckptstore._snapshot import Snapshot
from ckptstore._summaries import read_summary_of
from ckptstore.checkpoint import Checkpoint, CheckpointRef, Manifest
from ckptstore.diff import Diff
from ckptstore.errors import CheckpointNotFoundError, ConfigError
from ckptstore.garbage import GCReport
from ckptstore.manifest import ManifestSource
from ckptstore.retention import Keep

__all__ = ["AsyncCheckpointStore"]

What = Checkpoint | CheckpointRef | Mapping[str, str] | str


class AsyncCheckpointStore(StoreLife):
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
        same for a layer above yours. ``parent``: the checkpoint resumed from.

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

    async def diff(self, a: What, b: What) -> Diff:
        """Return what changed from ``a`` to ``b``: fields, arrays and tensors, metadata.

        Exact: what is the same has equal bytes. Data is read only where the
        digests of its chunks cannot tell. Nothing of a pickle runs, so no trust
        is needed. The two may be of different collections. Raises as ``load``.
        """
        source = await self._source(a)
        return await diff(self._engine, source, await self._source(b))

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

    async def retain(
        self,
        collection: str,
        keep: Keep,
        *,
        run: str | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
        dry_run: bool = False,
    ) -> builtins.list[Checkpoint]:
        """Delete what no rule of ``keep`` keeps, and return it, newest first; with ``dry_run`` only return it.

        ``run``: judge only what was saved with this run. Whatever the rules say,
        pinned checkpoints, those in ``protect`` and the newest (of the
        collection, and of ``run``) stay. Deleted is as by ``delete``: invisible
        at once, and ``undelete`` brings it back for a while. Idempotent.

        Raises InvalidPolicyError, InvalidNameError, ConfigError before anything
        is read; BackendError, and then some may be deleted;
        BackendProtocolError for a listing that contradicts itself, and then none is.
        """
        self._check_open()
        wish = Wish(
            collection=check_collection(collection),
            keep=check_keep(keep),
            run=check_run_and_label(run, None)[0],
            all_runs=run is None,
            protect=protected_names(protect, collection, self.store_id),
        )
        await self._saves.settled()
        wish = replace(wish, shown=self._saves.known(collection))
        return await self._saves.retention.report(wish, dry_run=dry_run)

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
        source = await self._source(what)
        async with self._saves.retention.quiet(source.collection):
            await _edit.pin(self._engine.backend, source)

    async def unpin(self, what: What) -> None:
        """Take the pin away. Idempotent. Raises as ``pin``."""
        await _edit.unpin(self._engine.backend, await self._source(what))

    async def collect_garbage(self, *, dry_run: bool = False, force: bool = False) -> GCReport:
        """Delete what no checkpoint needs any more, and return what that was; with ``dry_run`` only return it.

        That is data that no checkpoint names and checkpoints that were deleted,
        each for longer than the store's grace, and what interrupted saves left
        behind. Safe beside writers, readers and other collections in any
        process. What is none of the store's is left alone. Idempotent.

        ``force``: also where more than half of all data would go, or no
        checkpoint is there at all, which is more likely a mistake than wanted.

        Raises ConfigError; GCAbortedError where something cannot be believed or
        read, and then nothing was deleted; AccessDeniedError without the right to
        delete; BackendError, and then some may be deleted: try again.
        """
        self._check_open()
        for name, value in (("dry_run", dry_run), ("force", force)):
            if type(value) is not bool:
                raise ConfigError(f"{name} must be a bool, not {type(value).__name__}")
        return await collect(
            self._engine,
            store_id=self.store_id,
            grace_s=self._marker.grace_s,
            clock=self._clock,
            dry_run=dry_run,
            force=force,
        )

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
