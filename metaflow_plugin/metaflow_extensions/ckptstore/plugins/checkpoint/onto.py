"""Setting the attributes of any object: all of them, or none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from .errors import CheckpointException

__all__ = ["attributes_set"]

_ABSENT = object()


@contextlib.contextmanager
def attributes_set(target: object, values: Mapping[str, Any]) -> Iterator[None]:
    """Set the values as attributes of ``target``, for good if the block ends well; else all are as before.

    Raises CheckpointException, naming the attribute, if one cannot be set.
    """
    before: dict[str, Any] = {}
    try:
        for name, value in values.items():
            before[name] = _own(target, name)
            try:
                setattr(target, name, value)
            except Exception as error:
                raise CheckpointException(
                    f"attribute {name!r} of {type(target).__name__} cannot be set, so nothing was changed: "
                    f"{type(error).__name__}: {error}"
                ) from error
        yield
    except BaseException:
        for name, old in reversed(before.items()):
            _put_back(target, name, old)
        raise


def _own(target: object, name: str) -> Any:
    """Return what the object itself has under a name, not what it gets from its class."""
    own = getattr(target, "__dict__", {})
    if name in own:
        return own[name]
    is_descriptor = hasattr(type(getattr(type(target), name, None)), "__set__")
    return getattr(target, name, _ABSENT) if is_descriptor else _ABSENT


def _put_back(target: object, name: str, old: Any) -> None:
    # What could not be set cannot be set back or deleted either.
    with contextlib.suppress(Exception):
        if old is _ABSENT:
            delattr(target, name)
        else:
            setattr(target, name, old)
