"""A load into what the caller has: checked first, then staged and copied, or decoded right into it (protocol 7)."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore._match import Match, Pair, refuse
from ckptstore._reader import Blocks, Reading, ReadOptions, read
from ckptstore._sides import OutlineSide, ValueSide
from ckptstore._tasks import in_worker
from ckptstore._upload import Engine
from ckptstore.checkpoint import LeafInfo
from ckptstore.errors import CheckpointNotFoundError
from ckptstore.manifest import ManifestSource
from ckptstore.serializers import Ref, Spot, destination

__all__ = ["load_into"]


async def load_into(
    engine: Engine,
    source: ManifestSource,
    *,
    options: ReadOptions,
    fields: Sequence[str] | None,
    into: Mapping[str, object],
    inplace: bool,
) -> dict[str, Any]:
    """Return the values of a checkpoint, some of them in ``into``. See ``AsyncCheckpointStore.load``."""
    reading = await read(engine, source, options=options, fields=fields)
    names = list(reading.manifest.fields) if fields is None else list(dict.fromkeys(fields))
    if missing := [name for name in into if name not in names]:
        raise CheckpointNotFoundError(
            f"checkpoint {reading.manifest.checkpoint.ref} has no field {', '.join(map(repr, missing))} to load into, "
            f"or it is not among the fields asked for; it has {', '.join(map(repr, names)) or 'none'}"
        )
    filling = _Filling(reading, names, into)
    places = await in_worker(engine.workers, filling.prepare, inplace)
    return await reading.build(reading.plan, filling.finish, places)


class _Filling:
    """One load into what is there: ``prepare`` from the graphs alone, ``finish`` when all data is there."""

    def __init__(self, reading: Reading, names: Sequence[str], into: Mapping[str, object]) -> None:
        self._plan = reading.plan
        self._options = reading.options
        self._manifest = reading.manifest
        self._names = names
        self._into = into
        self._outline = reading.plan.outline()
        self._roots = {name: self._outline.root(name) for name in names}
        self._placed: list[tuple[int, int]] = []

    def prepare(self, inplace: bool) -> Blocks:
        """Check that everything fits, and return the blocks whose memory is the caller's own if it shall be.

        Raises DestinationError with all that does not fit.
        """
        match = Match(OutlineSide(self._outline, self._manifest.fields))
        for name, target in self._into.items():
            match.run(name, target, self._roots[name])
        refuse([*match.problems, *self._shared(match)], self._manifest.checkpoint.ref)
        if not inplace:
            return {}
        places = self._places(match.pairs)
        self._placed = sorted(
            (span.low, span.high) for view in places.values() if (span := destination.span_of_bytes(view))
        )
        return places

    def _shared(self, match: Match) -> list[str]:
        """Name what comes as a new value and shares an object or memory in the checkpoint with what is filled.

        It would get a copy of its own, and what was one thing would be two.
        """
        filled = match.filled + [pair.source for pair in match.pairs if isinstance(pair.source, Spot)]
        refs = set(_refs(filled))
        leaves = [spot for spot in filled if self._outline.entries(spot) is None]
        blocks = set(self._plan.part(_refs(leaves)).blocks)

        def shares(spots: Sequence[Spot]) -> bool:
            part = self._plan.part(_refs(spots))
            return not refs.isdisjoint(part.nodes) or not blocks.isdisjoint(part.blocks)

        problems = [
            f"field {name!r} shares objects or memory with what is loaded into: give it a place in into as well, or "
            "load it by itself, with fields"
            for name, root in self._roots.items()
            if name not in self._into and shares([root])
        ]
        if shares(match.others):
            problems.append(
                "an object that comes as a new one shares others or memory with what is loaded into: load its field "
                "without into"
            )
        return problems

    def _places(self, pairs: Sequence[Pair]) -> Blocks:
        """Return the memory of the arrays that take a block of their own from end to end."""
        whole = self._plan.whole_blocks()
        block_of = {ref: block for block, ref in whole.items()}
        listed = Counter(
            (name, leaf.block) for name in self._into for leaf in self._manifest.fields[name].leaves
        )
        apart = _apart(pairs)
        places: Blocks = {}
        for pair in pairs:
            block: tuple[str, int] | None
            if isinstance(pair.source, LeafInfo):
                # Which array inside a pickle it is, its block tells if no other one is there.
                block = (pair.field, -1 if pair.source.block is None else pair.source.block)
                if listed[block] != 1 or block not in whole:
                    continue
                known, own = self._outline.leaf(Spot(whole[block])), destination.leaf_of(pair.destination)
                if known is None or own is None or known[:3] != own[:3]:
                    continue
            else:
                block = block_of.get(pair.source.ref)
            if block is None or block in places or id(pair) not in apart:
                continue
            memory = destination.bytes_of(pair.destination)
            if memory is not None:
                places[block] = memory
        return places

    def finish(self, blocks: Blocks) -> dict[str, Any]:
        """Build the values, check them against what is there once more, and fill it in one go."""
        values = self._plan.build(blocks, device=self._options.device)
        blocks.clear()
        match = Match(ValueSide())
        for name, target in self._into.items():
            values[name] = match.run(name, target, values[name])
        refuse(
            [*match.problems, *_conflicts(match.pairs)],
            self._manifest.checkpoint.ref,
            changed=bool(self._placed),
        )
        self._fill(match)
        return values

    def _fill(self, match: Match) -> None:
        pairs = match.pairs
        for at, pair in enumerate(pairs):
            # Decoded to where another one's elements are to be: they must be read before that.
            if self._is_misplaced(pair):
                pairs[at] = pair._replace(source=destination.clone(pair.source))
        while pairs:
            # What was staged is given back one by one.
            pair = pairs.pop()
            destination.copy(pair.destination, pair.source)
        for container, key, value in match.slots:
            container[key] = value

    def _is_misplaced(self, pair: Pair) -> bool:
        span = destination.span_of(pair.source) if self._placed else None
        if span is None or span == destination.span_of(pair.destination):
            return False
        at = bisect_right(self._placed, (span.low, float("inf")))
        return at > 0 and self._placed[at - 1][1] > span.low


def _refs(spots: Sequence[Spot]) -> list[Ref]:
    return [spot.ref for spot in spots if spot.ref is not None]


def _apart(pairs: Sequence[Pair]) -> set[int]:
    """Return the ids of the pairs whose destinations share no memory with that of another."""
    spans = sorted(
        (span.space, span.low, span.high, id(pair))
        for pair in pairs
        if (span := destination.span_of(pair.destination)) is not None
    )
    alone = {pair for *_, pair in spans}
    reach: tuple[str, int, int] = ("", -1, 0)
    for space, low, high, pair in spans:
        if space == reach[0] and low < reach[1]:
            alone -= {pair, reach[2]}
        if space != reach[0] or high > reach[1]:
            reach = (space, high, pair)
    return alone


def _conflicts(pairs: Sequence[Pair]) -> list[str]:
    """Name the destinations that share memory in another way than in the checkpoint: one would overwrite the other.

    It is the same way if every byte comes from the same place, whichever of the two it is copied for.
    """
    problems: list[str] = []
    spans = []
    for at, pair in enumerate(pairs):
        span, source = destination.span_of(pair.destination), destination.span_of(pair.source)
        if destination.is_meta(pair.source):
            problems.append(f"{pair.place}: it was saved from the meta device and has no elements")
        elif span is not None and source is not None:
            shift = span.start - source.start if span.layout == source.layout else None
            spans.append((span.space, span.low, span.high, shift, at))
    reach: tuple[Any, ...] = ("", -1, None, 0)
    for space, low, high, shift, at in sorted(spans, key=lambda item: item[:3]):
        if space == reach[0] and low < reach[1] and (shift is None or shift != reach[2]):
            problems.append(
                f"{pairs[at].place}: it shares memory with {pairs[reach[3]].place}, and not so in the checkpoint"
            )
        if space != reach[0] or high > reach[1]:
            reach = (space, high, shift, at)
    return problems
