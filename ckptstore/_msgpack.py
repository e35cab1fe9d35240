"""msgpack in one strict dialect: maps have unique string keys, there are no extension types."""

from __future__ import annotations

from typing import Any

import msgpack

from ckptstore.errors import LimitExceededError, ManifestCorruptError

__all__ = ["pack", "unpack"]

_WEIGHT = 3


def pack(value: object) -> bytes:
    """Return ``value`` in the dialect: None, bool, int, float, str, bytes, list or tuple, dict."""
    packed: bytes = msgpack.packb(value, use_bin_type=True, strict_types=False)
    return packed


def unpack(
    data: bytes | bytearray | memoryview, *, what: str, max_items: int, max_values: int | None = None
) -> Any:
    """Return the one value that ``data`` holds; ``what`` names it in errors.

    At most ``max_items`` elements in any one array or map, and ``max_values`` in
    all of them together (None: any number), where an array or map counts four
    times: one byte of data may be an empty map, which takes ninety of memory.

    Raises ManifestCorruptError for anything that is not exactly one value of
    the dialect, and LimitExceededError for more than ``max_items`` or ``max_values``.
    """
    left = 0 if max_values is None else max_values

    def count(n: int) -> None:
        nonlocal left
        left -= n
        if max_values is not None and left < 0:
            raise LimitExceededError(f"more than {max_values} values (Limits.max_nodes)")

    def counted_list(items: list[Any]) -> list[Any]:
        count(_WEIGHT + len(items))
        return items

    def counted_map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        count(_WEIGHT + 2 * len(pairs))
        return _unique_str_keys(pairs)

    # Each element takes a byte at least, so a length beyond the data lies, and short data need not be counted.
    max_items = min(max_items, len(data))
    if max_values is not None and (1 + _WEIGHT) * len(data) <= max_values:
        max_values = None
    try:
        return msgpack.unpackb(
            data,
            raw=False,
            use_list=True,
            strict_map_key=True,
            object_pairs_hook=counted_map,
            list_hook=None if max_values is None else counted_list,
            ext_hook=_refuse_ext,
            max_array_len=max_items,
            max_map_len=max_items,
            max_ext_len=0,
        )
    except (LimitExceededError, ManifestCorruptError) as exc:
        raise type(exc)(f"{what}: {exc}") from None
    except MemoryError:
        raise ManifestCorruptError(f"{what}: asks for more memory than there is") from None
    except RecursionError:
        raise ManifestCorruptError(f"{what}: nested too deeply") from None
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as exc:
        # msgpack has no class of its own for a container that is too long.
        if max_items < len(data) and ("max_array_len" in str(exc) or "max_map_len" in str(exc)):
            raise LimitExceededError(
                f"{what}: a list or map has more than {max_items} elements (Limits.max_nodes)"
            ) from exc
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
