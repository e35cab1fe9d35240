"""Finds what each pickle of a dump holds.

What is not plain is pickled once, with arrays, tensors, registered types and
known nodes left out. Whatever two pickles both reach would come back as two
objects, so it is cut out: it becomes a node of its own and the pickles that
held it are made again, until nothing is shared any more.

A pickle for each of many small objects would cost more than the objects, so
those of one type that the same fields reach stand in rows: several in one
stream, until it has some size. An object to which others of its row lead is
taken out of it, as are all objects of a row that turns out to be part of a
cycle: they are pickled each on its own, and a real cycle shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ckptstore.serializers import tensors
from ckptstore.serializers._blame import never_settles, pickle_failed
from ckptstore.serializers._cycles import entries
from ckptstore.serializers._nodes import Node
from ckptstore.serializers.pickling import Series, Unit, dump_unit

if TYPE_CHECKING:
    from ckptstore.serializers._walk import Walk

__all__ = ["Pickles"]

_MAX_RUNS = 8
"""Times a pickle is made again before it is joined with the one it shares with."""
_MAX_RUNS_AT_ALL = 64
_MAX_RUNS_OF_A_ROW = 4
"""Times a row is pickled before its objects go each on its own."""
_ROW_BYTES = 256 * 1024
"""What a row holds before another begins: a load of one object reads and makes all of its row."""
_MAX_ROW = 1024

_LEAVES = frozenset({"array", "tensor", "storage"})


class Pickles:
    """The pickles of one walk."""

    def __init__(self, walk: Walk) -> None:
        self.walk = walk
        self.owners: dict[int, Unit] = {}
        """The pickle that holds an object, by its id. The objects are held too, as claims, so no id is used again."""
        self._roots = walk.roots
        self._waiting: list[Node] = []
        self._rows: deque[deque[Node]] = deque()
        self._queue: deque[Unit] = deque()
        self._join: list[tuple[Node, Node]] = []
        self._units: list[Unit] = []
        self.n_units = 0
        self.has_links = False
        """Whether a pickle refers to anything but arrays and tensors, so that cycles are possible."""

    def add(self, node: Node) -> None:
        """Take a node that has to be pickled."""
        self.n_units += 1
        self._waiting.append(node)

    def each_alone(self) -> None:
        """Let what was added so far have pickles of its own."""
        waiting, self._waiting = self._waiting, []
        for node in waiting:
            self._alone(node)

    def cut_out(self, value: Any) -> None:
        """Make the pickle that holds ``value`` again, because it becomes a node."""
        owner = self.owners.get(id(value))
        if owner is not None:
            self._enqueue(owner)

    def hold(self, node: Node, where: frozenset[int]) -> None:
        """See to it that a node can be referred to from outside its pickle, by the fields ``where``."""
        unit = node.unit
        if unit is None:
            if not where <= node.where:
                node.where |= where
        elif node.tag == "member" and node.encoded is None:
            unit.add_root(node)
            self._enqueue(unit)

    def refer(self, node: Node, source: Node) -> None:
        """Take note that the pickle of ``source`` refers to a node."""
        if node.tag in _LEAVES:
            return
        self.has_links = True
        unit = node.unit
        in_row = unit.in_row if unit is not None else node.tag == "pickle"
        if in_row and type(node.value) is type(source.value):
            self._take_out(node)
        elif unit is not None:
            self.hold(node, source.where)

    def join(self, one: Node, other: Node) -> None:
        """Put the pickles of two nodes into one, later."""
        self._join.append((one, other))

    def close(self) -> None:
        """Let go of all that the pickles hold."""
        for unit in self._units:
            unit.close()
        self._units.clear()
        self.owners.clear()
        del self.walk

    def work(self) -> bool:
        """Do what comes next; return False if there was nothing to do."""
        if self._waiting:
            self._line_up()
        if self._rows:
            # All rows come before anything is made again: what they share with it is found once.
            row = self._rows.popleft()
            self._pickle_row(
                self._unit(self.walk.make("pickle", None, row[0].where), [], [], in_row=True), row
            )
        elif self._queue:
            self._pickle(self._queue.popleft())
        elif self._join:
            self._join_pending()
        else:
            return False
        return True

    def group(self, part: list[Node]) -> None:
        """Make one pickle out of nodes, those of whole pickles among them, and of all that these hold."""
        members: dict[int, Node] = {}
        inside = set(map(id, part))
        for node in part:
            unit = node.unit
            if unit is None:
                members[id(node)] = node
                continue
            self._release(unit)
            unit.queued = True  # Never to be run again: it is replaced.
            inside.add(id(unit.node))
            members.update((id(member), member) for member in unit.members)
        inside.update(members)
        found = entries((root for root in self._roots.values() if type(root) is Node), inside)
        ordered = sorted(members.values(), key=lambda node: node.order)
        roots = [member for member in ordered if id(member) in found] or ordered[:1]
        node = self.walk.make("pickle", None, ordered[0].where)
        for member in ordered:
            member.tag = "member"
            member.kids = [node]
            member.items = ()
            member.encoded = None
        unit = node.unit = self._unit(node, ordered, roots)
        for member in ordered:
            member.unit = unit
        self._enqueue(unit)

    def take_rows_apart(self, nodes: Iterable[Node]) -> bool:
        """Pickle the objects of all rows that are among ``nodes`` each on its own; return whether there were any."""
        rows = {id(node.unit): node.unit for node in nodes if node.unit is not None and node.unit.in_row}
        for unit in rows.values():
            self._take_apart(unit)
        return bool(rows)

    def _take_apart(self, unit: Unit) -> None:
        self._release(unit)
        for member in unit.members:
            if member.unit is unit:
                self._alone(member)

    def _take_out(self, node: Node) -> None:
        """Pickle an object of a row on its own."""
        if node.unit is not None:
            # First, so that what the row holds of the object is no longer its own.
            self._enqueue(node.unit)
        self._alone(node)

    def _alone(self, node: Node) -> None:
        node.tag = "pickle"
        node.encoded = None
        node.kids = ()
        node.unit = self._unit(node, [node], [node])
        self._enqueue(node.unit)

    def _unit(self, node: Node, members: list[Node], roots: list[Node], *, in_row: bool = False) -> Unit:
        unit = Unit(node, members, roots, in_row=in_row)
        self._units.append(unit)
        return unit

    def _enqueue(self, unit: Unit) -> None:
        if not unit.queued:
            unit.queued = True
            self._queue.append(unit)

    def _release(self, unit: Unit, beyond: int = 0) -> None:
        for value in unit.claims[beyond:]:
            self.owners.pop(id(value), None)
        del unit.claims[beyond:]

    def _line_up(self) -> None:
        """Let nodes of one type that the same fields reach stand in one row."""
        waiting, self._waiting = self._waiting, []
        rows: dict[Any, deque[Node]] = {}
        for node in waiting:
            if node.unit is None:
                rows.setdefault((node.where, type(node.value)), deque()).append(node)
        for row in rows.values():
            if len(row) == 1:
                self._alone(row[0])
            else:
                self._rows.append(row)

    def _again(self, unit: Unit) -> None:
        unit.queued = False
        unit.runs += 1
        unit.refs, unit.buffers = [], []
        self._release(unit)

    def _pickle(self, unit: Unit) -> None:
        if unit.in_row:
            if unit.runs >= _MAX_RUNS_OF_A_ROW:
                self._take_apart(unit)
                return
            row = deque(member for member in unit.members if member.unit is unit)
            for member in row:
                member.unit, member.tag, member.kids, member.encoded = None, "pickle", (), None
            self._pickle_row(unit, row)
            return
        self._again(unit)
        if unit.runs > _MAX_RUNS_AT_ALL:
            raise never_settles(self._roots, unit)
        run = _Run(self, unit)
        run.inside.update(id(member.value) for member in unit.members)
        try:
            tensors.check_memory(unit.value)
            unit.stream = dump_unit(unit.value, run.persistent_id(), run.buffer)
        except Exception as exc:
            raise pickle_failed(self._roots, unit.roots, exc, self._outside) from exc
        unit.node.kids = unit.refs

    def _pickle_row(self, unit: Unit, row: deque[Node]) -> None:
        """Pickle a row as far as it fits in one stream; what is left is a row that comes next."""
        self._again(unit)
        unit.members, unit.roots = [], []
        run = _Run(self, unit)
        series = Series(run.persistent_id(), run.buffer)
        room = _ROW_BYTES
        while row and room > 0 and len(unit.members) < _MAX_ROW:
            node = row[0]
            if node.unit is not None:
                row.popleft()  # It was taken out meanwhile.
                continue
            n_claims, n_refs, n_buffers = len(unit.claims), len(unit.refs), len(unit.buffers)
            value = node.value
            run.inside.add(id(value))
            run.member = node
            try:
                tensors.check_memory(value)
                n_bytes = series.add(value)
            except Exception as exc:
                raise pickle_failed(self._roots, [node], exc, self._outside) from exc
            weight = _ROW_BYTES if n_bytes is None else n_bytes
            if len(unit.refs) > n_refs or len(unit.buffers) > n_buffers:
                weight += unit.weight(n_refs, n_buffers)
            if not unit.members and (weight >= _ROW_BYTES or len(row) == 1):
                # Alone, it needs no tuple around it.
                row.popleft()
                node.unit, node.kids = unit, unit.refs
                unit.node, unit.members, unit.roots, unit.in_row = node, [node], [node], False
                unit.stream = series.last()
                break
            if weight >= _ROW_BYTES:
                # It begins another stream.
                if n_bytes is not None:
                    series.leave_out()
                run.inside.discard(id(value))
                run.forget(n_refs)
                self._release(unit, n_claims)
                del unit.buffers[n_buffers:]
                break
            row.popleft()
            room -= weight
            unit.members.append(node)
            node.unit, node.tag, node.kids = unit, "member", (unit.node,)
            unit.add_root(node)
        if row:
            self._rows.appendleft(row)
        if unit.in_row and unit.members:
            unit.node.unit = unit
            unit.node.kids = unit.refs
            unit.stream = series.stream()

    def _outside(self, obj: Any) -> bool:
        """Whether an object stays outside every pickle."""
        return id(obj) in self.walk.known or self.walk.verdicts[type(obj)] == "leaf"

    def _join_pending(self) -> None:
        pending, self._join = self._join, []
        for pair in pending:
            for node in pair:
                if node.unit is not None and node.unit.in_row:
                    self._take_out(node)
            one, other = pair[0].unit, pair[1].unit
            if one is not other and one is not None and other is not None:
                self.group([*one.members, *other.members])


class _Run:
    """One making of a pickle: what it meets, and what becomes of it."""

    def __init__(self, pickles: Pickles, unit: Unit) -> None:
        self._pickles = pickles
        self._unit = unit
        self._positions: dict[int, int] = {}
        self.inside: set[int] = set()
        """Ids of the objects that are nodes and travel inside."""
        self.member = unit.node

    def buffer(self, out: Any) -> None:
        raw = out.raw()
        self._unit.buffers.append((raw, raw.readonly))

    def forget(self, n_refs: int) -> None:
        """Take back all references but the first ``n_refs``."""
        refs = self._unit.refs
        for node in refs[n_refs:]:
            del self._positions[id(node)]
        del refs[n_refs:]

    def persistent_id(self) -> Callable[[Any], int | None]:
        """Return what a pickler asks about every object."""
        pickles, unit, inside = self._pickles, self._unit, self.inside
        walk, owners = pickles.walk, pickles.owners
        verdicts, known = walk.verdicts, walk.known
        claim = unit.claims.append

        def persistent_id(obj: Any) -> int | None:
            verdict = verdicts[type(obj)]
            if verdict is None:
                return None
            key = id(obj)
            node = known.get(key)
            if node is not None:
                return None if key in inside else self._refer(node)
            if verdict == "keep":
                return None
            if verdict == "leaf":
                return self._refer(walk.add(obj, unit.node.where))
            owner = owners.get(key)
            if owner is None:
                owners[key] = unit
                claim(obj)
                return None
            if owner is unit:
                return None
            if owner.runs >= _MAX_RUNS:
                pickles.join(owner.members[0], self.member)
                return None
            return self._refer(walk.add(obj, owner.node.where | unit.node.where))

        return persistent_id

    def _refer(self, node: Node) -> int:
        at = self._positions.get(id(node))
        if at is None:
            self._pickles.refer(node, self.member)
            at = self._positions[id(node)] = len(self._unit.refs)
            self._unit.refs.append(node)
        return at
