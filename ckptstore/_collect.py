"""Garbage collection: what nobody needs any more is found and deleted (protocol 9).

Any number of collectors, writers and readers may run at once, without a lock.
The steps are those of the protocol and carry its names. Until G7 nothing is
deleted, and any doubt before it ends the run with GCAbortedError.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Sequence
from contextlib import aclosing

from ckptstore._clock import Clock
from ckptstore._gc_listing import (
    RECORDS,
    ListedManifest,
    ListedManifests,
    believed,
    canary_key,
    is_record,
)
from ckptstore._gc_refs import ChunkSet, Garbage, GarbageChunk
from ckptstore._keys import CHUNKS, MANIFESTS, TOMBSTONE, parse_chunk_key
from ckptstore._marker import clock_spread_s
from ckptstore._summaries import read_manifest
from ckptstore._tasks import for_each, in_worker
from ckptstore._upload import Engine
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    CheckpointNotFoundError,
    CheckpointStoreError,
    GCAbortedError,
    ObjectNotFoundError,
)
from ckptstore.garbage import GCReport
from ckptstore.manifest import MAGIC

__all__ = ["collect"]

_DELETE_BATCH = 1000
_DELETES_AT_ONCE = 4
_EXAMPLES = 20
# A manifest's chunk table takes up to this many times its stored size once it is decoded.
_DECODED_TIMES = 8
_QUICK_CHUNKS = 1000
# Below this a jump of the storage's clock is not told from the coarse times of a disk and a slow answer.
_LEAST_JUMP_S = 2.0


async def collect(
    engine: Engine, *, store_id: str, grace_s: float, clock: Clock, dry_run: bool, force: bool
) -> GCReport:
    """Find what no checkpoint needs, and delete it unless ``dry_run``.

    Raises GCAbortedError, with nothing deleted, where a listing or the storage's
    clock cannot be believed, a manifest cannot be read, or, without ``force``,
    more than half of all bytes would go; AccessDeniedError without the right to
    delete; BackendError where the storage fails, and then some may be deleted.
    """
    return await _Run(engine, store_id, grace_s, clock, dry_run=dry_run).collect(force=force)


class _Run:
    """One run of a collection."""

    def __init__(self, engine: Engine, store_id: str, grace_s: float, clock: Clock, *, dry_run: bool) -> None:
        self._engine = engine
        self._backend: Backend = engine.backend
        self._store_id = store_id
        self._grace_s = grace_s
        self._clock = clock
        run = secrets.token_hex(16)
        self._record = RECORDS + run
        self._canaries = {prefix: canary_key(prefix, run) for prefix in (MANIFESTS, CHUNKS)}
        self._used = ChunkSet()
        self._garbage = Garbage()
        self._purged: list[ListedManifest] = []
        self._orphans: list[str] = []
        self._leftovers: list[str] = []
        self._now_s = 0.0
        self._report = GCReport(run, dry_run)

    async def collect(self, *, force: bool) -> GCReport:
        report = self._report
        try:
            before_s = self._clock.boot_s()
            for key in (self._record, *self._canaries.values()):  # G0
                await self._backend.put(key, b"garbage collection\n")
            # The storage's own time, never this machine's.
            self._now_s = await self._time_of_record()
            after_s = self._clock.boot_s()
            await self._require_delete()
            await self._find_live()  # G1 to G4
            await self._list_chunks()  # G5
            await self._list_records()
            await self._require_steady_clock(before_s, after_s)
            self._check_share(force=force)  # G6
            if report.dry_run:
                await self._count()
            else:
                await self._delete()  # G7
            await self._remove(self._own_keys())
        except BaseException:
            # What stays is collected by a later run: it must not hide what went wrong.
            with contextlib.suppress(CheckpointStoreError):
                await self._backend.delete_many(self._own_keys())
            raise
        return report

    @property
    def _cut_s(self) -> float:
        """What is older than this, is old enough (L - G)."""
        return self._now_s - self._grace_s

    def _own_keys(self) -> list[str]:
        return [*self._canaries.values(), self._record]

    async def _time_of_record(self) -> float:
        try:
            return (await self._backend.head(self._record)).modified_s
        except ObjectNotFoundError as exc:
            raise GCAbortedError(
                f"the record that was just put in {self._backend.url} is gone, and nothing was deleted: another "
                "collection takes it for one of a run that crashed. Does this one take longer than the store's grace?"
            ) from exc

    async def _require_delete(self) -> None:
        """Find out before hours of reading; the right is asked for first, also where there is nothing."""
        probes = [f"{key}.probe" for key in self._canaries.values()]
        for key, error in (await self._backend.delete_many(probes)).items():
            if isinstance(error, AccessDeniedError):
                raise AccessDeniedError(
                    f"collecting garbage in {self._backend.url} needs the right to delete, under "
                    f"{key.partition('/')[0]}/ as well: {error}"
                ) from error
            raise error

    async def _find_live(self) -> None:
        """G1 to G4: find which checkpoints are kept, and which chunks they need.

        The listing is taken twice, at the beginning and at the end: what the
        one does not show, the other may.
        """
        first = await self._list_manifests()
        due = {
            key: one
            for key, one in first.found.items()
            if one.tombstone_s is not None and one.tombstone_s < self._cut_s
        }
        await self._read([one for key, one in first.found.items() if key not in due])
        second = await self._list_manifests()
        for key in list(due):
            again = second.found.get(key)
            if again is not None and again.tombstone_s is None:
                await self._read([due.pop(key)])
        late = [one for key, one in second.found.items() if key not in first.found]
        await self._read(late)
        for key in {*first.unknown, *second.unknown}:
            await self._look_at_unknown(key)
        self._purged = list(due.values())
        self._report.n_checkpoints = len(first.found) - len(due) + len(late)
        for info in first.canaries:
            self._add_leftover(info)
        # A tombstone outlives its manifest, so that a late listing never revives it.
        self._orphans = [
            key
            for key, info in first.marks.items()
            if key in second.marks and info.modified_s < self._now_s - 2 * self._grace_s
        ]

    async def _list_manifests(self) -> ListedManifests:
        return await ListedManifests.of(self._backend, self._store_id, self._canaries[MANIFESTS])

    async def _look_at_unknown(self, key: str) -> None:
        """Foreign objects are left alone, but a manifest under a name that is not understood may be in use."""
        self._note_foreign(key)
        try:
            start = await self._backend.get(key, length=len(MAGIC))
        except ObjectNotFoundError:
            return
        except BackendError as exc:
            if exc.transient:
                raise
            # It may be a manifest.
            raise GCAbortedError(
                f"{key} in {self._backend.url} is not understood and cannot be read: nothing was deleted. "
                f"Move it out of the store ({exc})"
            ) from exc
        if start == MAGIC:
            raise GCAbortedError(
                f"{key} in {self._backend.url} is a manifest under a name that this release does not "
                "understand: nothing was deleted. Collect with the release that wrote it, or move it out"
            )

    async def _read(self, manifests: Sequence[ListedManifest]) -> None:
        """G3 and G4: every manifest that is kept is read and verified; what it names is in use."""
        engine = self._engine

        async def read(manifest: ListedManifest) -> None:
            nbytes = manifest.nbytes * _DECODED_TIMES
            await engine.budget.acquire(nbytes)
            try:
                _, table = await read_manifest(engine, manifest.source)
                named = ((chunk.digest, chunk.nonce) for chunk in table.chunks)
                if len(table.chunks) > _QUICK_CHUNKS:
                    await in_worker(engine.workers, self._used.update, named)
                else:
                    self._used.update(named)
            except CheckpointStoreError as exc:
                self._check_unread(manifest, exc)
            finally:
                engine.budget.release(nbytes)

        if manifests:
            await for_each(manifests, read, min(engine.config.io_concurrency, len(manifests)))

    def _check_unread(self, manifest: ListedManifest, exc: CheckpointStoreError) -> None:
        """Raise for a manifest that could not be read, unless another collector has purged it."""
        deleted = manifest.tombstone_s is not None
        if deleted and isinstance(exc, CheckpointNotFoundError):
            return
        if isinstance(exc, BackendError):
            raise exc
        help_ = (
            f"It was deleted already, and blocks collections until {self._grace_s:.0f} s after that"
            if deleted
            else "Restore it, or delete that checkpoint"
        )
        raise GCAbortedError(
            f"{manifest.source.key} in {self._backend.url} cannot be read, so nobody knows which data it needs: "
            f"nothing was deleted. {help_} ({exc})"
        ) from exc

    async def _list_chunks(self) -> None:
        """G5: what no manifest names and is old enough is garbage."""
        report, canary = self._report, self._canaries[CHUNKS]
        canaries = canary.rpartition("/")[0] + "/"
        async with aclosing(believed(self._backend, CHUNKS, canary)) as listed:
            async for info in listed:
                chunk = parse_chunk_key(info.key)
                if chunk is not None:
                    report.n_chunks += 1
                    report.chunk_bytes += info.size
                    if info.modified_s < self._cut_s and chunk not in self._used:
                        self._garbage.add(*chunk, info.key.rpartition(".")[2], info.size)
                elif info.key.startswith(canaries) and is_record(info.key[len(canaries) :]):
                    self._add_leftover(info)
                else:
                    self._note_foreign(info.key)

    async def _list_records(self) -> None:
        async with aclosing(believed(self._backend, RECORDS, self._record)) as listed:
            async for info in listed:
                if is_record(info.key[len(RECORDS) :]):
                    self._add_leftover(info)
                else:
                    self._note_foreign(info.key)

    async def _require_steady_clock(self, before_s: float, after_s: float) -> None:
        """All rests on the storage's time (B4): it must have gone on as this machine's has, since the beginning."""
        again_s = self._clock.boot_s()
        await self._backend.put(self._record, b"garbage collection\n")
        passed_s = await self._time_of_record() - self._now_s
        spread_s = max(clock_spread_s(self._grace_s), _LEAST_JUMP_S)
        least_s, most_s = again_s - after_s - spread_s, self._clock.boot_s() - before_s + spread_s
        if not least_s <= passed_s <= most_s:
            raise GCAbortedError(
                f"the clock of {self._backend.url} went on by {passed_s:.0f} s in about {again_s - after_s:.0f} s: "
                "what is old enough cannot be told, and nothing was deleted. Set its clock right, and try again"
            )

    def _check_share(self, *, force: bool) -> None:
        """G6: a collection that would take most of a store is more likely a mistake than wanted."""
        report, garbage = self._report, self._garbage
        if force or report.dry_run or not garbage.n_chunks:
            return
        if report.n_checkpoints and 2 * garbage.n_bytes <= report.chunk_bytes:
            return
        why = (
            f"{garbage.n_bytes / report.chunk_bytes:.0%} of its data"
            if report.n_checkpoints
            else "data, and shows no checkpoint at all"
        )
        raise GCAbortedError(
            f"collecting {self._backend.url} would delete {why} ({garbage.n_chunks} chunks, {garbage.n_bytes} "
            "bytes): nothing was deleted. Look with dry_run=True, then say force=True"
        )

    async def _count(self) -> None:
        """Say what would go."""
        report = self._report
        report.n_purged = len(self._purged)
        report.purged_bytes = sum(one.nbytes for one in self._purged)
        report.n_garbage, report.garbage_bytes = self._garbage.n_chunks, self._garbage.n_bytes
        for prefix in (MANIFESTS, CHUNKS, RECORDS):
            await self._sweep(prefix)

    async def _delete(self) -> None:
        """G7: in this order, so that a crash anywhere leaves garbage and never a broken checkpoint."""
        report = self._report
        keys = {one.source.key: one for one in self._purged}
        failed = await self._remove(keys)
        gone = [one for key, one in keys.items() if key not in failed]
        report.n_purged, report.purged_bytes = len(gone), sum(one.nbytes for one in gone)
        report.n_checkpoints += len(failed)
        # What could not be removed may stand there for long: its data must outlive it.
        await self._read([keys[key] for key in failed])
        batches = self._garbage.batches(_DELETE_BATCH)
        await for_each(batches, self._remove_chunks, _DELETES_AT_ONCE)
        # Whatever a listing has hidden twice: no manifest outlives its tombstone.
        hidden = await self._remove(
            key.removesuffix(TOMBSTONE) for key in self._orphans if key.endswith(TOMBSTONE)
        )
        await self._remove(key for key in self._orphans if key.removesuffix(TOMBSTONE) not in hidden)
        await self._remove(self._leftovers)
        for prefix in (MANIFESTS, CHUNKS, RECORDS):
            await self._sweep(prefix)

    async def _remove_chunks(self, batch: list[GarbageChunk]) -> None:
        report = self._report
        sizes = {one.key: one.nbytes for one in batch if (one.digest, one.nonce) not in self._used}
        failed = await self._remove(sizes)
        report.n_garbage += len(sizes) - len(failed)
        report.garbage_bytes += sum(nbytes for key, nbytes in sizes.items() if key not in failed)

    async def _remove(self, keys: Iterable[str]) -> set[str]:
        """Delete, and return what could not be (G8)."""
        report, keys, all_failed = self._report, list(keys), set[str]()
        for start in range(0, len(keys), _DELETE_BATCH):
            failed = await self._backend.delete_many(keys[start : start + _DELETE_BATCH])
            all_failed |= failed.keys()
            report.n_failed += len(failed)
            for key, error in list(failed.items())[: _EXAMPLES - len(report.failed)]:
                report.failed[key] = str(error)
        return all_failed

    async def _sweep(self, prefix: str) -> None:
        n_files, n_bytes = await self._backend.sweep(prefix, self._cut_s, dry_run=self._report.dry_run)
        self._report.n_unfinished += n_files
        self._report.unfinished_bytes += n_bytes

    def _add_leftover(self, info: ObjectInfo) -> None:
        if info.modified_s < self._cut_s:
            self._leftovers.append(info.key)

    def _note_foreign(self, key: str) -> None:
        self._report.n_foreign += 1
        if len(self._report.foreign) < _EXAMPLES:
            self._report.foreign.append(key)
