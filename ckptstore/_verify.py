"""Verification: every manifest is read, chunks are fetched and digested, and what is damaged is told apart.

Three steps: manifests, which say which chunks there are; each chunk once; and,
only where something is wrong, manifests again: whom it touches, and which
older checkpoint is whole.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ckptstore._fetch import ChunkFetch, Stored, Target, kind_of
from ckptstore._listing import Entry, collections
from ckptstore._manifests import Read, Sized, Unread, each_manifest, live_entries, sized
from ckptstore._table import ChunkEntry
from ckptstore._tally import ChunkTally, Tallied
from ckptstore._tasks import for_each, in_worker
from ckptstore._upload import Engine
from ckptstore.errors import CheckpointNotFoundError, CheckpointStoreError
from ckptstore.manifest import ManifestSource
from ckptstore.verify import DamagedCheckpoint, Problem, ProblemKind, VerifyReport

__all__ = ["verify"]


_ChunkId = tuple[bytes, bytes]


async def verify(
    engine: Engine,
    store_id: str,
    what: ManifestSource | str | None,
    *,
    sample: float | None,
    seed: int | None,
    progress: Callable[[int, int], None] | None,
) -> VerifyReport:
    """Verify one checkpoint, a collection or the whole store. See ``AsyncCheckpointStore.verify``."""
    run = _Verification(engine, store_id, complete=sample is None and not isinstance(what, ManifestSource))
    if isinstance(what, ManifestSource):
        await run.read([Sized(what, 0)])
    elif isinstance(what, str):
        await run.read_collection(what)
        if not run.n_checkpoints:
            raise CheckpointNotFoundError(f"collection {what!r} of {engine.backend.url} has no checkpoint")
    else:
        async with aclosing(collections(engine.backend)) as names:
            async for name in names:
                await run.read_collection(name)
    if sample is not None and seed is None:
        seed = random.SystemRandom().getrandbits(32)
    await run.check_chunks(None if sample is None else (sample, seed or 0), progress)
    problems, damaged = await run.judge()
    return VerifyReport(
        n_checkpoints=run.n_checkpoints,
        n_chunks=run.n_chunks,
        chunk_bytes=run.chunk_bytes,
        n_checked=run.n_checked,
        checked_bytes=run.checked_bytes,
        sample=sample,
        seed=None if sample is None else seed,
        problems=tuple(problems),
        damaged=tuple(damaged),
    )


@dataclass(frozen=True, slots=True)
class _Bad:
    """A manifest or chunk that is not what was saved; ``copy`` is another one's key with a chunk's bytes."""

    key: str
    kind: ProblemKind
    detail: str
    copy: str | None = None

    def problem(self, checkpoints: Iterable[str]) -> Problem:
        return Problem(self.key, self.kind, self.detail, tuple(checkpoints), self.copy)


class _Verification:
    """One run; ``complete``: whatever is not found bad in a collection is whole."""

    def __init__(self, engine: Engine, store_id: str, *, complete: bool) -> None:
        self._engine = engine
        self._store_id = store_id
        self._complete = complete
        self._fetch = ChunkFetch(engine)
        self._tally = ChunkTally()
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._manifests: dict[tuple[str, str], _Bad] = {}
        self._chunks: dict[_ChunkId, _Bad] = {}
        self._affected: set[str] = set()
        self._whole: set[_ChunkId] = set()
        self.n_checkpoints = self.n_chunks = self.chunk_bytes = 0
        self.n_checked = self.checked_bytes = 0

    async def read_collection(self, name: str) -> None:
        """Read all manifests of a collection, but deleted ones."""
        await self.read([sized(entry, self._store_id) for entry in await live_entries(self._engine, name)])

    async def read(self, manifests: Sequence[Sized]) -> None:
        """Read manifests and count the chunks that they need."""

        async def read(source: ManifestSource, found: Read | Unread) -> None:
            if isinstance(found, Unread):
                bad = _Bad(source.key, found.kind, found.detail)
                self._manifests[source.collection, source.name] = bad
                self._affected.add(source.collection)
                return
            owner = self._numbers.setdefault(source.collection, len(self._names))
            if owner == len(self._names):
                self._names.append(source.collection)
            await self._tally.add_all(self._engine.workers, owner, found.table.chunks)

        await each_manifest(self._engine, manifests, read)
        self.n_checkpoints += len(manifests)

    async def check_chunks(
        self, sample: tuple[float, int] | None, progress: Callable[[int, int], None] | None
    ) -> None:
        """Fetch, decode and digest the chunks, or a random sample of them."""
        engine = self._engine
        self.n_chunks, self.chunk_bytes = await in_worker(engine.workers, self._tally.totals)
        total = self.chunk_bytes
        if sample is not None:
            total = await in_worker(
                engine.workers, lambda: sum(item.chunk.stored_bytes for item in self._chosen(sample))
            )
        if progress is not None:
            progress(0, total)

        async def check(item: Tallied) -> None:
            bad = await self._check(item.chunk)
            if bad is not None:
                self._chunks[item.chunk.digest, item.chunk.nonce] = bad
                self._affected.update(self._names[owner] for owner in item.owners)
            self.n_checked += 1
            self.checked_bytes += item.chunk.stored_bytes
            if progress is not None:
                progress(self.checked_bytes, total)

        await for_each(self._chosen(sample), check, self._limit)

    async def judge(self) -> tuple[list[Problem], list[DamagedCheckpoint]]:
        """Return what is wrong, with the checkpoints that it touches, and what to load instead of those."""
        touched: dict[_ChunkId, list[str]] = {chunk: [] for chunk in self._chunks}
        problems: list[Problem] = []
        damaged: list[DamagedCheckpoint] = []
        for name in sorted(self._affected):
            live = await live_entries(self._engine, name)
            there = {entry.text for entry in live}
            for where, bad in list(self._manifests.items()):
                if where[0] == name and bad.kind == "missing" and where[1] not in there:
                    del self._manifests[where]  # deleted and collected since the listing
                    self.n_checkpoints -= 1
            hurt = await self._hurt(live)
            for entry in live:
                for chunk in hurt.get(entry.text, ()):
                    touched[chunk].append(_named(entry))
            damaged += await self._damaged(live, hurt)
        for (name, text), bad in sorted(self._manifests.items()):
            problems.append(bad.problem([f"{name}@{text}"]))
        problems += [
            bad.problem(touched[chunk]) for chunk, bad in sorted(self._chunks.items()) if touched[chunk]
        ]
        return problems, damaged

    async def _hurt(self, live: Sequence[Entry]) -> dict[str, list[_ChunkId]]:
        """Return which checkpoints of a collection need which bad chunks."""
        hurt: dict[str, list[_ChunkId]] = {}

        async def look(source: ManifestSource, found: Read | Unread) -> None:
            if isinstance(found, Read):
                needs = ((chunk.digest, chunk.nonce) for chunk in found.table.chunks)
                bad = [chunk for chunk in needs if chunk in self._chunks]
                if bad:
                    hurt[source.name] = bad

        if self._chunks:
            await each_manifest(self._engine, [sized(entry, self._store_id) for entry in live], look)
        return hurt

    async def _damaged(
        self, live: Sequence[Entry], hurt: dict[str, list[_ChunkId]]
    ) -> list[DamagedCheckpoint]:
        found: list[DamagedCheckpoint] = []
        older = 0  # where the newest whole one is that is older than all so far
        for place, entry in enumerate(live):
            chunks, manifest = hurt.get(entry.text, ()), (entry.collection, entry.text) in self._manifests
            if not chunks and not manifest:
                continue
            heals = not manifest and all(self._chunks[chunk].copy for chunk in chunks)
            older = max(older, place + 1)
            while older < len(live) and not await self._is_whole(live[older], hurt):
                older += 1
            named = _named(live[older]) if older < len(live) else None
            found.append(DamagedCheckpoint(_named(entry), heals, named))
        return found

    async def _is_whole(self, entry: Entry, hurt: dict[str, list[_ChunkId]]) -> bool:
        if entry.text in hurt or (entry.collection, entry.text) in self._manifests:
            return False
        if self._complete:
            return True
        bad: list[_Bad | Unread] = []

        async def check(chunk: ChunkEntry) -> None:
            known = chunk.digest, chunk.nonce
            if not bad and known not in self._whole:
                problem = await self._check(chunk)
                if problem is None:
                    self._whole.add(known)
                else:
                    bad.append(problem)

        async def check_all(_: ManifestSource, found: Read | Unread) -> None:
            if isinstance(found, Unread):
                bad.append(found)
            else:
                await for_each(found.table.chunks, check, self._limit)

        await each_manifest(self._engine, [sized(entry, self._store_id)], check_all)
        return not bad

    async def _check(self, chunk: ChunkEntry) -> _Bad | None:
        """Return what is wrong with a chunk, None if nothing is."""
        engine = self._engine
        cost = chunk.raw_bytes + chunk.stored_bytes
        await engine.budget.acquire(cost)
        try:
            with engine.buffers.buffer(chunk.raw_bytes) as raw:

                async def attempt(stored: Stored) -> None:
                    await self._fetch.into(stored, Target(raw))

                try:
                    await self._fetch.own(chunk, attempt)
                except CheckpointStoreError as exc:
                    kind = kind_of(exc)
                    if kind is None:
                        raise
                    copy = await self._fetch.copy(chunk, attempt)
                    return _Bad(chunk.key, kind, str(exc), None if copy is None else copy[0])
        finally:
            engine.budget.release(cost)
        return None

    def _chosen(self, sample: tuple[float, int] | None) -> Iterator[Tallied]:
        """Yield all chunks, or of n chunks exactly the share that is asked for: the same ones for the same seed."""
        if sample is None:
            yield from self._tally
            return
        share, seed = sample
        rng, left = random.Random(seed), self.n_chunks
        wanted = max(1, round(share * left))
        for item in self._tally:
            if rng.random() * left < wanted:
                wanted -= 1
                yield item
            left -= 1

    @property
    def _limit(self) -> int:
        config = self._engine.config
        return 2 * config.encode_workers + (
            0 if self._engine.backend.get_in_worker is not None else config.io_concurrency
        )


def _named(entry: Entry) -> str:
    return f"{entry.collection}@{entry.text}"
