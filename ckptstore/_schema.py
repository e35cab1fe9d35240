"""Small checks that turn a decoded structure into typed values, naming the path of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from ckptstore.errors import ManifestCorruptError

__all__ = [
    "INT64_MAX",
    "as_bytes",
    "as_hex",
    "as_int",
    "as_ints",
    "as_list",
    "as_lists",
    "as_map",
    "as_optional",
    "as_str",
    "as_strs",
    "fail",
]

T = TypeVar("T")
INT64_MAX = 2**63 - 1


def fail(path: str, expected: str, found: object) -> NoReturn:
    raise ManifestCorruptError(f"{path}: expected {expected}, found {type(found).__name__}")


def as_map(value: Any, path: str, keys: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return a map; with ``keys`` it must have exactly these."""
    if type(value) is not dict:
        fail(path, "a map", value)
    if keys is not None and set(value) != set(keys):
        missing = sorted(set(keys) - set(value))
        extra = sorted(key[:40] for key in set(value) - set(keys))
        raise ManifestCorruptError(f"{path}: missing keys {missing}, unknown keys {extra[:5]}")
    return value


def as_list(value: Any, path: str, length: int | None = None) -> list[Any]:
    if type(value) is not list:
        fail(path, "a list", value)
    if length is not None and len(value) != length:
        raise ManifestCorruptError(f"{path}: expected {length} elements, found {len(value)}")
    return value


def as_int(value: Any, path: str, low: int = 0, high: int = INT64_MAX) -> int:
    if type(value) is not int:
        fail(path, "an integer", value)
    if not low <= value <= high:
        raise ManifestCorruptError(f"{path}: {value} is not from {low} to {high}")
    return value


def as_str(value: Any, path: str) -> str:
    if type(value) is not str:
        fail(path, "a string", value)
    return value


def as_bytes(value: Any, path: str, length: int | None = None) -> bytes:
    if type(value) is not bytes:
        fail(path, "bytes", value)
    if length is not None and len(value) != length:
        raise ManifestCorruptError(f"{path}: expected {length} bytes, found {len(value)}")
    return value


def as_hex(value: Any, path: str, digits: int) -> str:
    text = as_str(value, path)
    if not re.fullmatch(rf"[0-9a-f]{{{digits}}}", text):
        raise ManifestCorruptError(f"{path}: expected {digits} hex digits")
    return text


def as_optional(check: Callable[[Any, str], T], value: Any, path: str) -> T | None:
    return None if value is None else check(value, path)


# A hundred thousand at once: the place of one is spelled only where it is wrong. ``path`` has ``{}`` for its number.


def as_ints(values: Sequence[Any], path: str, low: int = 0, high: int = INT64_MAX) -> Sequence[int]:
    if not values or (set(map(type, values)) == {int} and low <= min(values) and max(values) <= high):
        return values
    return [as_int(value, path.format(i), low, high) for i, value in enumerate(values)]


def as_strs(values: Sequence[Any], path: str) -> Sequence[str]:
    if set(map(type, values)) <= {str}:
        return values
    return [as_str(value, path.format(i)) for i, value in enumerate(values)]


def as_lists(values: Sequence[Any], path: str, length: int | None = None) -> Sequence[list[Any]]:
    if set(map(type, values)) <= {list} and (length is None or set(map(len, values)) <= {length}):
        return values
    return [as_list(value, path.format(i), length) for i, value in enumerate(values)]
