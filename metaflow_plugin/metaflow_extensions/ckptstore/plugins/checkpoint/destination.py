"""Where loaded attributes go: into what the step has already built, or to new objects, and on which device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ckptstore

from .artifact_serializers import NOTED
from .errors import CheckpointArgumentError, CheckpointException

__all__ = ["ANEW", "Destination"]


@dataclass(frozen=True, slots=True, eq=False)
class Destination:
    """What ``CurrentCheckpoint.load`` was told of it. Raises CheckpointArgumentError for wrong arguments."""

    into: Mapping[str, object] | None = None
    inplace: bool = False
    device: str | None = None

    def __post_init__(self) -> None:
        into = self.into
        if into is not None and (
            not isinstance(into, Mapping) or not all(isinstance(name, str) for name in into)
        ):
            raise CheckpointArgumentError(
                "into must be a mapping of attribute names to what takes their values, such as "
                f"into={{'model': self.model}}, not {type(into).__name__}."
            )
        if not isinstance(self.inplace, bool):
            raise CheckpointArgumentError(f"inplace must be True or False, not {self.inplace!r:.80}.")
        if self.inplace and into is None:
            raise CheckpointArgumentError("inplace goes with into, which says what is decoded into.")

    def check(self, checkpoint: ckptstore.Checkpoint, chosen: Sequence[str]) -> None:
        """Raise CheckpointException unless all of ``into`` is among the attributes that are restored."""
        into = self.into or {}
        missing = sorted(set(into) - set(chosen))
        if missing:
            held = ", ".join(chosen) or "no attributes, only files, which are in current.checkpoint.directory"
            raise CheckpointException(
                f"nothing of checkpoint {checkpoint.label!r} can be loaded into {', '.join(map(repr, missing))}: what "
                f"is restored of it is {held}. Take the rest out of into."
            )
        made = sorted(set(into) & set(checkpoint.attributes.get(NOTED, {})))
        if made:
            raise CheckpointException(
                f"{', '.join(made)}: saved by a serializer of Metaflow's, which always makes a new object: "
                "take it out of into."
            )

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the store's ``load``."""
        return {"into": self.into, "inplace": self.inplace, "device": self.device}


ANEW = Destination()
