"""msgpack in one strict dialect: maps have unique string keys, there are no extension types."""

from __future__ import annotations

from typing import Any

import msgpack

from ckptstore.errors import ManifestCorruptError

__all__ = ["pack", "unpack"]


def pack(value: object) -> bytes:
    """Return ``value`` in the dialect: None, bool, int, float, str, bytes, list or tuple, dict."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, strict_types=False)
    return packed


def unpack(data: bytes | bytearray | memoryview, *, what: str, max_items: int) -> Any:
    """Return the one value that ``data`` holds; ``what`` names it in errors.

    At most ``max_items`` elements in any one array or map. Types beyond the
    dialect that msgpack knows (timestamps) are left to the schema check, which
    knows where they stand.

    Raises ManifestCorruptError for anything that is not exactly one value of the dialect.
    """
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            object_pairs_hook=_unique_str_keys,
            ext_hook=_refuse_ext,
            max_array_len=max_items,
            max_map_len=max_items,
            max_ext_len=0,
        )
    except ManifestCorruptError as exc:
        raise ManifestCorruptError(f"{what}: {exc}") from None
    except RecursionError:
        raise ManifestCorruptError(f"{what}: nested too deeply") from None
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as exc:
        raise ManifestCorruptError(f"{what}: not the expected msgpack ({type(exc).__name__})") from exc


def _unique_str_keys(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ManifestCorruptError("a map repeats a key")
    if not all(type(key) is str for key in result):
        raise ManifestCorruptError("a map has a key that is not a string")
    return result


def _refuse_ext(code: int, data: bytes) -> Any:
    raise ManifestCorruptError(f"extension type {code}")
