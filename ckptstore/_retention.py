"""Retention at work: a fresh listing, what goes by the rules, and its tombstones (protocol 8)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ckptstore._commit import TOMBSTONE_BYTES
from ckptstore._edit import exists
from ckptstore._keys import PIN, TOMBSTONE
from ckptstore._line import mark
from ckptstore._listing import Entry, entries
from ckptstore._summaries import read_summary_of
from ckptstore._tasks import for_each
from ckptstore._upload import Engine
from ckptstore.checkpoint import Checkpoint, CheckpointRef
from ckptstore.errors import (
    BackendProtocolError,
    CheckpointNotFoundError,
    ConfigError,
    FormatError,
    IntegrityError,
    InvalidPolicyError,
    ObjectNotFoundError,
    SignatureError,
)
from ckptstore.manifest import ManifestSource
from ckptstore.retention import Candidate, Keep

__all__ = ["Facts", "Retention", "Wish", "check_keep", "protected_names"]

_log = logging.getLogger("ckptstore")

_LISTINGS = 3
_SUMMARY_BYTES = 256 * 1024
"""What reading one summary takes of the memory that the store may use, about."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What rules can use of a checkpoint's metadata and attributes: its single values."""

    metadata: Mapping[str, object]
    attributes: Mapping[str, object]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Facts:
        single = (type(None), bool, int, float, str)
        return cls(
            {name: value for name, value in checkpoint.metadata.items() if type(value) in (int, float)},
            {name: value for name, value in checkpoint.attributes.items() if type(value) in single},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One run of retention over a collection.

    ``run``: only checkpoints of this run, or of none; ``all_runs``: whosever.
    ``protect`` are names that stay. ``own`` was committed by this writer just
    now: it stays too. ``shown`` are names that a listing cannot lack.
    """

    collection: str
    keep: Keep
    run: str | None = None
    all_runs: bool = False
    protect: frozenset[str] = frozenset()
    own: str | None = None
    shown: frozenset[str] = frozenset()


def check_keep(keep: object) -> Keep:
    """Return the policy, or raise InvalidPolicyError."""
    if not isinstance(keep, Keep):
        raise InvalidPolicyError(
            f"keep must be a retention policy such as last(3) | best('loss'), not {type(keep).__name__}; "
            "Keep.parse reads one from text"
        )
    return keep


def protected_names(
    protect: Iterable[Checkpoint | CheckpointRef], collection: str, store_id: str
) -> frozenset[str]:
    """Return the names in this collection that references protect. Raises ConfigError for anything else."""
    if isinstance(protect, (str, bytes, Checkpoint, CheckpointRef)) or not isinstance(protect, Iterable):
        raise ConfigError(f"protect must be references of checkpoints, not a {type(protect).__name__}")
    names = set()
    for one in protect:
        ref = one.ref if isinstance(one, Checkpoint) else one
        if not isinstance(ref, CheckpointRef):
            raise ConfigError(f"protect must hold CheckpointRefs, not a {type(ref).__name__}")
        if (ref.store_id, ref.collection) == (store_id, collection):
            names.add(ref.name)
    return frozenset(names)


class Retention:
    """Carries out wishes, one run a collection at a time; remembers what it knows of checkpoints.

    ``forget`` is told of each checkpoint that is about to be deleted.
    """

    def __init__(self, engine: Engine, store_id: str, forget: Callable[[ManifestSource], None]) -> None:
        self._engine = engine
        self._store_id = store_id
        self._forget = forget
        self._facts: dict[str, dict[str, Facts | None]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def remember(self, checkpoint: Checkpoint) -> None:
        """Note a checkpoint that was just committed, so that no run has to read it."""
        self._facts.setdefault(checkpoint.collection, {})[checkpoint.ref.name] = Facts.of(checkpoint)

    def quiet(self, collection: str) -> asyncio.Lock:
        """Return what a run holds while it works on the collection: whoever holds it, sees none."""
        return self._locks.setdefault(collection, asyncio.Lock())

    async def run(self, wish: Wish) -> int:
        """Delete what the wish does not keep, and return how many that were.

        Raises BackendError; some may be deleted then.
        """
        async with self.quiet(wish.collection):
            return len(await self._delete(await self._victims(wish)))

    async def report(self, wish: Wish, *, dry_run: bool) -> list[Checkpoint]:
        """As ``run``, but return what was deleted, newest first; with ``dry_run`` only what would be.

        What cannot be read is not deleted. Raises BackendError.
        """
        async with self.quiet(wish.collection):
            victims = await self._victims(wish)
            read = await self._read(wish.collection, [entry.text for entry in victims])
            victims = [entry for entry in victims if read[entry.text] is not None]
            if not dry_run:
                victims = await self._delete(victims)
            return [found for entry in victims if (found := read[entry.text]) is not None]

    async def _victims(self, wish: Wish) -> list[Entry]:
        """List, and return what goes, newest first."""
        live, now_s = await self._listed(wish)
        scope = [entry for entry in live if _concerns(wish, entry)]
        # The newest of the collection is the first of these, or none of them.
        stays = {entry.text for entry in scope[:1]} | wish.protect | {wish.own}
        if all(entry.pinned or entry.text in stays for entry in scope):
            return []
        if wish.keep.needs_age and now_s is None:
            now_s = await self._now_s(wish, live)
        known = self._facts.get(wish.collection, {})
        known = self._facts[wish.collection] = {
            entry.text: known[entry.text] for entry in live if entry.text in known
        }
        if wish.keep.reads:
            read = await self._read(
                wish.collection, [entry.text for entry in scope if entry.text not in known]
            )
            known.update({name: None if found is None else Facts.of(found) for name, found in read.items()})
        candidates = [_candidate(entry, now_s or 0.0, known.get(entry.text)) for entry in scope]
        kept = wish.keep.kept(candidates)
        return [
            entry
            for at, entry in enumerate(scope)
            if at not in kept and not entry.pinned and entry.text not in stays
        ]

    async def _listed(self, wish: Wish) -> tuple[list[Entry], float | None]:
        """Return what is live by a listing that can be believed, and the storage's time if it tells.

        Nothing may be deleted because of a listing that hides a part: it must
        show what this writer knows to be there, and what it calls the newest
        must not be deleted already.
        """
        backend = self._engine.backend
        for _ in range(_LISTINGS):
            live: list[Entry] = []
            missing = {*wish.shown, *((wish.own,) if wish.own else ())}
            told: list[float] = []
            async with aclosing(entries(backend, wish.collection)) as listed:
                async for entry in listed:
                    missing.discard(entry.text)
                    if entry.info.seen_s is not None:
                        told.append(entry.info.seen_s)
                    if entry.tombstone is None:
                        live.append(entry)
            if missing:
                raise BackendProtocolError(
                    f"{backend.url} does not list {min(missing)} in collection {wish.collection!r}, which was "
                    "committed there: the listing is not believed, and nothing was deleted"
                )
            scope = [entry for entry in live if _concerns(wish, entry)]
            # What this writer has just committed is live without a look, so one of them always stays.
            if wish.own is not None or not scope or await self._is_live(scope[0]):
                return live, max(told, default=None)
        raise BackendProtocolError(
            f"{backend.url} lists as live what is deleted in collection {wish.collection!r}: the listing is "
            "not believed, and nothing was deleted; try again"
        )

    async def _is_live(self, entry: Entry) -> bool:
        key = ManifestSource(self._store_id, entry.collection, entry.text).key
        try:
            await self._engine.backend.head(key)
        except ObjectNotFoundError:
            return False
        try:
            await self._engine.backend.head(key + TOMBSTONE)
        except ObjectNotFoundError:
            return True
        return False

    async def _now_s(self, wish: Wish, live: Sequence[Entry]) -> float:
        """Return the storage's time where its listing does not tell it.

        The answer to a put does, on a disk; one just made shows it as well. The
        time of the newest object is a bound that keeps too much, never too little.
        """
        newest_s = max(entry.info.modified_s for entry in live)
        if wish.own is not None:
            return newest_s
        seen_s = (await mark(self._engine.backend, wish.collection)).seen_s
        return newest_s if seen_s is None else seen_s

    async def _read(self, collection: str, names: Sequence[str]) -> dict[str, Checkpoint | None]:
        """Read summaries, some at once; None for one that cannot be read or is gone."""
        read: dict[str, Checkpoint | None] = dict.fromkeys(names)

        async def one(name: str) -> None:
            source = ManifestSource(self._store_id, collection, name)
            try:
                read[name] = (await read_summary_of(self._engine, source)).checkpoint
            except CheckpointNotFoundError:
                return
            except (FormatError, IntegrityError, SignatureError) as exc:
                _log.warning("retention leaves alone what it cannot read: %s", exc)

        config = self._engine.config
        at_once = min(config.io_concurrency, config.memory_bytes // _SUMMARY_BYTES, len(names))
        await for_each(names, one, max(1, at_once))
        return read

    async def _delete(self, victims: Sequence[Entry]) -> list[Entry]:
        """Put the tombstones, but of what was pinned since the listing; return those that got one."""
        pinned: set[str] = set()

        async def delete(entry: Entry) -> None:
            source = ManifestSource(self._store_id, entry.collection, entry.text)
            if await exists(self._engine.backend, source.key + PIN):
                pinned.add(entry.text)
                return
            self._forget(source)
            await self._engine.backend.put(source.key + TOMBSTONE, TOMBSTONE_BYTES)

        # The oldest first: what is cut short has deleted what mattered least.
        oldest_first = victims[::-1]
        await for_each(oldest_first, delete, max(1, min(self._engine.config.io_concurrency, len(victims))))
        return [entry for entry in victims if entry.text not in pinned]


def _concerns(wish: Wish, entry: Entry) -> bool:
    return wish.all_runs or entry.name.run == wish.run


def _candidate(entry: Entry, now_s: float, facts: Facts | None) -> Candidate:
    return Candidate(
        seq=entry.name.seq,
        age_s=now_s - entry.info.modified_s,
        metadata=None if facts is None else facts.metadata,
        attributes=None if facts is None else facts.attributes,
    )
