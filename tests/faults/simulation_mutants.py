"""The real code without one of its rules each: a simulation that does not notice is worth nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from ckptstore import _collect, _commit, _edit, _gc_listing, _line, _writer
from ckptstore._keys import TOMBSTONE
from ckptstore.backends.base import ObjectInfo

Patch = pytest.MonkeyPatch
_Run = _collect._Run


def no_deadline(patch: Patch) -> None:
    """S4 and S7: a save may take as long as it likes."""
    patch.setattr(_commit.Deadline, "check", lambda *_: None)
    patch.setattr(_commit.Deadline, "passed", lambda _: False)


def no_grace(patch: Patch) -> None:
    """G6: what is unused now is garbage now."""
    patch.setattr(_Run, "_cut_s", property(lambda run: run._now_s))


def cut_after_the_manifests(patch: Patch) -> None:
    """G0: the cut is taken when the manifests were read, which may be long after they were listed."""
    find = _Run._find_live

    async def late(run: Any) -> None:
        await find(run)
        await run._backend.put(run._record, b"late")
        run._now_s = await run._time_of_record()

    async def steady(*_: Any) -> None:
        return

    patch.setattr(_Run, "_find_live", late)
    patch.setattr(_Run, "_list_manifests", _listed_once(_Run._list_manifests))
    patch.setattr(_Run, "_require_steady_clock", steady)


def tombstone_first(patch: Patch) -> None:
    """G7: tombstones go before their manifests."""
    delete = _Run._delete

    async def turned_round(run: Any) -> None:
        await run._remove([one.source.key + TOMBSTONE for one in run._purged])
        await delete(run)

    patch.setattr(_Run, "_delete", turned_round)


def host_clock(patch: Patch) -> None:
    """G0: L from this machine's clock."""

    async def now(run: Any) -> float:
        return float(run._clock.wall_s())

    patch.setattr(_Run, "_time_of_record", now)


def believed_listings(patch: Patch) -> None:
    """G1 and G5: whatever is listed is all there is."""

    async def all_of(backend: Any, prefix: str, canary: str) -> Any:
        async with aclosing(backend.list(prefix)) as listed:
            async for info in listed:
                if info.key != canary:
                    yield info

    patch.setattr(_gc_listing, "believed", all_of)
    patch.setattr(_collect, "believed", all_of)


def listed_once(patch: Patch) -> None:
    """G1: the first listing is taken for the second one too."""
    patch.setattr(_Run, "_list_manifests", _listed_once(_Run._list_manifests))


def _listed_once(listing: Any) -> Any:
    async def first(run: Any) -> Any:
        if not hasattr(run, "listed"):
            run.listed = await listing(run)
        return run.listed

    return first


def undelete_at_any_age(patch: Patch) -> None:
    """Section 8: deleted checkpoints can be brought back as long as they are there."""
    undelete = _edit.undelete

    async def late(backend: Any, source: Any, grace_s: float, clock: Any) -> None:
        await undelete(backend, source, 100 * grace_s, clock)

    patch.setattr(_edit, "undelete", late)


def bases_for_ever(patch: Patch) -> None:
    """S0: what was live once is taken for live."""
    committed = _line.Line.committed

    async def never(*_: Any, **__: Any) -> None:
        return

    def timeless(line: Any, text: str, known: Any, chunks: Any) -> None:
        committed(line, text, type(known)(1e12, 1e12), chunks)

    patch.setattr(_writer, "refresh", never)
    patch.setattr(_line.Line, "committed", timeless)


def one_nonce_for_all(patch: Patch) -> None:
    """Section 2: chunks are named by their digest alone."""
    upload = _writer.Upload
    patch.setattr(_writer, "Upload", lambda *given, **named: upload(*given, **{**named, "nonce": b"\0" * 8}))


def purged_in_their_grace(patch: Patch) -> None:
    """G2: a tombstone is reason enough."""
    taken = _gc_listing.ListedManifests._take

    def aged(listed: Any, info: ObjectInfo, store_id: str, last: str | None) -> str | None:
        if info.key.endswith(TOMBSTONE):
            info = ObjectInfo(info.key, info.size, 0.0, info.seen_s)
        return taken(listed, info, store_id, last)

    patch.setattr(_gc_listing.ListedManifests, "_take", aged)


MUTANTS: dict[str, tuple[Callable[[Patch], None], str]] = {
    "no deadline": (no_deadline, "stalling"),
    "no grace": (no_grace, "fair"),
    "the cut after the manifests": (cut_after_the_manifests, "stalling"),
    "the tombstone first": (tombstone_first, "stormy"),
    "the clock of the host": (host_clock, "fair"),
    "listings that are believed": (believed_listings, "lying"),
    "manifests listed once": (listed_once, "lying"),
    "undelete at any age": (undelete_at_any_age, "stormy"),
    "bases for ever": (bases_for_ever, "stalling"),
    "one nonce for all": (one_nonce_for_all, "fair"),
    "purged in their grace": (purged_in_their_grace, "fair"),
}
"""And in which weather it is noticed soonest."""
