"""Finds every object of a dump that becomes a node, and what each pickle holds.

Plain containers are walked first. What is not plain is pickled once, with
arrays, tensors, registered types and known nodes left out. Whatever two
pickles both reach would come back as two objects, so it is cut out: it becomes
a node of its own and the pickles that held it are made again, until nothing is
shared any more.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import Any

from ckptstore import _msgpack
from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError
from ckptstore.serializers import arrays, tensors
from ckptstore.serializers._blame import custom_failed, never_settles, pickle_failed
from ckptstore.serializers._cycles import entries
from ckptstore.serializers._nodes import FREE, Node, Types, is_short
from ckptstore.serializers.pickling import Unit, dump_unit
from ckptstore.serializers.registry import Registry

__all__ = ["Walk"]

_MAX_RUNS = 8
"""Times a pickle is made again before it is joined with the one it shares with."""
_MAX_RUNS_AT_ALL = 64


class Walk:
    """The discovery of one dump. ``run`` fills ``roots`` (value or Node per field) and ``nodes``."""

    def __init__(self, values: Mapping[str, Any], *, limits: Limits, registry: Registry) -> None:
        self._values = values
        self._limits = limits
        self._registry = registry
        self._types = Types(registry)
        self._dtypes = arrays.Dtypes()
        self._known: dict[int, Node] = {}
        # Holding the objects keeps their ids from being reused.
        self._owners: dict[int, tuple[Unit, Any]] = {}
        self._todo: list[Node] = []
        self._queue: deque[Unit] = deque()
        self._join: list[tuple[Unit, Unit]] = []
        self._n_nodes = 0
        self.roots: dict[str, Any] = {}
        self.n_units = 0
        self.n_customs = 0

    def run(self) -> None:
        """Find everything. Raises UnserializableError or LimitExceededError."""
        for name, value in self._values.items():
            self.roots[name] = self._encode(value)
        self.settle()

    def settle(self) -> None:
        """Expand and pickle until nothing is left to do."""
        while self._todo or self._queue or self._join:
            while self._todo:
                self._expand(self._todo.pop())
            if self._queue:
                self._pickle(self._queue.popleft())
            elif self._join:
                self._join_pending()

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
        found = entries((root for root in self.roots.values() if type(root) is Node), inside)
        ordered = sorted(members.values(), key=lambda node: node.order)
        roots = [member for member in ordered if id(member) in found] or ordered[:1]
        node = self._make("pickle", None)
        unit = node.unit = Unit(node, ordered, roots)
        for member in ordered:
            member.tag = "member"
            member.unit = unit
            member.kids = [node]
            member.items = []
        self._enqueue(unit)

    def _make(self, tag: str, value: Any) -> Node:
        node = Node(tag, value, self._n_nodes)
        self._n_nodes += 1
        return node

    def _encode(self, value: Any) -> Any:
        if is_short(value):
            return value
        node = self._known.get(id(value))
        if node is None:
            return self._add(value)
        self._hold(node)
        return node

    def _hold(self, node: Node) -> None:
        """See to it that a member of a cycle can be referred to from outside."""
        if node.tag == "member" and node.unit is not None and node not in node.unit.roots:
            node.unit.roots.append(node)
            self._enqueue(node.unit)

    def _add(self, value: Any) -> Node:
        """Make ``value`` a node; a pickle that already holds it has to be made again without it."""
        owned = self._owners.get(id(value))
        if owned is not None:
            self._enqueue(owned[0])
        tag = self._types.tag(type(value))
        if tag == "odict" and not all(type(name) is str and is_short(name) for name in vars(value)):
            tag = "pickle"  # Names that a graph has no place for.
        node = self._make(tag, value)
        self._known[id(value)] = node
        if tag in ("array", "tensor", "storage", "scalar", "dtype"):
            self._add_foreign(node)
        elif tag in (
            "torch.dtype",
            "torch.device",
            "torch.Size",
            "int",
            "complex",
            "str",
            "bytes",
            "bytearray",
        ):
            pass
        elif tag != "pickle":
            self._todo.append(node)
        if node.tag == "pickle":
            node.unit = Unit(node, [node], [node])
            self.n_units += 1
            self._enqueue(node.unit)
        return node

    def _add_foreign(self, node: Node) -> None:
        value = node.value
        if node.tag in ("array", "tensor") and len(value.shape) > self._limits.max_dims:
            raise LimitExceededError(
                f"an array of type {type(value).__name__} has {len(value.shape)} dimensions, more than "
                f"max_dims={self._limits.max_dims}"
            )
        if node.tag == "tensor":
            if tensors.is_plain(value):
                node.extents = [tensors.tensor_extent(value)]
                return
        elif node.tag == "storage":
            node.extents = [tensors.storage_extent(value)]
            return
        else:
            desc = self._dtypes.describe(value if node.tag == "dtype" else value.dtype)
            if desc is not None:
                node.encoded = desc
                if node.tag == "array":
                    node.extents = [arrays.array_extent(value, desc)]
                    return
                if node.tag == "dtype":
                    return
                node.encoded = arrays.encode_scalar(value, desc)
                if node.encoded is not None:
                    return
        node.tag = "pickle"

    def _expand(self, node: Node) -> None:
        value = node.value
        tag = node.tag
        if tag == "member":
            return
        if tag == "custom":
            self.n_customs += 1
            node.items = [self._encode(self._dump_custom(node))]
            node.kids = [item for item in node.items if type(item) is Node]
            return
        if tag == "dict" or tag == "odict":
            # One step of the interpreter, so that no other thread changes the dict half-way.
            pairs = value.copy() if tag == "dict" else OrderedDict(value)
            self._check_size(len(pairs), value)
            flat: list[Any] = [None] * (2 * len(pairs))
            flat[::2] = self._encode_all(list(pairs))
            flat[1::2] = self._encode_all(list(pairs.values()))
            node.items = flat
            if tag == "odict":
                attributes = vars(value).copy()
                node.encoded = [
                    part
                    for key, item in attributes.items()
                    for part in (self._encode(key), self._encode(item))
                ]
        else:
            items = list(value)
            self._check_size(len(items), value)
            node.items = self._encode_all(_stable(items) if tag in ("set", "frozenset") else items)
        node.kids = [item for item in node.items if type(item) is Node]
        if node.encoded:
            node.kids += [item for item in node.encoded if type(item) is Node]

    def _encode_all(self, values: list[Any]) -> list[Any]:
        kinds = set(map(type, values))
        if kinds <= FREE or (kinds == {int} and min(values) >= -(2**63) and max(values) < 2**64):
            return values
        encode = self._encode
        return [value if type(value) in FREE else encode(value) for value in values]

    def _check_size(self, n: int, value: Any) -> None:
        if n > self._limits.max_nodes:
            raise LimitExceededError(
                f"a {type(value).__name__} holds {n} elements, more than max_nodes={self._limits.max_nodes}: "
                "raise the limit, or keep the numbers in an array"
            )

    def _dump_custom(self, node: Node) -> Any:
        custom = self._registry.of_type(type(node.value))
        assert custom is not None
        node.encoded = custom.name
        try:
            return custom.dump(node.value)
        except Exception as exc:
            raise custom_failed(self.roots, node, custom.name, exc) from exc

    def _enqueue(self, unit: Unit) -> None:
        if not unit.queued:
            unit.queued = True
            self._queue.append(unit)

    def _release(self, unit: Unit) -> None:
        for key in unit.claims:
            self._owners.pop(key, None)
        unit.claims = []

    def _pickle(self, unit: Unit) -> None:
        self._release(unit)
        unit.queued = False
        unit.runs += 1
        unit.refs, unit.buffers = [], []
        if unit.runs > _MAX_RUNS_AT_ALL:
            raise never_settles(self.roots, unit)

        def buffer(out: Any) -> None:
            raw = out.raw()
            unit.buffers.append((raw, raw.readonly))

        try:
            tensors.check_memory(unit.value)
            unit.stream = dump_unit(unit.value, self._persistent_id(unit), buffer)
        except Exception as exc:
            raise pickle_failed(self.roots, unit, exc, self._outside) from exc
        unit.node.kids = list(unit.refs)

    def _outside(self, obj: Any) -> bool:
        """Whether an object stays outside every pickle."""
        return id(obj) in self._known or self._types.inside_pickle(type(obj)) == "leaf"

    def _persistent_id(self, unit: Unit) -> Any:
        verdict_of = self._types.inside_pickle
        known, owners, claims = self._known, self._owners, unit.claims
        members = {id(member) for member in unit.members}
        positions: dict[int, int] = {}

        def refer(node: Node) -> int:
            at = positions.get(id(node))
            if at is None:
                self._hold(node)
                at = positions[id(node)] = len(unit.refs)
                unit.refs.append(node)
            return at

        def persistent_id(obj: Any) -> int | None:
            verdict = verdict_of(type(obj))
            if verdict is None:
                return None
            key = id(obj)
            node = known.get(key)
            if node is not None:
                return None if id(node) in members else refer(node)
            if verdict == "keep":
                return None
            if verdict == "leaf":
                node = self._add(obj)
                return refer(node)
            owned = owners.get(key)
            if owned is None:
                owners[key] = (unit, obj)
                claims.append(key)
                return None
            if owned[0] is unit:
                return None
            if owned[0].runs >= _MAX_RUNS:
                self._join.append((owned[0], unit))
                return None
            return refer(self._add(obj))

        return persistent_id

    def _join_pending(self) -> None:
        pending, self._join = self._join, []
        for one, other in pending:
            one, other = self._current(one), self._current(other)
            if one is not other:
                self.group([*one.members, *other.members])

    @staticmethod
    def _current(unit: Unit) -> Unit:
        """Return the unit that has replaced ``unit``, or itself."""
        current = unit.members[0].unit
        assert current is not None
        return current


def _stable(values: list[Any]) -> list[Any]:
    """Return a set's elements in an order that does not depend on hashes where one can be found."""
    keyed: list[tuple[bytes, Any]] = []
    rest: list[Any] = []
    for value in values:
        key = _sort_key(value, 8)
        if key is None:
            rest.append(value)
        else:
            keyed.append((key, value))
    keyed.sort(key=lambda pair: pair[0])
    return [value for _, value in keyed] + rest


def _sort_key(value: Any, depth: int) -> bytes | None:
    if is_short(value):
        return _msgpack.pack(value)
    kind = type(value)
    if kind is int or kind is complex:
        return _msgpack.pack(repr(value) if kind is complex else hex(value))
    if kind is str:
        return _msgpack.pack(value.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return _msgpack.pack(value)
    if (kind is tuple or kind is frozenset) and depth:
        keys = [_sort_key(item, depth - 1) for item in value]
        if None not in keys:
            return _msgpack.pack(sorted(keys) if kind is frozenset else keys)  # type: ignore[type-var]
    return None
