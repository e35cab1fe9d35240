"""``current.checkpoint.loop``: iterations that are done once, over all attempts of a task."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Generic, Protocol, TypeVar

from ..cadence import Cadence, Every
from ..destination import ANEW, Destination
from ..errors import CheckpointArgumentError, CheckpointException
from ..reference import Reference
from ..reserved import LOOP
from .loop_exit import is_left_by_choice
from .loop_position import Node, Positions, Status

__all__ = ["Loop", "LoopMetadata", "Loops"]

T = TypeVar("T")

LoopMetadata = Mapping[str, Any] | Callable[[], Mapping[str, Any]]
"""What to note with each checkpoint, or what gives it at each save."""


class Host(Protocol):
    """What loops need of the attempt that they run in."""

    def restore_start(self, destination: Destination) -> tuple[Reference | None, Positions | None]:
        """Restore the checkpoint that was found at the start, if any; return it and what it says of loops."""

    def restore(self, reference: Reference, destination: Destination) -> object:
        """Restore a checkpoint once more."""

    def save(self, name: str, metadata: Mapping[str, Any] | None, *, wait: bool) -> None:
        """Save the state as it is now."""

    def reserve(self) -> None:
        """Have memory for a background save of the state ready."""

    def defer(self, error: BaseException) -> None:
        """Keep an error that cannot be raised where it was met, for the next save or the step's end."""

    @property
    def is_saving(self) -> bool:
        """Whether a background save is in flight."""

    @property
    def is_preempted(self) -> bool:
        """Whether the machine is about to go away."""


class Loops:
    """All loops of one attempt: where they are, and where the restored checkpoint says that they were."""

    def __init__(self, host: Host, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.host = host
        self.clock = clock
        self.saved_s = 0.0
        """When a loop last saved, or the first began."""
        self._root = Node("", None, Status.BODY)
        self._pid = os.getpid()
        self._reference: Reference | None = None
        self._destination = ANEW
        self._at: tuple[str, ...] | None = None
        """The loop at whose place the state is as it was saved; None once that was passed."""
        self._is_restored = False
        self._is_stale = False
        self._is_closed = False
        self._has_rescued = False

    def make(
        self,
        iterable: Iterable[T],
        *,
        every: Every,
        name: str | None,
        label: str,
        metadata: LoopMetadata | None,
        wait: bool,
    ) -> Loop[T]:
        """Return a loop, see ``CurrentCheckpoint.loop``; ``label`` is the name of its checkpoints."""
        if isinstance(iterable, (set, frozenset)):
            raise CheckpointArgumentError(
                "a loop cannot go over a set, whose order is another one in the next attempt: use sorted(...)."
            )
        if not isinstance(iterable, Iterable):
            raise CheckpointArgumentError(
                f"a loop goes over something iterable, such as range(10), not {type(iterable).__name__}."
            )
        if name is not None and (not isinstance(name, str) or not name):
            raise CheckpointArgumentError(f"a loop's name must be a text, not {name!r}.")
        if metadata is not None and not isinstance(metadata, Mapping) and not callable(metadata):
            raise CheckpointArgumentError(
                f"a loop's metadata must be a mapping or a function that returns one, not {metadata!r}."
            )
        if not isinstance(wait, bool):
            raise CheckpointArgumentError(f"wait must be True or False, not {wait!r}.")
        cadence = Cadence(every)
        node = self._innermost_body().add(name)
        if node is None:
            raise CheckpointArgumentError(
                f"there was a loop {name!r} before in the same place: each needs a name of its own, such as "
                f"f'{name} {{fold}}', or none."
            )
        return Loop(self, node, iterable, cadence=cadence, label=label, metadata=metadata, wait=wait)

    def fields(self) -> dict[str, object]:
        """Return the field of a save that says where the loops are, if there are any."""
        return {LOOP: self._root.to_plain()} if self._root.current is not None else {}

    def expect(self) -> None:
        """Take note that the checkpoint at the start was saved by a step with loops, which have yet to begin."""
        self._at = ()

    def adopt(
        self, reference: Reference, positions: Positions | None, destination: Destination = ANEW
    ) -> None:
        """Go on where a checkpoint says that the user has restored; later ones, in or after a loop, say nothing."""
        if self._root.current is None:
            self.aim(destination)
            self._take(reference, positions)

    def aim(self, destination: Destination) -> None:
        """Restore to there whatever a loop restores: the step holds the objects that it has filled."""
        self._destination = destination

    @property
    def is_resting(self) -> bool:
        """Whether the state is one to start from: none between what is restored and in the middle of an iteration."""
        return self._at is None and not any(
            node.status in (Status.BODY, Status.LEFT) for node in self._root.chain()
        )

    def close(self) -> None:
        """Let loops that are dropped from now on save nothing: the step has ended."""
        self._is_closed = True

    @property
    def is_open(self) -> bool:
        """Whether the step still runs, in this process."""
        return not self._is_closed and os.getpid() == self._pid

    def begin(self, node: Node) -> None:
        """Restore what is to be restored where this loop begins, and give it its position."""
        if self._root.current is None:
            self.saved_s = self.clock()
        if not self._is_restored:
            self._take(*self.host.restore_start(self._destination))
        elif self._at == node.path and self._is_stale and self._reference is not None:
            self.host.restore(self._reference, self._destination)
        node.begin()
        self._is_stale = True
        if self._at is not None and self._at in ((), node.path):
            self._at = None

    def passed(self) -> None:
        """Take note that an iteration was finished: what was restored lies behind."""
        self._at = None

    def rescue(self) -> bool:
        """Tell, once, that the next save must be durable at once since the machine goes away."""
        first, self._has_rescued = not self._has_rescued, True
        return first

    def _take(self, reference: Reference | None, positions: Positions | None) -> None:
        self._reference = reference
        self._is_restored = True
        self._is_stale = False
        self._at = None
        if positions is not None:
            self._root.expected = dict(positions.loops)
            # Where only one loop had begun, the state is at its place already.
            self._at = positions.at if len(positions.loops) > 1 or len(positions.at) > 1 else None

    def _innermost_body(self) -> Node:
        innermost = self._root
        for node in self._root.chain():
            if node.status is not Status.BODY:
                break
            innermost = node
        return innermost


class Loop(Generic[T]):
    """A loop of a step that can be gone through once, by one ``for``; see ``current.checkpoint.loop``."""

    def __init__(
        self,
        loops: Loops,
        node: Node,
        iterable: Iterable[T],
        *,
        cadence: Cadence,
        label: str,
        metadata: LoopMetadata | None,
        wait: bool,
    ) -> None:
        self._loops = loops
        self._node = node
        self._iterable = iterable
        self._cadence = cadence
        self._label = label
        self._metadata = metadata
        self._wait = wait

    def __iter__(self) -> Iterator[T]:
        """Begin: restore the attributes if there are any to restore, and go on where they were saved."""
        loops, node = self._loops, self._node
        if node.status is not Status.NEW:
            raise CheckpointException(
                f"the loop {node.name!r} was gone through already: make another with current.checkpoint.loop(...)."
            )
        loops.begin(node)
        return _Iteration(self, iter(()) if node.over else _items(self._iterable, node.finished))

    def __repr__(self) -> str:
        return f"<loop {self._node.name!r}: {self._node.finished} iterations finished>"

    def _save(self, *, wait: bool) -> None:
        metadata = self._metadata() if callable(self._metadata) else self._metadata
        self._loops.host.save(self._label, metadata, wait=wait)
        self._loops.saved_s = self._loops.clock()


class _Iteration(Iterator[T]):
    """One going through a loop. Only the ``for`` holds it, so it goes when the ``for`` is left."""

    __slots__ = ("_cadence", "_consumer", "_items", "_loop", "_loops", "_node", "_saved_n", "_start_n")

    def __init__(self, loop: Loop[T], items: Iterator[T]) -> None:
        self._loop = loop
        self._loops = loop._loops
        self._node = loop._node
        self._items = items
        self._cadence = loop._cadence
        self._saved_n = self._start_n = loop._node.finished
        self._consumer = 0

    def __next__(self) -> T:
        node = self._node
        if node.status is Status.BODY:
            self._finish_iteration()
        else:
            self._reserve()
        try:
            item = next(self._items)
        except StopIteration:
            self._end()
            raise
        node.status = Status.BODY
        self._consumer = id(sys._getframe(1))
        return item

    def _finish_iteration(self) -> None:
        node, loops = self._node, self._loops
        assert node.parent is not None
        if node.parent.current is not node:
            other = node.parent.current
            raise CheckpointException(
                f"the loops {node.name!r} and {other.name if other else '?'!r} run side by side. One must be "
                "in the body of the other, or after it; to go over two things at once, zip them in one loop."
            )
        node.finish_iteration()
        loops.passed()
        if loops.host.is_preempted:
            if loops.rescue():
                self._save(wait=True)
                return
            due = True
        else:
            elapsed_s = loops.clock() - loops.saved_s
            due = self._cadence.is_due(node.finished, saved_n=self._saved_n, elapsed_s=elapsed_s)
        if due and (self._loop._wait or not loops.host.is_saving):
            self._save(wait=self._loop._wait)
        elif node.finished == self._start_n + 1:
            self._reserve()  # an optimizer has its state from the first step on

    def _reserve(self) -> None:
        """Have the first background save not wait for memory."""
        if self._is_outermost and not self._loop._wait:
            self._loops.host.reserve()

    def _end(self) -> None:
        if self._node.status is Status.ENDED:
            return
        self._node.status = Status.ENDED
        if self._is_outermost and self._saved_n < self._node.finished:
            self._save(wait=self._loop._wait)

    def _save(self, *, wait: bool) -> None:
        self._loop._save(wait=wait)
        self._saved_n = self._node.finished

    @property
    def _is_outermost(self) -> bool:
        parent = self._node.parent
        return parent is not None and parent.parent is None

    def __del__(self) -> None:
        """The ``for`` was left, or its iterator was never used to its end."""
        node = self._node
        if node.status is not Status.BODY or not self._loops.is_open:
            return
        node.status = Status.LEFT
        frame = sys._getframe(1)
        if self._is_outermost and id(frame) == self._consumer and is_left_by_choice(frame):
            node.leave()
            try:
                self._save(wait=self._loop._wait)
            except BaseException as error:  # noqa: BLE001  # from here it would reach nobody
                self._loops.host.defer(error)


def _items(iterable: Iterable[T], start: int) -> Iterator[T]:
    """Return what comes after the first ``start`` items; those of a sequence are not touched."""
    if isinstance(iterable, Sequence):
        return _from(iterable, start)
    items = iter(iterable)
    next(islice(items, start, start), None)
    return items


def _from(sequence: Sequence[T], start: int) -> Iterator[T]:
    while start < len(sequence):
        yield sequence[start]
        start += 1
