"""What checked graphs say of the values without any of their bytes: containers, their keys, and what lies in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, NamedTuple

from ckptstore._pause import collector_paused
from ckptstore.errors import CheckpointStoreError, ManifestCorruptError
from ckptstore.serializers import _paths
from ckptstore.serializers._builder import Builder
from ckptstore.serializers._check import FieldGraph, Ref
from ckptstore.serializers.dtypes import rebuild, torch_itemsize

__all__ = ["HIDDEN", "LeafSpec", "Outline", "Spot"]

HIDDEN: Any = object()
"""Stands for a key that the graphs alone do not tell."""

_DICTS = frozenset({"dict", "odict"})
_LISTS = frozenset({"list", "tuple"})
_KEYS = frozenset({"tuple", "frozenset", "int", "complex", "str", "bytes", "scalar"})


class Spot(NamedTuple):
    """A place in the values: a node, or a ``value`` that stands in the graph itself and has no ``ref``.

    ``at`` is its position in the container that it was found in.
    """

    ref: Ref | None
    value: Any = None
    at: int = 0


class LeafSpec(NamedTuple):
    """What is known of an array or tensor before its bytes are."""

    kind: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


class Outline:
    """The containers of some graphs; ``keys`` makes the keys of dicts, and needs no blocks for it."""

    def __init__(self, graphs: Mapping[str, FieldGraph], keys: Builder) -> None:
        self._graphs = graphs
        self._keys = keys

    def root(self, field: str) -> Spot:
        """Return the value of a field."""
        return self._spot(self._graphs[field].root, field)

    def node(self, ref: Ref) -> list[Any]:
        """Return the node of a reference."""
        node: list[Any] = self._graphs[ref[0]].nodes[ref[1]]
        return node

    def tag(self, spot: Spot) -> str:
        """Return the tag of its node, ``""`` for what is none."""
        return "" if spot.ref is None else str(self.node(spot.ref)[0])

    @collector_paused()
    def entries(self, spot: Spot) -> dict[Any, Spot] | list[Spot] | None:
        """Return what is in a dict, list or tuple, by key or in order; None for anything else.

        An entry whose key cannot be told here is left out.
        """
        tag = self.tag(spot)
        if spot.ref is None or tag not in _DICTS | _LISTS:
            return None
        field, (_, flat, *_rest) = spot.ref[0], self.node(spot.ref)
        if tag in _LISTS:
            return [self._spot(item, field, at) for at, item in enumerate(flat)]
        keys = [self._key(key, field) for key in flat[::2]]
        self._keys.check_keys(keys)
        spots = [self._spot(item, field, at) for at, item in enumerate(flat[1::2])]
        try:
            found = dict(zip(keys, spots, strict=True))
        except TypeError as exc:
            raise ManifestCorruptError(f"a dict of field {field!r} has a key that is none: {exc}") from exc
        found.pop(HIDDEN, None)
        return found

    def leaf(self, spot: Spot) -> LeafSpec | None:
        """Return what an array or tensor is, None for anything else.

        Raises ManifestCorruptError for a dtype that this machine does not have,
        CheckpointStoreError where numpy is missing.
        """
        tag = self.tag(spot)
        if spot.ref is None or tag not in ("array", "tensor"):
            return None
        _, name, shape, *_ = self.node(spot.ref)
        if tag == "array":
            try:
                dtype = rebuild(name)
            except ImportError as exc:
                raise CheckpointStoreError(
                    f"field {spot.ref[0]!r} holds an array, and {exc.name or 'its package'} cannot be imported here: "
                    "install it, or read other fields"
                ) from exc
            except (TypeError, ValueError) as exc:
                raise ManifestCorruptError(f"an array of field {spot.ref[0]!r} has no dtype: {exc}") from exc
            return LeafSpec("numpy", str(dtype), tuple(shape), prod(shape) * dtype.itemsize)
        return LeafSpec("torch", name, tuple(shape), prod(shape) * (torch_itemsize(name) or 1))

    @collector_paused()
    def leaves(self, field: str) -> dict[str, Spot | None]:
        """Return the arrays and tensors that plain containers lead to, by the paths under which a dump lists them.

        None: several have this path.
        """
        root = self.root(field)
        found: dict[str, Spot | None] = {}
        seen = {root.ref}
        # The way to a node is a chain of (step before, text), as in the listing of a dump.
        todo: list[tuple[Spot, Any]] = [(root, None)]
        while todo:
            spot, way = todo.pop()
            if self.tag(spot) in ("array", "tensor"):
                path = _paths.of_way(way)
                found[path] = None if path in found else spot
                continue
            inner: list[tuple[Spot, Any]] = []
            for step, ref in self._steps(spot):
                if ref not in seen:
                    seen.add(ref)
                    inner.append((Spot(ref), (way, step)))
            todo.extend(reversed(inner))
        return found

    def _steps(self, spot: Spot) -> Iterator[tuple[str, Ref]]:
        """Yield the nodes that a node leads to, each with the step to it."""
        tag = self.tag(spot)
        if spot.ref is None:
            return
        field, node = spot.ref[0], self.node(spot.ref)
        if tag in _DICTS:
            flat = node[1]
            for at in range(0, len(flat), 2):
                key, value = flat[at], flat[at + 1]
                if type(key) is list:
                    yield f"<key {at // 2}>", _ref(key, field)
                    key = self._key(key, field)
                if type(value) is list:
                    yield _paths.step_text(key, at // 2), _ref(value, field)
            attributes = node[2] if tag == "odict" else ()
            for at in range(0, len(attributes), 2):
                if type(attributes[at + 1]) is list:
                    yield f".{attributes[at]}", _ref(attributes[at + 1], field)
        elif tag == "custom":
            if type(node[2]) is list:
                yield "", _ref(node[2], field)
        elif tag in _LISTS or tag in ("set", "frozenset"):
            opening, closing = "[]" if tag in _LISTS else "{}"
            for at, item in enumerate(node[1]):
                if type(item) is list:
                    yield f"{opening}{at}{closing}", _ref(item, field)

    def _spot(self, value: Any, field: str, at: int = 0) -> Spot:
        return Spot(_ref(value, field), None, at) if type(value) is list else Spot(None, value, at)

    def _key(self, value: Any, field: str) -> Any:
        if type(value) is not list:
            return value
        ref = _ref(value, field)
        return self._keys.node(ref) if self._is_told(ref) else HIDDEN

    def _is_told(self, ref: Ref) -> bool:
        """Tell whether a key can be made from the graphs alone."""
        stack, seen = [ref], {ref}
        while stack:
            at = stack.pop()
            graph = self._graphs[at[0]]
            if graph.nodes[at[1]][0] not in _KEYS or graph.uses[at[1]]:
                return False
            new = [kid for kid in graph.refs[at[1]] if kid not in seen]
            seen.update(new)
            stack += new
        return True


def _ref(value: list[Any], field: str) -> Ref:
    return (field, value[0]) if len(value) == 1 else (value[0], value[1])
