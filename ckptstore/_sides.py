"""The checkpoint's side of a match: what its graphs tell before the data is there, and its values then."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ckptstore.checkpoint import FieldInfo, LeafInfo
from ckptstore.serializers import LeafSpec, Outline, destination

__all__ = ["Found", "OutlineSide", "Side", "ValueSide", "kind_of"]


class Found(NamedTuple):
    """One value of the checkpoint: a container's ``kind`` and ``entries``, or an array's ``leaf``, or neither.

    ``partly``: not all keys of a dict are known.
    """

    leaf: LeafSpec | None = None
    kind: str = ""
    entries: dict[Any, Any] | Sequence[Any] = ()
    partly: bool = False


class Side(Protocol):
    """The checkpoint's side of a match: its graphs before the data is there, its values then.

    ``exact``: what a saved module holds is known for sure.
    """

    exact: bool

    def look(self, source: Any) -> Found:
        """Return what a value is."""

    def identity(self, source: Any) -> object:
        """Return what is equal for the same object."""

    def tensors(self, field: str, source: Any, path: str) -> Mapping[str, Any] | None:
        """Return what a saved module holds by name, as far as that is known; None if it can be no module."""


class OutlineSide:
    """A checkpoint before its data was read."""

    exact = False

    def __init__(self, outline: Outline, fields: Mapping[str, FieldInfo]) -> None:
        self._outline = outline
        self._fields = fields

    def look(self, source: Any) -> Found:
        """Return what the graphs say, or the manifest of an array inside a pickled object."""
        if isinstance(source, LeafInfo):
            return Found(LeafSpec(source.kind, source.dtype, source.shape, source.nbytes))
        leaf = self._outline.leaf(source)
        entries = None if leaf is not None else self._outline.entries(source)
        if entries is None or source.ref is None:
            return Found(leaf)
        tag = self._outline.tag(source)
        n = len(self._outline.node(source.ref)[1]) // (2 if isinstance(entries, dict) else 1)
        return Found(None, "dict" if tag == "odict" else tag, entries, len(entries) < n)

    def identity(self, source: Any) -> object:
        """Return the node."""
        return source.ref

    def tensors(self, field: str, source: Any, path: str) -> Mapping[str, Any] | None:
        """Return what the manifest lists: it may lack some, and may tell more than parameters and buffers."""
        if self._outline.tag(source) not in ("pickle", "member"):
            return None
        start = f"{path}." if path else ""
        leaves = self._fields[field].leaves
        return {leaf.path.removeprefix(start): leaf for leaf in leaves if leaf.path.startswith(start)}


class ValueSide:
    """The built values of a checkpoint."""

    exact = True

    def look(self, source: Any) -> Found:
        """Return what a value is."""
        kind = kind_of(source)
        return Found(None, kind, source) if kind else Found(destination.leaf_of(source))

    def identity(self, source: Any) -> object:
        """Return its id: all values are kept while they are matched."""
        return id(source)

    def tensors(self, field: str, source: Any, path: str) -> Mapping[str, Any] | None:
        """Return the parameters and buffers of a module."""
        return destination.tensors_of(source, persistent=False) if destination.is_module(source) else None


def kind_of(value: Any) -> str:
    """Return the kind of a plain container, ``""`` for anything else."""
    kind = type(value)
    if kind in (dict, OrderedDict):
        return "dict"
    return kind.__name__ if kind in (list, tuple) else ""
