"""Lists the arrays and tensors of a field by their paths, also those inside pickled objects."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from ckptstore.serializers import _paths
from ckptstore.serializers._nodes import Node
from ckptstore.serializers.pickling import Unit

__all__ = ["Leaf", "LeafLister"]

_MAX_LOOKS = 300_000
"""Objects of one pickle that are looked at for the paths of its arrays."""


class Leaf(NamedTuple):
    """An array or tensor of a field.

    ``path`` leads there from the field: "", ``[0].x``, ``['w']``,
    ``net.0.weight``. ``nbytes`` are those of its elements; 0 where a field
    before it, or a leaf before it, is the same object and counts them.
    ``block`` is the field's block that holds them, None if there is none or it
    is another field's.
    """

    path: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    block: int | None = None


class LeafLister:
    """Lists the leaves of the fields of one dump, one field after another."""

    def __init__(self) -> None:
        self._counted: set[int] = set()
        self._dtypes: dict[int, str] = {}
        self._rows: dict[int, _Row] = {}

    def leaves(self, root: Any, field: int) -> list[Leaf]:
        """Return the leaves that the root of field number ``field`` reaches."""
        if type(root) is not Node:
            return []
        found: list[Leaf] = []
        self._rows = {}
        # What a module holds has the names of its state_dict.
        in_module = issubclass(type(root.value), _module_type())
        seen = {id(root)}
        # The way to a node is a chain of (step before, text): joining only at a leaf keeps deep nests linear.
        todo: list[tuple[Node, Any]] = [(root, None)]
        while todo:
            node, way = todo.pop()
            if node.tag in ("array", "tensor"):
                path = _paths.of_way(way)
                found.append(self._leaf(node, path[1:] if in_module else path, field))
                continue
            if not node.kids:
                continue
            inner: list[tuple[Node, Any]] = []
            for kid, step in self._steps(node):
                if id(kid) not in seen:
                    seen.add(id(kid))
                    inner.append((kid, (way, step)))
            todo.extend(reversed(inner))
        return found

    def _steps(self, node: Node) -> Iterator[tuple[Node, str]]:
        unit = node.unit
        if unit is None:
            yield from _paths.steps(node)
        elif unit.in_row:
            row = self._rows.get(id(unit))
            if row is None:
                row = self._rows[id(unit)] = _Row(_wanted(unit), len(unit.members))
            row.n_left -= 1
            if row.wanted:
                yield from _inside([node.value], unit, row.wanted, last=row.n_left == 0)
        else:
            wanted = _wanted(unit)
            if wanted:
                roots = [node.value] if node.value is not None else [root.value for root in unit.roots]
                yield from _inside(roots, unit, wanted, last=True)

    def _leaf(self, node: Node, path: str, field: int) -> Leaf:
        value = node.value
        shape = tuple(value.shape)
        extent = node.extents[0]
        region = extent.region if extent is not None else None
        block = region.index if region is not None and region.field == field else None
        is_array = node.tag == "array"
        itemsize = value.itemsize if is_array else value.element_size()
        nbytes = 0 if id(node) in self._counted else prod(shape) * itemsize
        self._counted.add(id(node))
        return Leaf(path, "numpy" if is_array else "torch", self._name(value.dtype), shape, nbytes, block)

    def _name(self, dtype: Any) -> str:
        name = self._dtypes.get(id(dtype))
        if name is None:
            name = self._dtypes[id(dtype)] = str(dtype).removeprefix("torch.")
        return name


def _module_type() -> Any:
    module: Any = getattr(getattr(sys.modules.get("torch"), "nn", None), "Module", None)
    return module or ()


@dataclass(slots=True)
class _Row:
    """What no object of a row was found to hold yet, and how many are still to be looked at."""

    wanted: dict[int, Node]
    n_left: int


def _wanted(unit: Unit) -> dict[int, Node]:
    return {id(ref.value): ref for ref in unit.refs if ref.tag not in _NO_LEAVES}


_NO_LEAVES = frozenset({"int", "complex", "str", "bytes", "bytearray", "scalar", "dtype", "storage"})


def _inside(
    roots: list[Any], unit: Unit, wanted: dict[int, Node], *, last: bool
) -> Iterator[tuple[Node, str]]:
    """Look for the nodes that a pickle refers to among the attributes and items of its objects.

    What is found is no longer wanted; the ``last`` look names the others by their numbers.
    """
    module = _module_type()
    queue: deque[tuple[Any, str]] = deque((root, "") for root in roots)
    seen = {id(root) for root in roots}
    looks = 0
    while queue and wanted and looks < _MAX_LOOKS:
        value, path = queue.popleft()
        for child, step in _parts(value, module):
            key = id(child)
            if key in seen or type(child) in _ATOMS:
                continue
            looks += 1
            seen.add(key)
            node = wanted.pop(key, None)
            if node is None:
                queue.append((child, path + step))
            else:
                yield node, path + step
    for at, ref in enumerate(unit.refs if last else ()):
        if id(ref.value) in wanted:
            yield ref, f"<{at}>"


_ATOMS = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray, type})


def _parts(value: Any, module: Any) -> Iterator[tuple[Any, str]]:
    # By type and through the base classes: a listing runs no code of the user's.
    kind = type(value)
    if issubclass(kind, dict):
        for at, (key, item) in enumerate(dict.items(value)):
            yield item, f"[{_paths.key_text(key, at)}]"
    elif issubclass(kind, (list, tuple)):
        base = list if issubclass(kind, list) else tuple
        for at, item in enumerate(base.__iter__(value)):
            yield item, f"[{at}]"
    if issubclass(kind, type) or kind in (dict, list, tuple):
        return
    try:
        attributes = object.__getattribute__(value, "__dict__")
    except AttributeError:
        attributes = None
    if type(attributes) is dict:
        if issubclass(kind, module):
            yield from _module_parts(attributes)
            return
        for name, item in attributes.items():
            yield item, f".{name}"
    for cls in kind.__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for name in (slots,) if type(slots) is str else slots:
            descriptor: Any = cls.__dict__.get(name)
            if type(descriptor).__name__ == "member_descriptor":
                try:
                    yield descriptor.__get__(value), f".{name}"
                except AttributeError:
                    continue


def _module_parts(attributes: dict[str, Any]) -> Iterator[tuple[Any, str]]:
    for group in ("_parameters", "_buffers", "_modules"):
        for name, item in (attributes.get(group) or {}).items():
            yield item, f".{name}"
    for name, item in attributes.items():
        if name not in ("_parameters", "_buffers", "_modules"):
            yield item, f".{name}"
