"""Finds every object of a dump that becomes a node.

Plain containers are walked here. What is not plain is pickled (``_pickles``),
with arrays, tensors, registered types and known nodes left out; what that
finds to be shared becomes a node too, until nothing is left to do.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError
from ckptstore.serializers import arrays, tensors
from ckptstore.serializers._blame import custom_failed
from ckptstore.serializers._nodes import FREE, Node, Types, Verdicts, is_short
from ckptstore.serializers._pickles import Pickles
from ckptstore.serializers._sets import stable
from ckptstore.serializers.registry import Registry

__all__ = ["Walk"]

_FOREIGN = frozenset({"array", "tensor", "storage", "scalar", "dtype"})
_CONTAINERS = frozenset({"list", "tuple", "set", "frozenset", "dict", "odict", "custom"})


class Walk:
    """The discovery of one dump. ``run`` fills ``roots`` (value or Node per field)."""

    def __init__(self, values: Mapping[str, Any], *, limits: Limits, registry: Registry) -> None:
        self._values = values
        self._limits = limits
        self._registry = registry
        self.types = Types(registry)
        self.verdicts = Verdicts(self.types)
        self._dtypes = arrays.Dtypes()
        self.known: dict[int, Node] = {}
        self._todo: list[Node] = []
        self._n_nodes = 0
        self._where: frozenset[int] = frozenset()
        self.roots: dict[str, Any] = {}
        self.pickles = Pickles(self)
        self.n_customs = 0

    def run(self) -> None:
        """Find everything. Raises UnserializableError or LimitExceededError."""
        for at, (name, value) in enumerate(self._values.items()):
            self._where = frozenset({at})
            self.roots[name] = self._encode(value)
        self.pickles.each_alone()
        self.settle()

    def settle(self) -> None:
        """Expand and pickle until nothing is left to do."""
        more = True
        while more:
            while self._todo:
                self._expand(self._todo.pop())
            more = self.pickles.work()

    def close(self) -> None:
        """Let go of the values: what a dump made of them refers to itself, and would keep them for the collector."""
        self.known.clear()
        self.pickles.close()

    def add(self, value: Any, where: frozenset[int]) -> Node:
        """Make an object that a pickle of fields ``where`` reached a node."""
        self._where = where
        return self._add(value)

    def make(self, tag: str, value: Any, where: frozenset[int]) -> Node:
        """Return a new node."""
        self._n_nodes += 1
        return Node(tag, value, self._n_nodes, where)

    def _encode(self, value: Any) -> Any:
        if is_short(value):
            return value
        node = self.known.get(id(value))
        if node is None:
            return self._add(value)
        if node.tag == "member" or node.tag == "pickle":
            self.pickles.hold(node, self._where)
        return node

    def _add(self, value: Any) -> Node:
        """Make ``value`` a node; a pickle that already holds it has to be made again without it."""
        if id(value) in self.pickles.owners:
            self.pickles.cut_out(value)
        tag = self.types.tag(type(value))
        if tag == "odict" and not all(type(name) is str and is_short(name) for name in vars(value)):
            tag = "pickle"  # Names that a graph has no place for.
        self._n_nodes += 1
        node = self.known[id(value)] = Node(tag, value, self._n_nodes, self._where)
        if tag in _CONTAINERS:
            self._todo.append(node)
        elif tag in _FOREIGN:
            self._add_foreign(node)
        if node.tag == "pickle":
            self.pickles.add(node)
        return node

    def _add_foreign(self, node: Node) -> None:
        value = node.value
        if node.tag in ("array", "tensor") and len(value.shape) > self._limits.max_dims:
            raise LimitExceededError(
                f"an array of type {type(value).__name__} has {len(value.shape)} dimensions, more than "
                f"max_dims={self._limits.max_dims}"
            )
        if node.tag == "tensor":
            plain, extent = tensors.plain_extent(value)
            if plain:
                node.extents = (extent,)
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
        self._where = node.where
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
            node.items = self._encode_all(stable(items) if tag in ("set", "frozenset") else items)
        node.kids = [item for item in node.items if type(item) is Node]
        if node.encoded:
            node.kids = [*node.kids, *(item for item in node.encoded if type(item) is Node)]

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
