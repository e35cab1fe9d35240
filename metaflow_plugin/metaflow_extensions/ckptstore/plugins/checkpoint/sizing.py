"""How large a state is, by the arrays and tensors in it: a guess that costs little and runs none of its code."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

__all__ = ["array_bytes"]

_MAX_OBJECTS = 100_000


def array_bytes(values: Iterable[object]) -> int:
    """Return about how many bytes the arrays and tensors hold that can be reached from ``values``.

    It looks into the built-in containers and the attributes of objects, and
    only at the first 100,000 of them.
    """
    arrays = tuple(
        getattr(sys.modules[module], name)
        for module, name in (("numpy", "ndarray"), ("torch", "Tensor"))
        if module in sys.modules
    )
    stack: list[Any] = list(values)
    seen: set[int] = set()
    total = 0
    while stack and len(seen) < _MAX_OBJECTS:
        value = stack.pop()
        if id(value) in seen or isinstance(value, (str, bytes, int, float, type, ModuleType)):
            continue
        seen.add(id(value))
        if isinstance(value, arrays):
            total += value.nbytes
        elif isinstance(value, dict):
            stack.extend(dict.values(value))
        elif isinstance(value, (list, tuple, set, frozenset)):
            stack.extend(value)
        else:
            stack.extend(_attributes(value).values())
    return total


def _attributes(value: object) -> dict[str, Any]:
    try:
        found = object.__getattribute__(value, "__dict__")
    except AttributeError:
        return {}
    return found if type(found) is dict else {}
