"""The graph of one field: values as nodes of msgpack, their bytes in blocks beside it.

All fields of a checkpoint are one object graph, cut by field so that an
unchanged field has unchanged bytes. The graph of a field is one msgpack value

    [root, [node, node, ...]]

where ``root`` is a value and nodes are numbered from 0. A value is

    nil, bool, int, float, str, bytes      itself (str and bytes: at most 256 long)
    [id]                                   a node of this field
    [field, id]                            a node of another field

and is shallow however deep the user's data nests. A node belongs to the first
field, in the order of the save, that reaches it, so every node of a field can
be reached inside that field, from its root. Blocks are numbered per field; a
block reference is an int (this field) or ``[field, int]``. A payload is bytes
(at most 256) or the number of a block of this field, taken whole.

    ["list", [value...]]        ["tuple", [value...]]
    ["set", [value...]]         ["frozenset", [value...]]
    ["dict", [key, value, ...]]                 in insertion order
    ["odict", [key, value, ...], [name, value, ...]]   OrderedDict, its attributes
    ["int", payload]            two's complement, little-endian
    ["complex", real, imag]     ["bytes", payload]      ["bytearray", payload]
    ["str", payload]            UTF-8, lone surrogates allowed
    ["array", dtype, shape, strides, block, offset, writeable]
    ["scalar", dtype, bytes]    a numpy scalar; dtype "U" and "S": a str or bytes value
    ["dtype", dtype]            a numpy dtype
    ["tensor", name, shape, strides, block, offset, device, flags]
    ["storage", name, nbytes, block, offset, device]   name nil: untyped, nbytes always bytes
    ["torch.dtype", name]       ["torch.device", str]   ["torch.Size", [int...]]
    ["custom", name, value]     a registered type and its state
    ["pickle", payload, [buffer...], [value...], [global...], n]
    ["member", value, i]        object i of a pickle of n objects

``array``: strides in bytes, may be negative or 0; nil for C order. ``tensor``:
strides in elements, nil for C order; flags 1 requires_grad, 2 Parameter,
4 conjugate bit, 8 negative bit; block nil with a positive number of elements
only on the ``meta`` device. Offsets are in bytes, of the element with index
zero. Nothing with 0 bytes has a block. Elements of tensors and storages are
little-endian.

A dtype is a numpy type string (``<f8``, ``|S3``, ``<M8[ns]``; native is never
written as ``=``), or ``["sub", dtype, shape]``, or ``["struct", names, dtypes,
offsets, titles, itemsize, aligned]`` (titles: str or nil each). There is no
object dtype. ``f16`` and ``c32`` are the saving machine's long double and load
only where numpy has the same.

``pickle`` is a pickle of protocol 5. Its persistent ids are ints, positions in
the list of values; its out-of-band buffers are ``[block, offset, nbytes,
readonly]``. With n = 0 it holds one object, else a tuple of n objects: those
of a cycle, or small ones of one type. Globals are the names its stream imports,
for information. Cycles never run through a pickle or a custom node.
"""

from __future__ import annotations

__all__ = [
    "CONJ",
    "NEG",
    "PARAMETER",
    "REQUIRES_GRAD",
    "SHORT",
]

SHORT = 256
"""Longest str (characters) and bytes that stand in the graph; longer ones are blocks."""

REQUIRES_GRAD = 1
PARAMETER = 2
CONJ = 4
NEG = 8
