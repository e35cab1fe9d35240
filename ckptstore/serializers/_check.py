"""Reads the graph of a field and believes nothing: every node is checked before anything is made of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ckptstore import _msgpack
from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError, ManifestCorruptError
from ckptstore.serializers._plain import PLAIN, plain_extent
from ckptstore.serializers.arrays import strided_range
from ckptstore.serializers.dtypes import itemsize_of, torch_itemsize
from ckptstore.serializers.graph import CONJ, NEG, PARAMETER, REQUIRES_GRAD, SHORT

__all__ = ["BlockUse", "FieldGraph", "Ref"]

Ref = tuple[str, int]
"""A node: its field and its number."""
BlockUse = tuple[str, int, int]
"""A block: its field, its number, and how many bytes from its start are used."""

_MAX_BYTES = 2**63 - 1
_SCALARS = frozenset({type(None), bool, int, float, str, bytes})
_VALUES = _SCALARS | {list}


class FieldGraph:
    """A checked graph: ``root``, ``nodes``, and what each node refers to.

    References to other fields are checked for their form only; whoever has
    both fields compares them with ``n_nodes`` and ``block_sizes``.
    """

    def __init__(self, field: str, graph: bytes, block_sizes: Sequence[int], limits: Limits) -> None:
        self.field = field
        self.block_sizes = list(block_sizes)
        self._limits = limits
        self._at = -1
        self._itemsizes: dict[str, int] = {}
        raw = self._unpack(graph)
        if type(raw) is not list or len(raw) != 2 or type(raw[1]) is not list:
            self._fail("it is not a root and nodes")
        self.root, self.nodes = raw
        if len(self.nodes) > limits.max_nodes:
            raise LimitExceededError(
                f"field {field!r} has {len(self.nodes)} nodes, more than max_nodes={limits.max_nodes}"
            )
        if type(self.root) not in _VALUES:
            self._fail("its root is not a value")
        self.refs: list[Sequence[Ref]] = []
        self.uses: list[Sequence[BlockUse]] = []
        root_refs: list[Ref] = []
        self._refs_of([self.root], root_refs)
        self.root_refs = root_refs
        for at, node in enumerate(self.nodes):
            self._at = at
            self._node(node)
        self._at = -1
        self._everything_is_used()

    @property
    def n_nodes(self) -> int:
        """How many nodes there are."""
        return len(self.nodes)

    def _unpack(self, graph: bytes) -> Any:
        # A dict's node has two elements for each entry.
        return _msgpack.unpack(
            graph, what=f"the graph of field {self.field!r}", max_items=2 * self._limits.max_nodes + 16
        )

    def _fail(self, reason: str) -> NoReturn:
        where = (
            f"node {self._at} of field {self.field!r}"
            if self._at >= 0
            else f"the graph of field {self.field!r}"
        )
        raise ManifestCorruptError(f"{where} is damaged: {reason}")

    def _need(self, condition: bool, reason: str) -> None:
        if not condition:
            self._fail(reason)

    def _node(self, node: Any) -> None:
        if type(node) is not list or not node or type(node[0]) is not str:
            self._fail("it has no tag")
        entry = _SHAPES.get(node[0])
        if entry is None:
            self._fail(f"unknown tag {node[0][:40]!r}")
        arity, check = entry
        if len(node) != arity:
            self._fail(f"a {node[0]} with {len(node)} parts")
        if node[0] in PLAIN and (
            nbytes := plain_extent(node, self.block_sizes, self._itemsizes, self._limits)
        ):
            self.refs.append(())
            self.uses.append(((self.field, node[4], nbytes),))
            return
        refs: list[Ref] = []
        uses: list[BlockUse] = []
        check(self, node, refs, uses)
        self.refs.append(refs or ())
        self.uses.append(uses or ())

    def _everything_is_used(self) -> None:
        """Nodes and blocks that nothing in the field needs would be dead weight that nobody ever checks."""
        reached = bytearray(len(self.nodes))
        stack = [at for field, at in self.root_refs if field == self.field]
        while stack:
            at = stack.pop()
            if not reached[at]:
                reached[at] = 1
                stack += [to for field, to in self.refs[at] if field == self.field and not reached[to]]
        if not all(reached):
            self._fail(f"nothing refers to node {reached.index(0)}")
        used = {block for uses in self.uses for field, block, _ in uses if field == self.field}
        if len(used) != len(self.block_sizes):
            self._fail(f"it uses {len(used)} of {len(self.block_sizes)} blocks")

    def _refs_of(self, values: Any, into: list[Ref]) -> None:
        kinds = set(map(type, values))
        self._need(kinds <= _VALUES, "a value of an unknown type")
        if list in kinds:
            field, n_nodes = self.field, len(self.nodes)
            for value in values:
                if type(value) is list:
                    # Nearly all are of this form, and there may be millions.
                    if len(value) == 1 and type(value[0]) is int and 0 <= value[0] < n_nodes:
                        into.append((field, value[0]))
                    else:
                        into.append(self._ref(value))
        if str in kinds or bytes in kinds:
            for value in values:
                if type(value) in (str, bytes) and len(value) > SHORT:
                    self._fail("a str or bytes that should be a block")

    def _ref(self, value: list[Any]) -> Ref:
        field, at = self._pair(value)
        self._need(
            field != self.field or at < len(self.nodes), f"it refers to node {at} of {len(self.nodes)}"
        )
        return field, at

    def _pair(self, value: list[Any]) -> Ref:
        if len(value) == 1:
            field, at = self.field, value[0]
        else:
            self._need(
                len(value) == 2 and type(value[0]) is str and value[0] != self.field, "a malformed reference"
            )
            field, at = value
        self._need(type(at) is int and at >= 0, "a malformed reference")
        return field, at

    def _block(self, block: Any, nbytes: int, uses: list[BlockUse]) -> None:
        """Check a block reference of which ``nbytes`` bytes from the start are used."""
        self._need(0 < nbytes <= _MAX_BYTES, "a size that no memory has")
        if type(block) is int:
            self._need(0 <= block < len(self.block_sizes), "it refers to a block that is not there")
            self._need(nbytes <= self.block_sizes[block], "it reaches beyond its block")
            uses.append((self.field, block, nbytes))
        else:
            self._need(type(block) is list and len(block) == 2, "a malformed block reference")
            field, at = self._pair(block)
            uses.append((field, at, nbytes))

    def _payload(self, payload: Any, uses: list[BlockUse]) -> None:
        if type(payload) is bytes:
            self._need(len(payload) <= SHORT, "a payload that should be a block")
        else:
            self._need(
                type(payload) is int and 0 <= payload < len(self.block_sizes),
                "it refers to a block that is not there",
            )
            uses.append((self.field, payload, self.block_sizes[payload]))

    def _shape(self, shape: Any, itemsize: int) -> int:
        self._need(type(shape) is list, "a malformed shape")
        self._need(len(shape) <= self._limits.max_dims, f"{len(shape)} dimensions")
        size = itemsize
        for n in shape:
            if type(n) is not int or n < 0:
                self._fail("a malformed shape")
            size *= n or 1
            if size > _MAX_BYTES:
                self._fail("a shape that no memory has")
        return 0 if 0 in shape else size

    def _strided(
        self,
        shape: list[int],
        strides: Any,
        step: int,
        block: Any,
        offset: Any,
        itemsize: int,
        uses: list[BlockUse],
    ) -> None:
        """Check where the elements lie; ``step`` is the unit of the strides in bytes."""
        nbytes = self._shape(shape, itemsize)
        self._need(type(offset) is int and 0 <= offset <= _MAX_BYTES, "a malformed offset")
        if strides is not None:
            self._need(
                type(strides) is list
                and len(strides) == len(shape)
                and all(type(stride) is int and abs(stride) <= _MAX_BYTES for stride in strides),
                "malformed strides",
            )
        if block is None:
            self._need(offset == 0, "an offset without a block")
            return
        self._need(nbytes > 0, "a block for no elements")
        low, high = 0, nbytes
        if strides is not None:
            low, high = strided_range(tuple(shape), tuple(stride * step for stride in strides), itemsize)
        self._need(offset + low >= 0, "it reaches before its block")
        self._block(block, offset + high, uses)

    def _dtype(self, desc: Any) -> int:
        known = self._itemsizes.get(desc) if type(desc) is str else None
        if known is not None:
            return known
        try:
            itemsize = itemsize_of(desc, max_dims=self._limits.max_dims)
        except ValueError as exc:
            self._fail(str(exc))
        if type(desc) is str:
            self._itemsizes[desc] = itemsize
        return itemsize

    def _torch_dtype(self, name: Any) -> int:
        itemsize = torch_itemsize(name) if type(name) is str else None
        if itemsize is None:
            self._fail(f"unknown torch dtype {str(name)[:40]!r}")
        return itemsize

    def _device(self, device: Any) -> None:
        self._need(type(device) is str and 0 < len(device) <= 40 and device.isascii(), "a malformed device")

    def _sequence(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._need(type(node[1]) is list, "it has no list of values")
        self._size(len(node[1]), 1)
        self._refs_of(node[1], refs)

    def _mapping(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        for flat in node[1:]:
            self._need(type(flat) is list and len(flat) % 2 == 0, "it has no list of pairs")
            self._size(len(flat), 2)
            self._refs_of(flat, refs)

    def _size(self, n: int, each: int) -> None:
        if n > each * self._limits.max_nodes:
            raise LimitExceededError(
                f"node {self._at} of field {self.field!r} has {n // each} elements, "
                f"more than max_nodes={self._limits.max_nodes}"
            )

    def _odict(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._mapping(node, refs, uses)
        self._need(all(type(name) is str for name in node[2][::2]), "an attribute without a name")

    def _bytes(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._payload(node[1], uses)

    def _complex(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._need(type(node[1]) is float and type(node[2]) is float, "its parts are not floats")

    def _array(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        _, desc, shape, strides, block, offset, writeable = node
        itemsize = self._dtype(desc)
        self._need(type(writeable) is bool, "a malformed flag")
        self._strided(shape, strides, 1, block, offset, itemsize, uses)
        if block is None:
            self._need(0 in shape, "elements without a block")

    def _scalar(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        _, desc, data = node
        if desc == "U":
            self._need(type(data) is str and len(data) <= SHORT, "it is not a short str")
            return
        self._need(type(data) is bytes and len(data) <= SHORT, "it is not short bytes")
        if desc != "S":
            self._need(self._dtype(desc) == len(data), "its bytes do not fit its dtype")

    def _dtype_node(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._dtype(node[1])

    def _tensor(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        _, name, shape, strides, block, offset, device, flags = node
        itemsize = self._torch_dtype(name)
        self._device(device)
        known = REQUIRES_GRAD | PARAMETER | CONJ | NEG
        self._need(type(flags) is int and flags & ~known == 0, "unknown flags")
        self._need(
            not flags & (CONJ | NEG) or "complex" in name or not flags & CONJ, "a conjugate real tensor"
        )
        self._strided(shape, strides, itemsize, block, offset, itemsize, uses)
        if strides is not None:
            self._need(all(stride >= 0 for stride in strides), "a negative stride")
        if block is None:
            self._need(0 in shape or device == "meta", "elements without a block")

    def _storage(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        _, name, nbytes, block, offset, device = node
        self._device(device)
        if name is not None:
            self._torch_dtype(name)
        self._need(type(nbytes) is int and 0 <= nbytes <= _MAX_BYTES, "a malformed size")
        self._need(type(offset) is int and 0 <= offset <= _MAX_BYTES, "a malformed offset")
        if block is None:
            self._need(offset == 0 and (nbytes == 0 or device == "meta"), "bytes without a block")
        else:
            self._need(nbytes > 0, "a block for no bytes")
            self._block(block, offset + nbytes, uses)

    def _torch_dtype_node(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._torch_dtype(node[1])

    def _device_node(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._device(node[1])

    def _size_node(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._need(
            type(node[1]) is list
            and len(node[1]) <= self._limits.max_dims
            and all(type(n) is int and -(2**63) <= n < 2**63 for n in node[1]),
            "a malformed size",
        )

    def _custom(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        self._need(type(node[1]) is str and 0 < len(node[1]) <= 200, "a malformed name")
        self._refs_of([node[2]], refs)

    def _pickle(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        _, payload, buffers, values, names, n = node
        self._payload(payload, uses)
        for part in (buffers, values, names):
            self._need(type(part) is list, "malformed parts")
            self._size(len(part), 1)
        for buffer in buffers:
            self._need(
                type(buffer) is list and len(buffer) == 4 and type(buffer[3]) is bool, "a malformed buffer"
            )
            block, offset, nbytes, _ = buffer
            self._need(type(offset) is int and 0 <= offset <= _MAX_BYTES, "a malformed offset")
            self._need(type(nbytes) is int and 0 <= nbytes <= _MAX_BYTES, "a malformed size")
            if block is None:
                self._need(nbytes == 0 and offset == 0, "bytes without a block")
            else:
                self._need(nbytes > 0, "a block for no bytes")
                self._block(block, offset + nbytes, uses)
        self._refs_of(values, refs)
        self._need(
            all(type(value) is list for value in values), "a pickle refers to something that is no node"
        )
        self._need(all(type(name) is str for name in names), "a malformed name")
        self._need(type(n) is int and 0 <= n <= self._limits.max_nodes, "a malformed count")

    def _member(self, node: list[Any], refs: list[Ref], uses: list[BlockUse]) -> None:
        _, group, at = node
        if type(group) is not list:
            self._fail("it has no pickle")
        self._refs_of((group,), refs)
        if type(at) is not int or at < 0:
            self._fail("a malformed position")


_Check = Callable[[FieldGraph, list[Any], list[Ref], list[BlockUse]], None]
_SHAPES: dict[str, tuple[int, _Check]] = {
    "list": (2, FieldGraph._sequence),
    "tuple": (2, FieldGraph._sequence),
    "set": (2, FieldGraph._sequence),
    "frozenset": (2, FieldGraph._sequence),
    "dict": (2, FieldGraph._mapping),
    "odict": (3, FieldGraph._odict),
    "int": (2, FieldGraph._bytes),
    "str": (2, FieldGraph._bytes),
    "bytes": (2, FieldGraph._bytes),
    "bytearray": (2, FieldGraph._bytes),
    "complex": (3, FieldGraph._complex),
    "array": (7, FieldGraph._array),
    "scalar": (3, FieldGraph._scalar),
    "dtype": (2, FieldGraph._dtype_node),
    "tensor": (8, FieldGraph._tensor),
    "storage": (6, FieldGraph._storage),
    "torch.dtype": (2, FieldGraph._torch_dtype_node),
    "torch.device": (2, FieldGraph._device_node),
    "torch.Size": (2, FieldGraph._size_node),
    "custom": (3, FieldGraph._custom),
    "pickle": (6, FieldGraph._pickle),
    "member": (3, FieldGraph._member),
}
