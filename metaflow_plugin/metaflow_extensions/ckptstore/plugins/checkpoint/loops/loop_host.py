"""What the loops of a step use of their attempt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ckptstore

from ..artifact import CheckpointArtifact
from ..destination import ANEW, Destination
from ..flow_state import FlowState
from ..preempting.preemption import Preemption
from ..reference import Reference
from ..reserved import LOOP
from ..restoring import Restorer
from ..save_arguments import check_save
from ..saving import Saver
from ..scope import TaskIdentity
from .loop_position import Positions

__all__ = ["LoopHost", "has_positions"]

_MUCH_BYTES = 16 * 1024 * 1024


class LoopHost:
    """One attempt of a task, as its loops see it. ``start`` tells the checkpoint that was found."""

    def __init__(
        self,
        identity: TaskIdentity,
        *,
        state: FlowState,
        saver: Saver,
        restorer: Restorer,
        preemption: Preemption,
        start: Callable[[], CheckpointArtifact | None],
        log: Callable[[str], None],
    ) -> None:
        self._identity = identity
        self._state = state
        self._saver = saver
        self._restorer = restorer
        self._preemption = preemption
        self._start = start
        self._log = log

    def restore_start(self, destination: Destination = ANEW) -> tuple[Reference | None, Positions | None]:
        """Restore what was found at the start; return it, and where this step's loops were."""
        start = self._start()
        return (None, None) if start is None else (start, self.restore(start, destination))

    def restore(self, reference: Reference, destination: Destination = ANEW) -> Positions | None:
        """Restore a checkpoint, and return where this step's loops were."""
        checkpoint, positions = self._restorer.load(reference, destination=destination)
        return positions if has_positions(checkpoint, self._identity) else None

    def save(self, name: str, metadata: Mapping[str, Any] | None, *, wait: bool) -> None:
        """Save the state, which is that between two iterations, or after the last."""
        check_save(name, metadata, True, wait)
        self._saver.save(name, metadata=metadata, latest=True, wait=wait)

    def reserve(self) -> None:
        """Have memory for a background save of the state ready, if that takes much."""
        nbytes = self._state.array_bytes()
        if nbytes >= _MUCH_BYTES:
            self._saver.reserve(nbytes)

    def defer(self, error: BaseException) -> None:
        """Tell of an error at once, and let the next save or the step's end raise it."""
        self._log(f"NOT saved at the end of a loop: {type(error).__name__}: {error}")
        self._saver.defer([error])

    @property
    def is_saving(self) -> bool:
        """Whether a background save is in flight."""
        return self._saver.is_saving

    @property
    def is_preempted(self) -> bool:
        """Whether the machine is about to go away."""
        return self._preemption.is_noticed


def has_positions(checkpoint: ckptstore.Checkpoint, identity: TaskIdentity) -> bool:
    """Whether a checkpoint says where loops of this very step were; another step's are other loops."""
    flow, _, step, *_ = f"{checkpoint.attributes.get('pathspec', '')}//".split("/")
    return LOOP in checkpoint.fields and (flow, step) == (identity.flow, identity.step)
