"""Loads into what is there: its memory, what it holds before, and whether it is still the same afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from bench.workloads.compare import Values, bytes_of, is_tensor

__all__ = ["copy_over", "has_memory_of", "one_of", "other_bytes"]


def other_bytes(value: Any) -> Any:
    """The same structure in new memory, every byte of every tensor and array another one."""
    if isinstance(value, dict):
        return {key: other_bytes(item) for key, item in value.items()}
    if is_tensor(value):
        made = value.clone()
    elif isinstance(value, np.ndarray) and value.dtype != object:
        made = value.copy()
    else:
        return list(value) if isinstance(value, list) else value
    flipped = np.frombuffer(bytes_of(made), np.uint8)
    np.bitwise_not(flipped, out=flipped)
    return made


def copy_over(destination: Values, loaded: Values) -> Values:
    """What a loop around `copy_` makes of a load: `destination`, its tensors filled, all else replaced."""
    for key, item in loaded.items():
        if isinstance(item, dict):
            copy_over(destination[key], item)
        elif is_tensor(item):
            destination[key].copy_(item)
        elif isinstance(item, np.ndarray) and item.dtype != object:
            np.copyto(destination[key], item)
        else:
            destination[key] = item
    return destination


def has_memory_of(values: Any, destination: Any) -> bool:
    """Whether every tensor and array lies where the one of the destination does."""
    addresses = [[_address(leaf) for leaf in _leaves(one)] for one in (values, destination)]
    return addresses[0] == addresses[1]


def one_of(values: Values) -> tuple[str, str] | None:
    """Field and key of a tensor of about the mean size, in the first field that is a dict of them; None without one."""
    for field, value in values.items():
        if isinstance(value, dict):
            sizes = {key: item.nbytes for key, item in value.items() if hasattr(item, "nbytes")}
            if sizes:
                mean = sum(sizes.values()) / len(sizes)
                return field, min(sizes, key=lambda key: abs(sizes[key] - mean))
    return None


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif is_tensor(value) or (isinstance(value, np.ndarray) and value.dtype != object):
        yield value


def _address(leaf: Any) -> int:
    return int(leaf.data_ptr() if is_tensor(leaf) else leaf.ctypes.data)
