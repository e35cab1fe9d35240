"""Where the elements of a field's arrays and tensors lie, read from its graph alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from ckptstore._pause import collector_paused
from ckptstore.config import Limits
from ckptstore.serializers import _paths
from ckptstore.serializers._check import FieldGraph
from ckptstore.serializers._nodes import Node
from ckptstore.serializers.dtypes import itemsize_of, torch_itemsize
from ckptstore.serializers.graph import CONJ, NEG

__all__ = ["View", "views_of"]

_MANY = 2**31
"""A graph that was checked keeps its limits; nothing is asked twice."""


@dataclass(frozen=True, slots=True)
class View:
    """One array or tensor: ``nbytes`` bytes from ``start`` of a block hold its elements.

    ``path`` leads there from the field through plain containers, None if there
    is no such way. ``block`` is field and number, None where there are no
    bytes. Views of equal ``layout`` have the same elements if they have the
    same bytes. ``runs`` are the ranges of these bytes that belong to elements,
    None if all of them do.
    """

    path: str | None
    kind: str
    shape: tuple[int, ...]
    block: tuple[str, int] | None
    start: int
    nbytes: int
    layout: tuple[Any, ...]
    steps: tuple[tuple[int, int], ...]
    run_bytes: int

    @property
    def has_gaps(self) -> bool:
        """True if bytes between its elements belong to others, or to none."""
        return bool(self.steps)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Yield start and length of the ranges that hold elements, counted from ``start``."""
        for offsets in product(*(range(0, n * stride, stride) for n, stride in self.steps)):
            yield sum(offsets), self.run_bytes


def views_of(field: str, graph: bytes, block_sizes: Sequence[int], limits: Limits) -> list[View]:
    """Return the arrays and tensors that are nodes of this field, in the order of their nodes.

    Raises ManifestCorruptError or LimitExceededError.
    """
    with collector_paused():
        checked = FieldGraph(field, graph, block_sizes, limits)
        paths = _paths_of(checked)
        return [
            _view(field, node, paths.get(at))
            for at, node in enumerate(checked.nodes)
            if node[0] in ("array", "tensor")
        ]


def _view(field: str, node: list[Any], path: str | None) -> View:
    kind = "numpy" if node[0] == "array" else "torch"
    if kind == "numpy":
        _, dtype, shape, strides, block, offset, _ = node
        itemsize, unit, bits = itemsize_of(dtype, max_dims=_MANY), 1, 0
    else:
        _, dtype, shape, strides, block, offset, _, flags = node
        itemsize = unit = torch_itemsize(dtype) or 1  # a checked node's is known
        bits = flags & (CONJ | NEG)
    strides = _c_order(shape, itemsize) if strides is None else [stride * unit for stride in strides]
    if block is None:
        return View(path, kind, tuple(shape), None, 0, 0, (repr(dtype), bits), (), 0)
    place = (field, block) if type(block) is int else _named(field, block)
    layout = (repr(dtype), bits, *(stride for n, stride in zip(shape, strides, strict=True) if n > 1))
    low = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True) if stride < 0)
    # Dimensions from the shortest stride up: one that reaches no further than what is covered covers more of it.
    run = itemsize
    steps: list[tuple[int, int]] = []
    for stride, n in sorted((abs(stride), n) for n, stride in zip(shape, strides, strict=True) if n > 1):
        if not steps and stride <= run:
            run += (n - 1) * stride
        else:
            steps.append((n, stride))
    nbytes = run + sum((n - 1) * stride for n, stride in steps)
    return View(path, kind, tuple(shape), place, offset + low, nbytes, layout, tuple(reversed(steps)), run)


def _named(field: str, block: list[Any]) -> tuple[str, int]:
    return (field, block[0]) if len(block) == 1 else (block[0], block[1])


def _c_order(shape: list[int], itemsize: int) -> list[int]:
    strides: list[int] = []
    step = itemsize
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return strides[::-1]


def _paths_of(graph: FieldGraph) -> dict[int, str]:
    """Return the paths of the nodes that plain containers lead to, as a dump lists them."""
    nodes = [Node(node[0], None, at) for at, node in enumerate(graph.nodes)]

    def values(flat: list[Any]) -> list[Any]:
        return [
            item if type(item) is not list else nodes[item[0]] if len(item) == 1 else None for item in flat
        ]

    for node, raw in zip(nodes, graph.nodes, strict=True):
        if raw[0] in ("list", "tuple", "set", "frozenset", "dict", "odict"):
            node.items = values(raw[1])
            node.encoded = values(raw[2]) if raw[0] == "odict" else None
        elif raw[0] == "custom":
            node.items = values([raw[2]])
        elif raw[0] in ("str", "int"):
            node.value = node  # a long key: its text is not here, so its place is shown
    (root,) = values([graph.root])
    if type(root) is not Node:
        return {}
    found: dict[int, str] = {}
    seen = {root.order}
    todo: list[tuple[Node, Any]] = [(root, None)]
    while todo:
        node, way = todo.pop()
        found[node.order] = _paths.of_way(way)
        if not node.items:
            continue
        inner: list[tuple[Node, Any]] = []
        for kid, step in _paths.steps(node):
            if kid.order not in seen:
                seen.add(kid.order)
                inner.append((kid, (way, step)))
        todo.extend(reversed(inner))
    return found
