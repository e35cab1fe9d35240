"""Garbage collection: what nobody needs any more is found and deleted (protocol 9).

Any number of collectors, writers and readers may run at once, without a lock.
The steps are those of the protocol and carry its names. Until G7 nothing is
deleted, and any doubt before it ends the run with GCAbortedError.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from dataclasses import dataclass, field

from ckptstore._gc_refs import ChunkSet, KeyList
from ckptstore._keys import (
    CHUNKS,
    COLLECTION_MARKER,
    MANIFESTS,
    MARKER,
    PIN,
    TOMBSTONE,
    collection_of,
    parse_chunk_key,
    parse_name,
)
from ckptstore._summaries import read_manifest
from ckptstore._tasks import for_each
from ckptstore._upload import Engine
from ckptstore.backends.base import Backend, ObjectInfo
from ckptstore.errors import (
    BackendError,
    BackendProtocolError,
    CheckpointNotFoundError,
    CheckpointStoreError,
    GCAbortedError,
    ObjectNotFoundError,
)
from ckptstore.manifest import MAGIC, ManifestSource

__all__ = ["GCReport", "collect"]

RECORDS = "gc/"
_CANARY = "~gc/"
_DELETE_BATCH = 1000
_EXAMPLES = 20
# A manifest's chunk table takes up to this many times its stored size once it is decoded.
_DECODED_TIMES = 8


@dataclass(slots=True)
class GCReport:
    """What a collection found and did; sizes are stored bytes, after dedup and compression.

    With ``dry_run`` the numbers say what would go. ``foreign`` are examples of
    keys that are not the store's own and were left alone, ``failed`` maps keys
    that could not be deleted to the reason: the next run tries them again.
    """

    run: str
    dry_run: bool
    n_checkpoints: int = 0
    """Live ones, and deleted ones within their grace."""
    n_purged: int = 0
    """Deleted checkpoints whose grace is over."""
    n_chunks: int = 0
    n_bytes: int = 0
    """All chunks of the store, garbage included."""
    n_garbage_chunks: int = 0
    n_garbage_bytes: int = 0
    n_unfinished: int = 0
    """Files that interrupted writes left behind."""
    n_unfinished_bytes: int = 0
    n_foreign: int = 0
    foreign: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Manifest:
    """One manifest in the listing: how large it is as stored, and whether a tombstone stands beside it."""

    source: ManifestSource
    nbytes: int
    deleted: bool


@dataclass(slots=True)
class _Found:
    """What the listings showed."""

    purged: list[str] = field(default_factory=list)
    live: list[_Manifest] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    garbage: KeyList = field(default_factory=KeyList)


async def collect(engine: Engine, *, store_id: str, grace_s: float, dry_run: bool, force: bool) -> GCReport:
    """Find what no checkpoint needs, and delete it unless ``dry_run``.

    Raises GCAbortedError, with nothing deleted, where a listing cannot be
    believed, a manifest cannot be read, or, without ``force``, more than half
    of all bytes would go; BackendError where the storage fails.
    """
    return await _Run(engine, store_id, grace_s, dry_run=dry_run).collect(force=force)


class _Run:
    """One run of a collection."""

    def __init__(self, engine: Engine, store_id: str, grace_s: float, *, dry_run: bool) -> None:
        self._engine = engine
        self._backend: Backend = engine.backend
        self._store_id = store_id
        self._grace_s = grace_s
        run = secrets.token_hex(16)
        self._record = RECORDS + run
        self._canaries = [f"{MANIFESTS}{_CANARY}{run}", f"{CHUNKS}{_CANARY}{run}"]
        self._found = _Found()
        self._used = ChunkSet()
        self._cut_s = 0.0
        self._now_s = 0.0
        self._report = GCReport(run, dry_run)

    async def collect(self, *, force: bool) -> GCReport:
        backend, report = self._backend, self._report
        try:
            for key in (self._record, *self._canaries):  # G0
                await backend.put(key, b"garbage collection\n")
            # The storage's own time, never this machine's.
            self._now_s = (await backend.head(self._record)).modified_s
            self._cut_s = self._now_s - self._grace_s
            await self._list_manifests()  # G1, G2
            await self._look_at_unknown()
            await self._read_live()  # G3, G4
            await self._list_chunks()  # G5
            await self._list_records()
            self._check_share(force=force)  # G6
            if report.dry_run:
                report.n_unfinished, report.n_unfinished_bytes = await backend.sweep(
                    self._cut_s, dry_run=True
                )
            else:
                await self._delete()  # G7
        finally:
            await self._delete_all([*self._canaries, self._record])
        return report

    async def _list_manifests(self) -> None:
        """G1 and G2: sort every key under manifests/ into live, purged, and what is left over."""
        found, seen_canary = self._found, False
        last: tuple[ManifestSource, ObjectInfo] | None = None
        last_tombstone: ObjectInfo | None = None

        def settle() -> None:
            if last is None:
                return
            source, info = last
            if last_tombstone is not None and last_tombstone.modified_s < self._cut_s:
                found.purged.append(source.key)
            else:
                found.live.append(_Manifest(source, info.size, last_tombstone is not None))

        async with aclosing(self._listed(MANIFESTS)) as listed:
            async for info in listed:
                if info.key == self._canaries[0]:
                    seen_canary = True
                    continue
                component, _, text = info.key[len(MANIFESTS) :].partition("/")
                if component + "/" == _CANARY:
                    self._add_leftover(info, self._grace_s)
                    continue
                collection = collection_of(component)
                if collection is not None and last is not None and last[0].collection == collection:
                    if text == last[0].name + TOMBSTONE:
                        last_tombstone = info
                        continue
                    if text == last[0].name + PIN:
                        continue
                if collection is not None and text == COLLECTION_MARKER:
                    continue
                if collection is not None and parse_name(text) is not None:
                    settle()
                    last = ManifestSource(self._store_id, collection, text), info
                    last_tombstone = None
                elif collection is not None and _is_mark(text):
                    # Its manifest is gone: the tombstone outlives it, so that a late listing never revives it.
                    self._add_leftover(info, 2 * self._grace_s)
                else:
                    found.unknown.append(info.key)
        settle()
        if not seen_canary:
            raise GCAbortedError(
                f"the listing of {MANIFESTS} in {self._backend.url} lacks an object that was just put there: "
                "the listing is not believed and nothing was deleted"
            )
        self._report.n_purged = len(found.purged)
        self._report.n_checkpoints = len(found.live)

    async def _look_at_unknown(self) -> None:
        """Foreign objects are left alone, but a manifest under a name that is not understood may be in use."""
        for key in self._found.unknown:
            self._note_foreign(key)
            try:
                start = await self._backend.get(key, length=len(MAGIC))
            except ObjectNotFoundError:
                continue
            except BackendError as exc:
                # A special file or a link is no manifest of a release of ours; what cannot be read may be one.
                raise GCAbortedError(
                    f"{key} in {self._backend.url} is not understood and cannot be read: nothing was deleted. "
                    f"Move it out of the store ({exc})"
                ) from exc
            if start == MAGIC:
                raise GCAbortedError(
                    f"{key} in {self._backend.url} is a manifest under a name that this release does not "
                    "understand: nothing was deleted. Collect with the release that wrote it"
                )

    async def _read_live(self) -> None:
        """G3 and G4: every live manifest is read and verified; what it names is in use."""
        engine = self._engine

        async def read(manifest: _Manifest) -> None:
            source, nbytes = manifest.source, manifest.nbytes * _DECODED_TIMES
            await engine.budget.acquire(nbytes)
            try:
                _, table = await read_manifest(engine, source)
            except BackendError:
                raise
            except CheckpointStoreError as exc:
                if manifest.deleted and isinstance(exc, CheckpointNotFoundError):
                    return  # another collector was faster: its grace is over by now
                raise GCAbortedError(
                    f"{source.key} in {self._backend.url} cannot be read, so nobody knows which chunks it needs: "
                    f"nothing was deleted. Delete that checkpoint, or restore it ({exc})"
                ) from exc
            finally:
                engine.budget.release(nbytes)
            for chunk in table.chunks:
                self._used.add(chunk.digest, chunk.nonce)

        await for_each(self._found.live, read, engine.config.io_concurrency)

    async def _list_chunks(self) -> None:
        """G5: what no manifest names and is old enough is garbage."""
        report, seen_canary = self._report, False
        async with aclosing(self._listed(CHUNKS)) as listed:
            async for info in listed:
                if info.key == self._canaries[1]:
                    seen_canary = True
                    continue
                if info.key.startswith(CHUNKS + _CANARY):
                    self._add_leftover(info, self._grace_s)
                    continue
                chunk = parse_chunk_key(info.key)
                if chunk is None:
                    self._note_foreign(info.key)
                    continue
                report.n_chunks += 1
                report.n_bytes += info.size
                if info.modified_s < self._cut_s and chunk not in self._used:
                    report.n_garbage_chunks += 1
                    report.n_garbage_bytes += info.size
                    self._found.garbage.append(info.key)
        if not seen_canary:
            raise GCAbortedError(
                f"the listing of {CHUNKS} in {self._backend.url} lacks an object that was just put there: "
                "the listing is not believed and nothing was deleted"
            )

    async def _list_records(self) -> None:
        async with aclosing(self._listed(RECORDS)) as listed:
            async for info in listed:
                if info.key != self._record:
                    self._add_leftover(info, self._grace_s)

    def _check_share(self, *, force: bool) -> None:
        """G6: a collection that would take most of a store is more likely a mistake than wanted."""
        report = self._report
        if force or report.dry_run or not report.n_garbage_bytes:
            return
        share = report.n_garbage_bytes / report.n_bytes
        if share > 0.5 or not report.n_checkpoints:
            why = (
                f"{share:.0%} of its bytes"
                if report.n_checkpoints
                else "everything: it has no checkpoint at all"
            )
            raise GCAbortedError(
                f"collecting {self._backend.url} would delete {why} ({report.n_garbage_chunks} chunks, "
                f"{report.n_garbage_bytes} bytes); nothing was deleted. Look with dry_run=True, then say force=True"
            )

    async def _delete(self) -> None:
        """G7: in this order, so that a crash anywhere leaves garbage and never a broken checkpoint."""
        report, found = self._report, self._found
        await self._delete_all(found.purged)
        if any(key in report.failed for key in found.purged):
            # Its chunks must outlive it.
            raise GCAbortedError(
                f"{len(report.failed)} deleted checkpoints of {self._backend.url} could not be removed, so their "
                f"chunks were kept: {next(iter(report.failed.values()))}"
            )
        for batch in found.garbage.batches(_DELETE_BATCH):
            await self._delete_all(batch)
        await self._delete_all(found.leftovers)
        report.n_unfinished, report.n_unfinished_bytes = await self._backend.sweep(self._cut_s)

    async def _delete_all(self, keys: Iterable[str]) -> None:
        keys = list(keys)
        for start in range(0, len(keys), _DELETE_BATCH):
            failed = await self._backend.delete_many(keys[start : start + _DELETE_BATCH])
            self._report.failed.update({key: str(error) for key, error in failed.items()})

    async def _listed(self, prefix: str) -> AsyncGenerator[ObjectInfo, None]:
        """List, and abort where the answer cannot be believed. ``G1`` and ``G5``: validated."""
        last = ""
        try:
            async with aclosing(self._backend.list(prefix)) as listed:
                async for info in listed:
                    if not info.key.startswith(prefix) or info.key <= last:
                        raise BackendProtocolError(
                            f"{info.key[:120]!r} after {last[:120]!r} under {prefix!r}: not in order or place"
                        )
                    last = info.key
                    if info.key.rpartition("/")[2] == MARKER:
                        raise GCAbortedError(
                            f"{info.key} in {self._backend.url} is the marker of another store inside this one: "
                            "nothing was deleted. Move that store out"
                        )
                    yield info
        except BackendProtocolError as exc:
            raise GCAbortedError(
                f"a listing of {self._backend.url} is not believed and nothing was deleted: {exc}"
            ) from exc

    def _add_leftover(self, info: ObjectInfo, age_s: float) -> None:
        if info.modified_s < self._now_s - age_s:
            self._found.leftovers.append(info.key)

    def _note_foreign(self, key: str) -> None:
        self._report.n_foreign += 1
        if len(self._report.foreign) < _EXAMPLES:
            self._report.foreign.append(key)


def _is_mark(text: str) -> bool:
    return text.endswith((TOMBSTONE, PIN)) and parse_name(text[: -len(TOMBSTONE)]) is not None
