"""What a state's bytes are, and whether two states are the same."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["Values", "bytes_of", "is_tensor", "raw_buffers", "same"]

Values = dict[str, Any]


def is_tensor(value: object) -> bool:
    """Whether it is a torch.Tensor, without importing torch."""
    return type(value).__module__ == "torch" and type(value).__name__ == "Tensor"


def bytes_of(leaf: Any) -> memoryview:
    """The memory of a contiguous tensor or array."""
    if is_tensor(leaf):
        torch: Any = importlib.import_module("torch")
        return memoryview(leaf.reshape(-1).view(torch.uint8).numpy())
    return memoryview(leaf.reshape(-1).view(np.uint8))


def _equal(first: memoryview, second: memoryview) -> bool:
    """As ``==``, ten times as fast: by words."""
    words = first.nbytes // 8 * 8
    return (
        first.nbytes == second.nbytes
        and bool(np.array_equal(np.frombuffer(first[:words], "i8"), np.frombuffer(second[:words], "i8")))
        and first[words:] == second[words:]
    )


def raw_buffers(values: Values) -> list[memoryview]:
    """The bytes of the state without a copy of the large ones: what any system has to move.

    Tensors and arrays as they lie in memory; all else as pickle 5 writes it,
    its out-of-band buffers (a frame's columns) apart.
    """
    buffers: list[memoryview] = []
    rest: list[object] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif is_tensor(value):
            buffers.append(bytes_of(value))
        elif isinstance(value, np.ndarray) and value.dtype != object:
            buffers.append(bytes_of(np.ascontiguousarray(value)))
        else:
            rest.append(value)

    walk(values)
    out_of_band: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(rest, protocol=5, buffer_callback=out_of_band.append)
    buffers.append(memoryview(stream))
    buffers.extend(buffer.raw() for buffer in out_of_band)
    return [buffer for buffer in buffers if buffer.nbytes]


def _pairs(first: Any, second: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(first, dict):
        return zip(first.values(), second.values(), strict=True)
    return zip(first, second, strict=True)


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal: types, dtypes, keys in order, and every bit of every array."""
    if type(first) is not type(second):
        return False
    if is_tensor(first):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and _equal(bytes_of(first), bytes_of(second))
        )
    if isinstance(first, np.ndarray):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and _equal(*(bytes_of(np.ascontiguousarray(array)) for array in (first, second)))
        )
    if isinstance(first, dict) and list(first) != list(second):
        return False
    if isinstance(first, dict | list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in _pairs(first, second))
    if hasattr(first, "equals"):
        return bool(first.equals(second))
    return bool(first == second)
