"""What is done to a store's checkpoints whatever their values: deleting, pinning, collecting, verifying."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ckptstore import _edit
from ckptstore._collect import collect
from ckptstore._keys import check_collection, check_run_and_label, parse_checkpoint
from ckptstore._retention import Wish, check_keep, protected_names
from ckptstore._verify import verify
from ckptstore.checkpoint import Checkpoint, CheckpointRef
from ckptstore.errors import ConfigError
from ckptstore.garbage import GCReport
from ckptstore.retention import Keep
from ckptstore.verify import VerifyReport

if TYPE_CHECKING:
    from ckptstore._clock import Clock
    from ckptstore._marker import StoreMarker
    from ckptstore._saves import Saves
    from ckptstore._upload import Engine
    from ckptstore.manifest import ManifestSource

__all__ = ["StoreUpkeep", "What"]

What = Checkpoint | CheckpointRef | Mapping[str, str] | str


class StoreUpkeep:
    """The part of an open store that looks after it; what it stands on is the store's."""

    if TYPE_CHECKING:
        _engine: Engine
        _marker: StoreMarker
        _clock: Clock
        _saves: Saves

        def _check_open(self) -> None: ...
        async def _source(self, what: What, *, deleted: bool = False) -> ManifestSource: ...

    async def retain(
        self,
        collection: str,
        keep: Keep,
        *,
        run: str | None = None,
        protect: Iterable[Checkpoint | CheckpointRef] = (),
        dry_run: bool = False,
    ) -> list[Checkpoint]:
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
            protect=protected_names(protect, collection, self._marker.store_id),
        )
        await self._saves.settled()
        wish = replace(wish, shown=self._saves.known(collection))
        return await self._saves.retention.report(wish, dry_run=dry_run)

    async def delete(self, what: What) -> None:
        """Make a checkpoint invisible; its data stays for the store's grace, ``undelete`` brings it back.

        ``what``: as for ``load``. One whose manifest is damaged can be deleted as
        well, by a reference that was kept or its name, as ``verify`` reports it.
        Idempotent. Raises CheckpointNotFoundError, BackendError.
        """
        source = await self._source(what, deleted=True)
        self._saves.forget(source)
        await _edit.delete(self._engine.backend, source)

    async def undelete(self, what: What) -> None:
        """Bring a deleted checkpoint back, within half the grace of its deletion.

        ``what``: as for ``load``, but not the name of a collection. Idempotent. Raises InvalidNameError,
        CheckpointNotFoundError, CheckpointDeletedError (too late), BackendError.
        """
        self._check_open()
        await self._saves.settled()
        source = _edit.source_of(what, self._marker.store_id)
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
            store_id=self._marker.store_id,
            grace_s=self._marker.grace_s,
            clock=self._clock,
            dry_run=dry_run,
            force=force,
        )

    async def verify(
        self,
        what: What | None = None,
        *,
        sample: float | None = None,
        seed: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> VerifyReport:
        """Read what is stored and return what of it is damaged, whom that touches and what is whole instead.

        ``what``: a checkpoint, its reference or name; the name of a collection, which
        stands for all its checkpoints; None is the whole store. Every manifest
        is read and checked, and every chunk fetched, decoded and compared with
        its digest, once; what was deleted is passed over. It goes on after a
        problem. ``sample``: all manifests, and of the chunks only this share,
        above 0 and at most 1, drawn at random; the same ones for the same
        ``seed``. ``progress`` is called now and then on the store's own thread
        with the bytes done and in all; let it return soon.

        Writes nothing. Memory is bounded by ``StoreConfig.memory_bytes``, and a
        hundred bytes for each chunk.

        Raises InvalidNameError, ConfigError, StoreMismatchError,
        CheckpointNotFoundError, CheckpointDeletedError; BackendError where the
        storage fails: what is in it is then not known.
        """
        self._check_open()
        if sample is not None and (
            isinstance(sample, bool) or not isinstance(sample, (int, float)) or not 0 < sample <= 1
        ):
            raise ConfigError(f"sample must be a share above 0 and at most 1, not {sample!r:.80}")
        if seed is not None and type(seed) is not int:
            raise ConfigError(f"seed must be an int, not {type(seed).__name__}")
        source: ManifestSource | str | None
        if what is None or (isinstance(what, str) and parse_checkpoint(what) is None):
            source = None if what is None else check_collection(what)
            await self._saves.settled()
        else:
            source = await self._source(what)
        return await verify(
            self._engine, self._marker.store_id, source, sample=sample, seed=seed, progress=progress
        )
