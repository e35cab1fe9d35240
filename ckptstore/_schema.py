"""Small checks that turn a decoded structure into typed values, naming the path of what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from ckptstore.errors import ManifestCorruptError

__all__ = ["INT64_MAX", "as_bytes", "as_hex", "as_int", "as_list", "as_map", "as_optional", "as_str", "fail"]

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
