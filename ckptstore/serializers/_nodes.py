"""What a dump knows of each object that becomes a node, and how types are told apart."""

from __future__ import annotations

import enum
import sys
from collections import OrderedDict
from collections.abc import Sequence
from types import BuiltinFunctionType, FunctionType
from typing import TYPE_CHECKING, Any

from ckptstore.serializers.graph import SHORT

if TYPE_CHECKING:
    from ckptstore.serializers.memory import Extent, Region
    from ckptstore.serializers.pickling import Unit
    from ckptstore.serializers.registry import Registry

__all__ = ["FREE", "Node", "Types", "Verdicts", "is_short"]

FREE = frozenset({type(None), bool, float})
"""Types that always stand for themselves in a graph."""


class Node:
    """One object of the dump. ``items`` are its values, in which a Node stands for a reference."""

    __slots__ = (
        "encoded",
        "extents",
        "field",
        "index",
        "items",
        "kids",
        "order",
        "region",
        "tag",
        "unit",
        "value",
        "where",
    )

    def __init__(self, tag: str, value: Any, order: int, where: frozenset[int] = frozenset()) -> None:
        self.tag = tag
        self.value = value
        self.order = order
        """Position in the order of discovery."""
        self.where = where
        """The fields that are known to reach it, by number."""
        # There may be a million nodes, and most of them hold nothing.
        self.items: Sequence[Any] = ()
        self.kids: Sequence[Node] = ()
        self.encoded: Any = None
        """What else the tag needs: a description, a name, attributes, a place in the pickle."""
        self.extents: Sequence[Extent | None] = ()
        self.region: Region | None = None
        self.unit: Unit | None = None
        self.field = -1
        self.index = -1


def is_short(value: Any) -> bool:
    """Whether a scalar stands for itself in a graph."""
    kind = type(value)
    if kind in FREE:
        return True
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if kind is str:
        if len(value) > SHORT:
            return False
        if value.isascii():
            return True
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    return kind is bytes and len(value) <= SHORT


_EXACT = {
    list: "list",
    tuple: "tuple",
    dict: "dict",
    set: "set",
    frozenset: "frozenset",
    OrderedDict: "odict",
    int: "int",
    complex: "complex",
    str: "str",
    bytes: "bytes",
    bytearray: "bytearray",
}

# Inside a pickle these travel as pickle sees fit: they cannot change, so nobody can tell a copy from the
# original. Everything else is watched for being shared.
_VALUES = frozenset({"int", "complex", "str", "bytes", "scalar", "dtype"}) | {
    "torch.dtype",
    "torch.device",
    "torch.Size",
}
_STDLIB_VALUES = frozenset(
    {("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")}
    | {
        ("builtins", "range"),
        ("builtins", "slice"),
        ("builtins", "ellipsis"),
        ("builtins", "NotImplementedType"),
        ("builtins", "method"),
        ("builtins", "PickleBuffer"),
        ("pickle", "PickleBuffer"),
        ("_pickle", "PickleBuffer"),
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        ("re", "Pattern"),
    }
)


class Types:
    """The tag of every type met in one dump; numpy and torch count only if something imported them."""

    def __init__(self, registry: Registry) -> None:
        self._tags: dict[type[Any], str] = dict(_EXACT)
        for cls in registry.types():
            self._tags[cls] = "custom"

    def tag(self, kind: type[Any]) -> str:
        """Return the tag of a type; arrays, scalars, dtypes and tensors may still turn out to need a pickle."""
        tag = self._tags.get(kind)
        if tag is None:
            tag = self._tags[kind] = _foreign_tag(kind)
        return tag


class Verdicts(dict[type[Any], "str | None"]):
    """By type, what to do with an object that a pickle reaches.

    None leaves it alone; ``leaf`` is always a node; ``watch`` becomes one if it
    is shared; ``keep`` stays outside only if it is a node already. A pickler
    asks for every object: what is known costs no call.
    """

    def __init__(self, types: Types) -> None:
        self._types = types

    def __missing__(self, kind: type[Any]) -> str | None:
        verdict = self[kind] = self._judge(kind)
        return verdict

    def _judge(self, kind: type[Any]) -> str | None:
        if kind is tuple or kind is frozenset:
            return "keep"
        tag = self._types.tag(kind)
        if kind in FREE or tag in _VALUES:
            return None
        if issubclass(kind, (type, enum.Enum)) or kind in (FunctionType, BuiltinFunctionType):
            return None
        if (kind.__module__, kind.__name__) in _STDLIB_VALUES:
            return None
        return "leaf" if tag in ("array", "tensor", "storage", "custom") else "watch"


def _foreign_tag(kind: type[Any]) -> str:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if kind is numpy.ndarray:
            return "array"
        if issubclass(kind, numpy.dtype):
            return "dtype"
        if issubclass(kind, numpy.generic) and kind.__module__ == "numpy":
            return "scalar"
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "nn"):
        if kind is torch.Tensor or kind is torch.nn.Parameter:
            return "tensor"
        if kind is torch.UntypedStorage or kind is torch.storage.TypedStorage:
            return "storage"
        for name in ("dtype", "device", "Size"):
            if kind is getattr(torch, name):
                return f"torch.{name}"
    return "pickle"
