"""numpy arrays, scalars and dtypes as nodes, and back. numpy is imported only when a value brings it."""

from __future__ import annotations

from typing import Any

from ckptstore.serializers._nodes import is_short
from ckptstore.serializers.dtypes import Description, describe, plane_width, rebuild
from ckptstore.serializers.graph import SHORT
from ckptstore.serializers.memory import Extent

__all__ = [
    "Dtypes",
    "array_extent",
    "encode_array",
    "encode_scalar",
    "restore_array",
    "restore_scalar",
    "strided_range",
    "whole",
]


class Dtypes:
    """The descriptions of the dtypes met in one dump.

    Keyed by identity: numpy dtypes that differ in metadata, titles or
    alignment can be equal. Holding the dtype keeps its id from being reused.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Any, Description | None]] = {}

    def describe(self, dtype: Any) -> Description | None:
        """Return the description of a numpy dtype, or None if it has none."""
        entry = self._known.get(id(dtype))
        if entry is None:
            entry = self._known[id(dtype)] = (dtype, describe(dtype))
        return entry[1]


def strided_range(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Return the first and one past the last byte of the elements, from the element with index zero.

    ``strides`` are in bytes. No element means (0, 0).
    """
    low, high = 0, itemsize
    for n, stride in zip(shape, strides, strict=True):
        if n == 0:
            return 0, 0
        if stride < 0:
            low += (n - 1) * stride
        else:
            high += (n - 1) * stride
    return low, high


def array_extent(array: Any, desc: Description) -> Extent | None:
    """Return the memory of an exact ndarray with a described dtype, None if it has no bytes."""
    shape, strides, itemsize = array.shape, array.strides, array.itemsize
    low, high = strided_range(shape, strides, itemsize)
    if high == low:
        return None
    extent = Extent(
        array.__array_interface__["data"][0] + low, high - low, owner=array, width=plane_width(desc)
    )
    if high - low > array.nbytes:
        extent.compact = lambda: _compact(array)
    return extent


def _compact(array: Any) -> memoryview:
    import numpy as np

    flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return memoryview(flat)


def encode_array(array: Any, desc: Description, extent: Extent | None, block: Any) -> list[Any]:
    """Return the node of ``array``; ``block`` is the reference to its extent's block."""
    shape = list(array.shape)
    writeable = bool(array.flags.writeable)
    if extent is None or extent.region is None:
        return ["array", desc, shape, None, None, 0, writeable]
    if extent.region.compacted:
        return ["array", desc, shape, None, block, 0, writeable]
    strides = None if array.flags.c_contiguous else list(array.strides)
    offset = array.__array_interface__["data"][0] - extent.region.start
    return ["array", desc, shape, strides, block, offset, writeable]


def encode_scalar(scalar: Any, desc: Description) -> list[Any] | None:
    """Return the node of a numpy scalar, or None if it would not come back the same."""
    kind = scalar.dtype.kind
    if kind in "US":
        # Not their bytes as an array: numpy pads with zeros and cannot tell them from the value's own.
        item = str.__str__(scalar) if kind == "U" else bytes.__getitem__(scalar, slice(None))
        return ["scalar", kind, item] if is_short(item) else None
    data = scalar.tobytes()
    return ["scalar", desc, data] if len(data) <= SHORT else None


def whole(memory: memoryview) -> Any:
    """Return all of a block as an array of bytes."""
    import numpy as np

    return np.frombuffer(memory, np.uint8)


def restore_array(node: list[Any], memory: Any) -> Any:
    """Return the array of a checked node, a view of ``memory``, an array of bytes; None if it has no elements."""
    import numpy as np

    _, desc, shape, strides, _, offset, writeable = node
    dtype = rebuild(desc)
    if memory is None:
        array = np.empty(shape, dtype)
    else:
        array = np.ndarray(shape, dtype, buffer=memory, offset=offset, strides=strides)
    if not writeable:
        array.flags.writeable = False
    return array


def restore_scalar(node: list[Any]) -> Any:
    """Return the numpy scalar of a checked node."""
    import numpy as np

    _, desc, data = node
    if desc == "U":
        return np.str_(data)
    if desc == "S":
        return np.bytes_(data)
    # A structured scalar is a writable view of this array.
    return np.ndarray((), rebuild(desc), buffer=bytearray(data))[()]
