"""The order in which a set is saved."""

from __future__ import annotations

from typing import Any

from ckptstore import _msgpack
from ckptstore.serializers._nodes import is_short

__all__ = ["stable"]


def stable(values: list[Any]) -> list[Any]:
    """Return a set's elements in an order that does not depend on hashes where one can be found."""
    keyed: list[tuple[bytes, Any]] = []
    rest: list[Any] = []
    for value in values:
        key = _sort_key(value, 8)
        if key is None:
            rest.append(value)
        else:
            keyed.append((key, value))
    keyed.sort(key=lambda pair: pair[0])
    return [value for _, value in keyed] + rest


def _sort_key(value: Any, depth: int) -> bytes | None:
    if is_short(value):
        return _msgpack.pack(value)
    kind = type(value)
    if kind is int or kind is complex:
        return _msgpack.pack(repr(value) if kind is complex else hex(value))
    if kind is str:
        return _msgpack.pack(value.encode("utf-8", "surrogatepass"))
    if kind is bytes:
        return _msgpack.pack(value)
    if (kind is tuple or kind is frozenset) and depth:
        keys = [_sort_key(item, depth - 1) for item in value]
        if None not in keys:
            return _msgpack.pack(sorted(keys) if kind is frozenset else keys)  # type: ignore[type-var]
    return None
