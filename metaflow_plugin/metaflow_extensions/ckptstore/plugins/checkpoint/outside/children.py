"""What a task tells the processes that it starts, so that they can save into its line.

One environment variable, which they inherit, says who the task is, where its
checkpoints are and how it takes turns. It holds no credential: a child finds
those where its parent did.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import ckptstore

from ..errors import CheckpointException
from ..options import Options
from ..requirements import ON_DISK
from ..scope import TaskIdentity
from ..storage.place import Place, place_at
from ..turns import Turns

__all__ = ["VARIABLE", "Offer", "inherited_offer", "make_offer", "withdraw_offer"]

VARIABLE = "METAFLOW_CKPTSTORE_TASK"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Offer:
    """A task, as its child processes know it."""

    identity: TaskIdentity
    kind: str
    root: str
    folder: str
    """Of the turns that its processes take."""
    background: bool
    """Whether a save returns when its values are captured, if it does not say."""
    keep: str | None
    """Which checkpoints stay, as a policy's text."""
    found: dict[str, str] | None
    """The reference of the checkpoint that the task found at its start."""

    def place(self, log: Callable[[str], None]) -> Place:
        """Return where the task's checkpoints are. Raises CheckpointException."""
        return place_at(self.kind, self.root, log, whose=self.identity.pathspec)


def make_offer(
    identity: TaskIdentity, place: Place, options: Options, *, found: ckptstore.CheckpointRef | None
) -> Turns | None:
    """Let the processes that are started from now on save for this task; ``withdraw_offer`` ends it.

    Returns the turns that the task takes itself, None where no folder can be made for them.
    """
    try:
        turns = Turns.of_task()
    except OSError:
        return None
    root = os.path.abspath(place.root) if place.kind in ON_DISK else place.root
    keep = None if options.keep is None else str(options.keep)
    offer = Offer(
        identity,
        place.kind,
        root,
        turns.folder,
        options.background,
        keep,
        None if found is None else found.to_dict(),
    )
    os.environ[VARIABLE] = json.dumps({"version": _VERSION, **asdict(offer)})
    return turns


def withdraw_offer(turns: Turns) -> None:
    """End what ``make_offer`` began: what still runs then cannot save any more. Idempotent."""
    turns.close()
    if turns.folder in os.environ.get(VARIABLE, ""):
        del os.environ[VARIABLE]


def inherited_offer() -> Offer | None:
    """Return the task that this process was started by, None if it was started by none.

    Raises CheckpointException if the variable was written by another release.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        said: dict[str, Any] = json.loads(text)
        if said.pop("version") != _VERSION:
            raise ValueError("its version is another")
        return Offer(**(said | {"identity": TaskIdentity(**said["identity"])}))
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointException(
            f"{VARIABLE} was not set by a task with this release of ckptstore ({error}): install the same "
            "one in the task and in the processes that it starts."
        ) from error
