"""User metadata: what may be in it, and numbers of numpy and torch made plain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ckptstore._msgpack import pack
from ckptstore._schema import as_map, as_str, fail
from ckptstore.config import Limits
from ckptstore.errors import ConfigError, LimitExceededError

__all__ = ["check_stored_metadata", "plain_metadata"]

_SCALARS = (type(None), bool, int, float, str, bytes)


def plain_metadata(what: str, metadata: Mapping[str, object] | None, limits: Limits) -> dict[str, Any]:
    """Return a copy of ``metadata`` in plain types.

    Scalars of numpy and torch become Python numbers, tuples become lists.
    Raises ConfigError, naming the entry, for anything that would not come back
    as it went in, and for more bytes or depth than the limits allow.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"{what} must be a mapping, not {type(metadata).__name__}")
    plain = _plain(metadata, what, limits.max_depth)
    try:
        size = len(pack(plain))
    except ValueError as exc:
        raise ConfigError(f"{what} cannot be stored: {exc}") from exc
    if size > limits.max_metadata_bytes:
        raise ConfigError(
            f"{what} takes {size} bytes, at most {limits.max_metadata_bytes} are allowed; "
            "save large values as a field instead"
        )
    return plain  # type: ignore[no-any-return]  # a mapping gives a dict


def check_stored_metadata(value: Any, path: str, depth: int) -> dict[str, Any]:
    """Return metadata that was read, or raise FormatError."""
    result = as_map(value, path)
    _check_stored(result, path, depth)
    return result


def _plain(value: object, path: str, depth: int) -> Any:
    if depth < 0:
        raise ConfigError(f"{path} is nested too deeply")
    if type(value) in _SCALARS:
        if type(value) is int and not -(2**63) <= value < 2**64:
            raise ConfigError(f"{path} is an integer beyond 64 bits")
        if type(value) is str and not value.isascii():
            _require_utf8(value, path)
        return value
    if isinstance(value, Mapping):
        result = {}
        for key, item in value.items():
            if type(key) is not str:
                raise ConfigError(f"{path} has a key that is not a string: {type(key).__name__}")
            _require_utf8(key, path)
            result[key] = _plain(item, f"{path}[{key[:80]!r}]", depth - 1)
        return result
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{index}]", depth - 1) for index, item in enumerate(value)]
    if type(value).__module__.partition(".")[0] in ("numpy", "torch"):
        item = _number(value)
        if item is not None:
            return item
    raise ConfigError(
        f"{path} is a {type(value).__module__}.{type(value).__qualname__}; metadata holds None, bool, int, float, "
        "str, bytes, lists and mappings of these, and single numbers of numpy and torch"
    )


def _number(value: Any) -> bool | int | float | str | bytes | None:
    if getattr(value, "shape", None) not in ((), (1,)) or not hasattr(value, "item"):
        return None
    item = value.item()
    return item if type(item) in (bool, int, float, str, bytes) else None


def _require_utf8(text: str, path: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{path} holds text that is not valid Unicode") from None


def _check_stored(value: Any, path: str, depth: int) -> None:
    if depth < 0:
        raise LimitExceededError(f"{path} is nested too deeply")
    if type(value) is dict:
        for key, item in value.items():
            _check_stored(item, f"{path}[{as_str(key, path)[:80]!r}]", depth - 1)
    elif type(value) is list:
        for item in value:
            _check_stored(item, f"{path}[]", depth - 1)
    elif type(value) not in _SCALARS:
        fail(path, "plain data", value)
