"""Where the loops of a step are: what a checkpoint says of them, and what the running ones say.

The field ``loop/`` holds plain data: ``version`` 1, ``loops``, a tree of names
to ``finished`` (iterations), ``over`` (nothing is left to do, whatever the
length) and ``inner`` (the loops in the body of the one under way), and ``at``:
the names, from the outermost, of the loop that had begun last.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import CheckpointException

__all__ = ["Node", "Position", "Positions", "Status"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Position:
    """How far a loop was when a checkpoint was saved."""

    finished: int
    over: bool
    inner: Mapping[str, Position]

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"finished": self.finished, "over": self.over, "inner": _plain(self.inner)}


@dataclass(frozen=True, slots=True)
class Positions:
    """How far all loops were."""

    loops: Mapping[str, Position]
    at: tuple[str, ...]

    @classmethod
    def from_plain(cls, value: object) -> Positions:
        """Return what the field of a checkpoint says. Raises CheckpointException if it is not ours."""
        if isinstance(value, Mapping) and value.get("version") not in (VERSION, None):
            raise CheckpointException(
                f"the loops of this checkpoint are noted in version {value['version']!r}, this release reads "
                f"version {VERSION}. Update ckptstore to go on with them."
            )
        try:
            return cls(_positions(value["loops"]), tuple(value["at"]))  # type: ignore[index]
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointException(
                "the loops of this checkpoint are not noted as ckptstore does it: it is damaged, or was "
                "written by something else."
            ) from error


class Status(enum.Enum):
    """What a loop does."""

    NEW = enum.auto()
    BETWEEN = enum.auto()
    """No iteration is under way: the state is that of a boundary."""
    BODY = enum.auto()
    ENDED = enum.auto()
    """By its end or by break."""
    LEFT = enum.auto()
    """Its iterator is gone in the middle of an iteration, it may be by an exception."""


@dataclass(slots=True, eq=False)
class Node:
    """A loop of the running step; the root stands for the step itself."""

    name: str
    parent: Node | None
    status: Status = Status.NEW
    finished: int = 0
    over: bool = False
    inner: dict[str, Node] = field(default_factory=dict)
    expected: dict[str, Position] = field(default_factory=dict)
    """What the restored checkpoint says of inner loops that have not begun yet."""
    current: Node | None = None
    """The inner loop that has begun last."""

    def add(self, name: str | None) -> Node | None:
        """Return a new inner loop, called by its number if it has no name; None if the name is taken."""
        name = f"#{len(self.inner) + 1}" if name is None else name
        if name in self.inner:
            return None
        node = self.inner[name] = Node(name, self)
        return node

    def begin(self) -> None:
        """Take up the loop where the restored checkpoint says; its predecessor is over by that."""
        parent = self.parent
        assert parent is not None
        if parent.current is not None:
            parent.current.over = True
        parent.current = self
        restored = parent.expected.pop(self.name, None)
        if restored is not None:
            self.finished, self.over, self.expected = restored.finished, restored.over, dict(restored.inner)
        self.status = Status.BETWEEN

    def finish_iteration(self) -> None:
        """Count the iteration that was under way; what is in the body begins anew in the next."""
        self.status = Status.BETWEEN
        self.finished += 1
        self._forget_inner()

    def leave(self) -> None:
        """End it in the middle of an iteration, by the user's choice: nothing is left to do."""
        self.status = Status.ENDED
        self.over = True
        # None of them begins again in an attempt that goes on from here.
        self._forget_inner()

    def chain(self) -> list[Node]:
        """Return the loop that has begun last below this one, with those around it first."""
        nodes: list[Node] = []
        node = self.current
        while node is not None:
            nodes.append(node)
            node = node.current
        return nodes

    @property
    def path(self) -> tuple[str, ...]:
        """The names from the outermost loop to this one."""
        return () if self.parent is None else (*self.parent.path, self.name)

    def to_plain(self) -> dict[str, Any]:
        """Return what a checkpoint says of all loops in this one, the root."""
        at = [node.name for node in self.chain()]
        return {"version": VERSION, "loops": _plain(self._inner()), "at": at}

    def _forget_inner(self) -> None:
        self.current = None
        self.inner.clear()
        self.expected.clear()

    def _inner(self) -> dict[str, Position]:
        live = {
            name: Position(node.finished, node.over, node._inner())
            for name, node in self.inner.items()
            if node.status is not Status.NEW
        }
        return self.expected | live


def _plain(positions: Mapping[str, Position]) -> dict[str, Any]:
    return {name: position.to_plain() for name, position in positions.items()}


def _positions(value: object) -> dict[str, Position]:
    if not isinstance(value, Mapping):
        raise TypeError("no mapping")
    positions = {}
    for name, noted in value.items():
        finished, over = noted["finished"], noted["over"]
        if not isinstance(name, str) or type(finished) is not int or finished < 0 or type(over) is not bool:
            raise ValueError("not ours")
        positions[name] = Position(finished, over, _positions(noted["inner"]))
    return positions
