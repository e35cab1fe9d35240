"""Values to graphs and blocks. It reads memory but copies, uploads and changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore import _msgpack
from ckptstore._pause import collector_paused
from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError
from ckptstore.serializers import _devices, arrays, memory, tensors
from ckptstore.serializers._blame import copy_failed, cycle_through_custom, device_failed
from ckptstore.serializers._cycles import cycles
from ckptstore.serializers._leaves import Leaf, LeafLister
from ckptstore.serializers._nodes import Node
from ckptstore.serializers._walk import Walk
from ckptstore.serializers.graph import SHORT
from ckptstore.serializers.memory import Block, Extent, Region
from ckptstore.serializers.registry import Registry

__all__ = ["DumpedField", "dump"]


@dataclass(slots=True)
class DumpedField:
    """One field as bytes. ``globals`` are the names that its pickles import when they are loaded."""

    name: str
    type_name: str
    kind: str
    """``tree``: plain data. ``pickle``: loading it unpickles something, its own or what it shares."""
    graph: bytes
    blocks: list[Block]
    leaves: list[Leaf]
    globals: list[str]


def dump(values: Mapping[str, object], *, limits: Limits, registry: Registry) -> list[DumpedField]:
    """Return every field of ``values`` as a graph and blocks, in their order.

    The blocks are views of the values' own memory; only tensors of other
    devices, bytearrays and lone views with gaps between their elements are
    copied, and those copies have ended. What several fields share belongs to the first of them. Dumping the
    same values again gives the same bytes.

    Tensors that need a gradient come back as leaves without their history, and
    ``.grad`` is not kept, as with pickle.

    Raises UnserializableError naming the path of what cannot be saved,
    LimitExceededError, and SaveError for a device that failed.
    """
    with collector_paused():
        return _dump(values, limits, registry)


def _dump(values: Mapping[str, object], limits: Limits, registry: Registry) -> list[DumpedField]:
    walk = Walk(values, limits=limits, registry=registry)
    walk.run()
    _merge_cycles(walk, registry)
    names = list(values)
    fields = _number(walk.roots, limits)
    regions = _assign_blocks(fields)
    _fetch(walk, fields, regions)
    encode = _Encoder(names)
    dumped: list[DumpedField] = []
    lister = LeafLister()
    has_leaves = False
    for at, name in enumerate(names):
        root = walk.roots[name]
        graph = _msgpack.pack([encode.value(root, at), [encode.node(node) for node in fields[at]]])
        pickled, imported = _pickles(root) if walk.pickles.n_units else (False, [])
        # A field also lists what it shares with those before it.
        has_leaves = has_leaves or any(node.tag in ("array", "tensor") for node in fields[at])
        dumped.append(
            DumpedField(
                name=name,
                type_name=_type_name(values[name]),
                kind="pickle" if pickled else "tree",
                graph=graph,
                blocks=[region.block() for region in regions[at]],
                leaves=lister.leaves(root, at) if has_leaves else [],
                globals=imported,
            )
        )
    walk.close()
    return dumped


def _type_name(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _merge_cycles(walk: Walk, registry: Registry) -> None:
    """Join what a cycle runs through, where part of it is pickled, in one pickle each."""
    while walk.pickles.has_links or walk.n_customs:
        found = cycles(root for root in walk.roots.values() if type(root) is Node)
        # Objects in a row need not refer to one another: whether they do shows when each is on its own.
        changed = walk.pickles.take_rows_apart(node for part in found for node in part)
        for part in () if changed else found:
            custom = next((node for node in part if node.tag == "custom"), None)
            if custom is not None:
                registered = registry.of_type(type(custom.value))
                raise cycle_through_custom(walk.roots, custom, registered.name if registered else "?")
            if any(node.unit is not None for node in part):
                walk.pickles.group(part)
                changed = True
        if not changed:
            return
        walk.settle()


def _number(roots: Mapping[str, Any], limits: Limits) -> list[list[Node]]:
    """Give every node its field and number; return the nodes by field."""
    fields: list[list[Node]] = []
    for at, (name, root) in enumerate(roots.items()):
        nodes: list[Node] = []
        stack = [root] if type(root) is Node else []
        while stack:
            node = stack.pop()
            if node.field >= 0:
                continue
            node.field = at
            node.index = len(nodes)
            nodes.append(node)
            stack.extend(reversed(node.kids))
        if len(nodes) > limits.max_nodes:
            raise LimitExceededError(
                f"field {name!r} has {len(nodes)} containers, arrays and pickled parts, more than "
                f"max_nodes={limits.max_nodes}: raise the limit, or keep small values in arrays"
            )
        fields.append(nodes)
    return fields


_PAYLOADS = frozenset({"str", "bytes", "int", "bytearray"})


def _assign_blocks(fields: list[list[Node]]) -> list[list[Region]]:
    """Join the memory of all nodes, and number its blocks in the field that meets them first."""
    for nodes in fields:
        for node in nodes:
            tag = node.tag
            if tag in _PAYLOADS:
                node.region = _payload(_bytes_of(node))
            elif tag == "pickle" and node.unit is not None:
                node.region = _payload(node.unit.stream)
                node.extents = [_buffer_extent(*buffer) for buffer in node.unit.buffers]
    memory.join(
        extent
        for nodes in fields
        for node in nodes
        if node.extents
        for extent in node.extents
        if extent is not None and extent.region is None
    )
    regions: list[list[Region]] = []
    for at, nodes in enumerate(fields):
        mine: list[Region] = []
        for node in nodes:
            if node.region is None and not node.extents:
                continue
            met = [node.region, *(extent.region for extent in node.extents if extent is not None)]
            for region in met:
                if region is not None and region.field < 0:
                    region.field = at
                    region.index = len(mine)
                    mine.append(region)
        regions.append(mine)
    return regions


def _fetch(walk: Walk, fields: list[list[Node]], regions: list[list[Region]]) -> None:
    """Bring the tensors of other devices over, those of all fields together."""

    def failed(region: Region, exc: Exception) -> Exception:
        node = next(
            node
            for nodes in fields
            for node in nodes
            if any(extent is not None and extent.region is region for extent in node.extents)
        )
        return copy_failed(walk.roots, node, region.space, exc)

    _devices.fetch(
        (region for mine in regions for region in mine), copy_failed=failed, device_failed=device_failed
    )


def _bytes_of(node: Node) -> bytes:
    value = node.value
    if node.tag == "str":
        encoded: bytes = value.encode("utf-8", "surrogatepass")
        return encoded
    if node.tag == "int":
        whole: bytes = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return whole
    # A view of a bytearray would keep its owner from resizing it.
    return bytes(value)


def _payload(data: bytes) -> Region | None:
    return Region(0, data=memoryview(data)) if len(data) > SHORT else None


def _buffer_extent(raw: memoryview, readonly: bool) -> Extent | None:
    if not raw.nbytes:
        return None
    start = memory.address_of(raw)
    extent = Extent(start or 0, raw.nbytes, owner=raw, width=1)
    if start is None:
        extent.region = Region(0, data=raw)
        extent.region.private = False
    return extent


_PLAIN = frozenset({"list", "tuple", "set", "frozenset", "dict"})


class _Encoder:
    """Turns nodes into msgpack values."""

    def __init__(self, names: list[str]) -> None:
        self._names = names

    def value(self, value: Any, at: int) -> Any:
        """Return a value of field ``at``: itself, or a reference."""
        if type(value) is not Node:
            return value
        return [value.index] if value.field == at else [self._names[value.field], value.index]

    def node(self, node: Node) -> list[Any]:
        """Return one node."""
        tag = node.tag
        value = node.value
        if tag in _PLAIN:
            return [tag, self._values(node.items, node)]
        if tag == "member":
            assert node.unit is not None
            return [tag, self.value(node.unit.node, node.field), node.encoded]
        if tag == "odict":
            return [tag, self._values(node.items, node), self._values(node.encoded, node)]
        if tag == "array":
            extent = node.extents[0]
            return arrays.encode_array(value, node.encoded, extent, self._block(extent, node.field))
        if tag == "tensor":
            extent = node.extents[0]
            return tensors.encode_tensor(value, extent, self._block(extent, node.field))
        if tag == "pickle":
            return self._pickle(node)
        if tag == "scalar":
            scalar: list[Any] = node.encoded
            return scalar
        if tag == "storage":
            extent = node.extents[0]
            return tensors.encode_storage(value, extent, self._block(extent, node.field))
        if tag == "custom":
            return [tag, node.encoded, self.value(node.items[0], node.field)]
        return [tag, *self._simple(node)]

    def _simple(self, node: Node) -> list[Any]:
        value = node.value
        if node.tag == "complex":
            return [value.real, value.imag]
        if node.tag == "dtype":
            return [node.encoded]
        if node.tag == "torch.dtype":
            return [tensors.torch_name(value)]
        if node.tag == "torch.device":
            return [str(value)]
        if node.tag == "torch.Size":
            return [list(value)]
        return [node.region.index if node.region is not None else _bytes_of(node)]

    def _values(self, items: Sequence[Any], node: Node) -> Sequence[Any]:
        if not node.kids:
            return items
        at = node.field
        return [
            item
            if type(item) is not Node
            else [item.index]
            if item.field == at
            else [self._names[item.field], item.index]
            for item in items
        ]

    def _block(self, extent: Extent | None, at: int) -> Any:
        if extent is None or extent.region is None:
            return None
        region = extent.region
        return region.index if region.field == at else [self._names[region.field], region.index]

    def _pickle(self, node: Node) -> list[Any]:
        unit = node.unit
        assert unit is not None
        buffers = []
        for extent, (raw, readonly) in zip(node.extents, unit.buffers, strict=True):
            offset = 0
            if extent is not None and extent.region is not None and extent.region.extents:
                offset = extent.start - extent.region.start
            buffers.append([self._block(extent, node.field), offset, raw.nbytes, readonly])
        stream = unit.stream if node.region is None else node.region.index
        refs = [self.value(ref, node.field) for ref in unit.refs]
        n = 0 if unit.roots == [node] else len(unit.roots)
        return ["pickle", stream, buffers, refs, list(unit.names), n]


def _pickles(root: Any) -> tuple[bool, list[str]]:
    """Return whether loading a field unpickles anything, and what that imports."""
    pickled = False
    names: set[str] = set()
    seen: set[int] = set()
    stack = [root] if type(root) is Node else []
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if node.tag == "pickle" and node.unit is not None:
            pickled = True
            names.update(node.unit.names)
        for kid in node.kids:
            if kid.tag == "member":
                (kid,) = kid.kids
            if (kid.kids or kid.tag == "pickle") and id(kid) not in seen:
                stack.append(kid)
    return pickled, sorted(names)
