"""User metadata and attributes: what may be in them, and numbers of numpy and torch made plain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ckptstore._msgpack import pack
from ckptstore._schema import as_map, as_str, fail
from ckptstore.config import Limits
from ckptstore.errors import ConfigError, LimitExceededError

__all__ = ["check_stored_metadata", "plain_attributes", "plain_metadata"]

_RESERVED = "ckptstore."
_SCALARS = (type(None), bool, int, float, str, bytes)


def plain_metadata(what: str, metadata: Mapping[str, object] | None, limits: Limits) -> dict[str, Any]:
    """Return a copy of ``metadata`` in plain types.

    Single numbers of numpy and torch become Python numbers, tuples become lists.
    Raises ConfigError, naming the entry, for anything that would not come back
    as it went in, and for more bytes or depth than the limits allow.
    """
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise ConfigError(f"{what} must be a mapping, not {type(metadata).__name__}")
    plain: dict[str, Any] = _Copy(what, limits.max_metadata_bytes).of(metadata, limits.max_depth)
    size = len(pack(plain))
    if size > limits.max_metadata_bytes:
        raise _too_large(what, f"takes {size} bytes", limits.max_metadata_bytes)
    return plain


def plain_attributes(attributes: Mapping[str, object] | None, limits: Limits) -> dict[str, Any]:
    """Return a copy of a caller's attributes as ``plain_metadata`` does, none with a name of the store's own.

    Raises ConfigError as that does, and for such a name: what a save notes under
    it, as that it does not build on the newest checkpoint, must be true.
    """
    plain = plain_metadata("attributes", attributes, limits)
    for name in plain:
        if name.startswith(_RESERVED):
            raise ConfigError(
                f"attributes[{name[:80]!r}] has a name of the store's own: those that begin with {_RESERVED!r} are "
                "reserved. Choose another, and leave out what the store noted in an older checkpoint's attributes"
            )
    return plain


def check_stored_metadata(value: Any, path: str, limits: Limits) -> dict[str, Any]:
    """Return metadata that was read, or raise ManifestCorruptError or LimitExceededError."""
    result = as_map(value, path)
    for key, item in result.items():
        _check_stored(item, f"{path}[{as_str(key, path)[:80]!r}]", limits.max_depth - 1)
    size = len(pack(result))
    if size > limits.max_metadata_bytes:
        raise LimitExceededError(
            f"{path}: {size} bytes, at most {limits.max_metadata_bytes} are allowed (Limits.max_metadata_bytes)"
        )
    return result


class _Copy:
    """Copies metadata, and stops as soon as it cannot fit: one list may stand in another many times."""

    def __init__(self, what: str, max_bytes: int) -> None:
        self._what = what
        self._max_bytes = max_bytes
        self._nbytes = 0
        self._way: list[str | int] = []

    def of(self, value: object, depth: int) -> Any:
        if depth < 0:
            raise self._wrong("is nested too deeply (Limits.max_depth)")
        if type(value) in _SCALARS:
            if isinstance(value, (str, bytes)):
                self._count(len(value))
            if isinstance(value, str):
                self._require_utf8(value)
            if type(value) is int and not -(2**63) <= value < 2**64:
                raise self._wrong("is an integer beyond 64 bits")
            return value
        if isinstance(value, Mapping):
            self._count(2 * len(value))
            return dict(self._entries(value, depth - 1))
        if isinstance(value, (list, tuple)):
            self._count(len(value))
            return [self._inner(index, item, depth - 1) for index, item in enumerate(value)]
        item = _number(value)
        if item is not None:
            return self.of(item, depth)
        raise self._wrong(
            f"is a {type(value).__module__}.{type(value).__qualname__}; metadata holds None, bool, int, "
            "float, str, bytes, lists and mappings of these, and single numbers of numpy and torch"
        )

    def _entries(self, mapping: Mapping[Any, object], depth: int) -> Iterator[tuple[str, Any]]:
        for key, item in mapping.items():
            if type(key) is not str:
                raise self._wrong(f"has a key that is not a string: {type(key).__name__}")
            self._count(len(key))
            self._require_utf8(key)
            yield key, self._inner(key, item, depth)

    def _inner(self, step: str | int, value: object, depth: int) -> Any:
        self._way.append(step)
        copy = self.of(value, depth)
        self._way.pop()
        return copy

    def _count(self, nbytes: int) -> None:
        """Count what is sure to be stored: a byte a value, and text."""
        self._nbytes += nbytes
        if self._nbytes > self._max_bytes:
            raise _too_large(self._what, "takes more", self._max_bytes)

    def _require_utf8(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise self._wrong("holds text that is not valid Unicode") from None

    def _wrong(self, what: str) -> ConfigError:
        steps = (step[:80] if isinstance(step, str) else step for step in self._way)
        return ConfigError(f"{self._what}{''.join(f'[{step!r}]' for step in steps)} {what}")


def _too_large(what: str, size: str, limit: int) -> ConfigError:
    return ConfigError(
        f"{what} {size}; at most {limit} bytes are allowed (Limits.max_metadata_bytes): save large values as a field"
    )


def _number(value: Any) -> bool | int | float | str | bytes | None:
    if type(value).__module__.partition(".")[0] not in ("numpy", "torch"):
        return None
    if getattr(value, "shape", None) not in ((), (1,)) or not hasattr(value, "item"):
        return None
    # A time without its unit would be only a number.
    if getattr(getattr(value, "dtype", None), "kind", "") in ("m", "M"):
        return None
    try:
        item = value.item()
    except RuntimeError:  # a tensor without data
        return None
    return item if type(item) in (bool, int, float, str, bytes) else None


def _check_stored(value: Any, path: str, depth: int) -> None:
    if depth < 0:
        raise LimitExceededError(f"{path} is nested too deeply (Limits.max_depth)")
    if type(value) is dict:
        for key, item in value.items():
            as_str(key, path)
            _check_stored(item, path, depth - 1)
    elif type(value) is list:
        for item in value:
            _check_stored(item, path, depth - 1)
    elif type(value) not in _SCALARS:
        fail(path, "plain data", value)
