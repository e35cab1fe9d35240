"""The comparison of two checkpoints: what their chunk tables decide, and what bytes must be read for the rest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from math import prod
from typing import Any

from ckptstore._compare import Question, Settlement, Side
from ckptstore._download import Download, Wanted
from ckptstore._msgpack import pack
from ckptstore._summaries import read_manifest
from ckptstore._tasks import in_worker
from ckptstore._upload import Engine
from ckptstore.checkpoint import FieldInfo, LeafInfo
from ckptstore.diff import Diff, FieldDiff, LeafDiff, MetadataDiff, State
from ckptstore.manifest import ManifestSource
from ckptstore.serializers import View, views_of

__all__ = ["diff"]


@dataclass(slots=True)
class _Leaf:
    path: str
    before: LeafInfo | None
    after: LeafInfo | None
    question: Question | None = None
    """What the bytes must tell; None if it has changed without a look at them."""

    def diff(self) -> LeafDiff:
        state: State = "changed"
        if self.before is None:
            state = "added"
        elif self.after is None:
            state = "removed"
        elif self.question is not None and not self.question.differs:
            state = "same"
        return LeafDiff(self.path, state, self.before, self.after)


@dataclass(slots=True)
class _Field:
    name: str
    before: FieldInfo | None
    after: FieldInfo | None
    question: Question = field(default_factory=Question)
    leaves: list[_Leaf] = field(default_factory=list)

    def diff(self) -> FieldDiff:
        state: State = "changed" if self.question.differs else "same"
        if self.before is None or self.after is None:
            state = "added" if self.before is None else "removed"
        return FieldDiff(
            self.name, state, self.before, self.after, tuple(leaf.diff() for leaf in self.leaves)
        )


async def diff(engine: Engine, before: ManifestSource, after: ManifestSource) -> Diff:
    """Return what changed. See ``AsyncCheckpointStore.diff``."""
    a, b = await _side(engine, before), await _side(engine, after)
    names = [*b.manifest.fields, *(name for name in a.manifest.fields if name not in b.manifest.fields)]
    fields = [_Field(name, a.manifest.fields.get(name), b.manifest.fields.get(name)) for name in names]
    settlement = Settlement(engine, a, b)
    both = [one for one in fields if one.before is not None and one.after is not None]
    for one in both:
        _ask_of_field(settlement, one)
    for one in fields:
        one.leaves = list(_leaves(one))
    asked = [one for one in both if not _is_the_same_at_once(one)]
    views_a, views_b = await _views(engine, a, asked), await _views(engine, b, asked)
    anything = Question()
    for one in asked:
        _ask_of_leaves(settlement, one, views_a[one.name], views_b[one.name], anything)
    await settlement.settle()
    anything.differs = len(both) < len(fields) or any(one.question.differs for one in both)
    return Diff(
        before=a.manifest.checkpoint,
        after=b.manifest.checkpoint,
        fields={one.name: one.diff() for one in fields},
        metadata=_metadata(a.manifest.checkpoint.metadata, b.manifest.checkpoint.metadata),
        shared_bytes=_shared_bytes(a, b),
    )


async def _side(engine: Engine, source: ManifestSource) -> Side:
    manifest, table = await read_manifest(engine, source)
    return Side(manifest, table, Download(engine, manifest, table))


def _ask_of_field(settlement: Settlement, one: _Field) -> None:
    """A field is the same if its type, its graph and its blocks are."""
    assert one.before is not None
    assert one.after is not None
    if (one.before.type_name, one.before.kind) != (one.after.type_name, one.after.kind):
        one.question.differs = True
    pairs = zip_longest(settlement.a.buffers(one.name), settlement.b.buffers(one.name))
    for number, (x, y) in enumerate(pairs):
        if x is None or y is None or x.nbytes != y.nbytes:
            one.question.differs = True
            return
        place = Wanted(one.name, number)
        settlement.ask(one.question, (place, 0), (place, 0), x.nbytes)


def _leaves(one: _Field) -> Iterator[_Leaf]:
    before = {leaf.path: leaf for leaf in (one.before.leaves if one.before else ())}
    after = {leaf.path: leaf for leaf in (one.after.leaves if one.after else ())}
    for path in (*after, *(path for path in before if path not in after)):
        x, y = before.get(path), after.get(path)
        if x is None or y is None or not (_is_listed_before(x) and _is_listed_before(y)):
            yield _Leaf(path, x, y)


def _is_listed_before(leaf: LeafInfo) -> bool:
    """Tell whether it is the same object as a leaf before it, which counts its bytes."""
    return not leaf.nbytes and bool(prod(leaf.shape))


def _is_the_same_at_once(one: _Field) -> bool:
    """Answer for the leaves of a field that has the same bytes, graph and all; False if there are others."""
    if one.question.differs or one.question.n_open:
        return not any(leaf.before and leaf.after for leaf in one.leaves)
    own = [leaf for leaf in one.leaves if leaf.after is None or leaf.after.block is not None]
    if len(own) < len(one.leaves):
        return False
    for leaf in own:
        leaf.question = Question()
    return True


async def _views(engine: Engine, side: Side, fields: Iterable[_Field]) -> dict[str, list[View]]:
    graphs = await side.download.run(Wanted(one.name, 0) for one in fields)
    found: dict[str, list[View]] = {}
    for key, graph in graphs.items():
        sizes = [buffer.nbytes for buffer in side.buffers(key.field)[1:]]
        found[key.field] = await in_worker(
            engine.workers, views_of, key.field, bytes(graph), sizes, engine.config.limits
        )
    return found


def _ask_of_leaves(
    settlement: Settlement, one: _Field, views_a: list[View], views_b: list[View], anything: Question
) -> None:
    """Ask about the elements of each leaf; for one that no view is, the answer is ``anything``'s."""
    assert one.before is not None
    assert one.after is not None
    find_a, find_b = _Finder(one.before, views_a), _Finder(one.after, views_b)
    for leaf in one.leaves:
        x, y = leaf.before, leaf.after
        if (
            x is None
            or y is None
            or (x.kind, x.dtype, x.shape, x.nbytes) != (y.kind, y.dtype, y.shape, y.nbytes)
        ):
            continue
        if not y.nbytes:
            leaf.question = Question()
            continue
        found_a, found_b = find_a.of(x), find_b.of(y)
        if not found_a and not found_b:
            leaf.question = anything
            continue
        if [view.layout for view in found_a] != [view.layout for view in found_b]:
            continue
        leaf.question = Question()
        for view_a, view_b in zip(found_a, found_b, strict=True):
            if view_a.block is None or view_b.block is None:
                leaf.question.differs |= view_a.block != view_b.block
                continue
            settlement.ask(
                leaf.question,
                (Wanted(view_a.block[0], view_a.block[1] + 1), view_a.start),
                (Wanted(view_b.block[0], view_b.block[1] + 1), view_b.start),
                view_a.nbytes,
                view_a,
            )


class _Finder:
    """Finds where the leaves of a field lie.

    By its path through plain containers a leaf is one view. Inside a pickle
    nothing but its shape and its block tell which it is: of several alike, all
    are meant.
    """

    def __init__(self, info: FieldInfo, views: list[View]) -> None:
        self._name = info.name
        leaves = Counter(leaf.path for leaf in info.leaves)
        ways = Counter(view.path for view in views)
        self._by_path: dict[str, View] = {}
        self._others: dict[Any, list[View]] = {}
        for view in views:
            if view.path is not None and leaves[view.path] == 1 == ways[view.path]:
                self._by_path[view.path] = view
            else:
                own = view.block is not None and view.block[0] == info.name
                key = (view.kind, view.shape, view.block if own else None)
                self._others.setdefault(key, []).append(view)
        for alike in self._others.values():
            alike.sort(key=lambda view: (view.block or ("", -1), view.start, repr(view.layout)))

    def of(self, leaf: LeafInfo) -> list[View]:
        """Return the views that may be the leaf, in an order of their places; none if nothing tells."""
        found = self._by_path.get(leaf.path)
        if found is not None and (found.kind, found.shape) == (leaf.kind, leaf.shape):
            return [found]
        block = None if leaf.block is None else (self._name, leaf.block)
        return self._others.get((leaf.kind, leaf.shape, block), [])


def _metadata(before: dict[str, Any], after: dict[str, Any]) -> dict[str, MetadataDiff]:
    found: dict[str, MetadataDiff] = {}
    for name in (*after, *(name for name in before if name not in after)):
        state: State = "changed"
        if name not in before or name not in after:
            state = "added" if name in after else "removed"
        elif pack(before[name]) == pack(after[name]):  # NaN is itself, and 1 is not 1.0
            continue
        found[name] = MetadataDiff(name, state, before.get(name), after.get(name))
    return found


def _shared_bytes(a: Side, b: Side) -> int:
    keys = {chunk.key for chunk in a.table.chunks}
    return sum(chunk.stored_bytes for chunk in b.table.chunks if chunk.key in keys)
