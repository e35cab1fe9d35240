"""What changed from one checkpoint to another, as ``diff`` answers.

    diff = store.diff(older, newer)
    print(diff)
    [leaf.path for leaf in diff.fields["model"].leaves if leaf.state == "changed"]

Equal means equal bytes. The same object may be pickled to other bytes; then it
counts as changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ckptstore.checkpoint import Checkpoint, FieldInfo, LeafInfo

__all__ = ["Diff", "FieldDiff", "LeafDiff", "MetadataDiff", "State"]

State = Literal["added", "removed", "changed", "same"]

_MAX_LINES = 20
_MAX_TEXT = 60


@dataclass(frozen=True, slots=True)
class LeafDiff:
    """One array or tensor of a field: ``before`` and ``after`` tell dtype, shape and size, None where it is not.

    It is ``same`` if dtype, shape and all its elements are. Where a path leads
    to an object that has another place in front of it, in both checkpoints, it
    is listed there alone.
    """

    path: str
    state: State
    before: LeafInfo | None
    after: LeafInfo | None

    def __str__(self) -> str:
        sides = [f"{leaf.dtype} {leaf.shape}" for leaf in (self.before, self.after) if leaf is not None]
        return f"{self.path or '(the field itself)'}  {self.state}  {' -> '.join(dict.fromkeys(sides))}"


@dataclass(frozen=True, slots=True)
class FieldDiff:
    """One saved value: ``before`` and ``after`` tell its type and bytes, None where it is not.

    It is ``same`` if its type is and all that the checkpoints store for it.
    What it shares with a field before it belongs to that one.
    """

    name: str
    state: State
    before: FieldInfo | None
    after: FieldInfo | None
    leaves: tuple[LeafDiff, ...]

    def __str__(self) -> str:
        known = [field for field in (self.before, self.after) if field is not None]
        types = " -> ".join(dict.fromkeys(field.type_name for field in known))
        sizes = " -> ".join(dict.fromkeys(_bytes(field.raw_bytes) for field in known))
        counts = Counter(leaf.state for leaf in self.leaves)
        leaves = ", ".join(
            f"{counts[state]} {state}" for state in ("added", "removed", "changed") if counts[state]
        )
        total = f"; of {len(self.leaves)} arrays {leaves}" if leaves else ""
        return f"{self.name}  {self.state}  {types}  {sizes}{total}"


@dataclass(frozen=True, slots=True)
class MetadataDiff:
    """One value of the metadata that is not the same; None where it is not there."""

    name: str
    state: State
    before: Any
    after: Any

    def __str__(self) -> str:
        sides = {"added": (self.after,), "removed": (self.before,)}.get(self.state, (self.before, self.after))
        return f"{self.name}  {self.state}  {' -> '.join(map(_short, sides))}"


@dataclass(frozen=True, slots=True)
class Diff:
    """What changed from ``before`` to ``after``.

    ``fields`` are those of both, in the order of ``after`` and then of what was
    removed; ``metadata`` holds what is not the same. ``shared_bytes`` are the
    stored bytes of the chunks that both checkpoints use and the storage holds
    once.
    """

    before: Checkpoint
    after: Checkpoint
    fields: dict[str, FieldDiff]
    metadata: dict[str, MetadataDiff]
    shared_bytes: int

    @property
    def same(self) -> bool:
        """True if all fields and all metadata are the same."""
        return not self.metadata and all(field.state == "same" for field in self.fields.values())

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"{_named(self.before)} -> {_named(self.after)}"
        changed = [field for field in self.fields.values() if field.state != "same"]
        for field in changed:
            yield f"  {field}"
            yield from _some("    ", [leaf for leaf in field.leaves if leaf.state != "same"])
        if len(self.fields) > len(changed):
            names = ", ".join(field.name for field in self.fields.values() if field.state == "same")
            yield f"  same: {_cut(names, 4 * _MAX_TEXT)}"
        if self.metadata:
            yield "  metadata"
            yield from _some("    ", list(self.metadata.values()))
        yield f"  {_bytes(self.shared_bytes)} of {_bytes(self.after.sizes.stored_bytes)} stored are shared"


def _some(indent: str, items: Sequence[object]) -> Iterator[str]:
    for item in items[:_MAX_LINES]:
        yield f"{indent}{item}"
    if len(items) > _MAX_LINES:
        yield f"{indent}and {len(items) - _MAX_LINES} more"


def _named(checkpoint: Checkpoint) -> str:
    label = f" {checkpoint.label!r}" if checkpoint.label else ""
    return f"{checkpoint.collection}{label} ({checkpoint.epoch}, {checkpoint.seq})"


def _short(value: object) -> str:
    return _cut(repr(value), _MAX_TEXT)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _bytes(n: int) -> str:
    size, unit = float(n), "bytes"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{n} bytes" if unit == "bytes" else f"{size:.1f} {unit}"
