"""What a card's page is made of: plain data, a snapshot of one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..artifact import CheckpointArtifact

__all__ = ["CardFacts", "LineageFact", "SaveState", "SavedFact", "TaskState"]

SaveState = Literal["saving", "saved", "failed", "deleted"]
TaskState = Literal["running", "finished", "failed"]


@dataclass(frozen=True, slots=True)
class SavedFact:
    """One save: a checkpoint, or the attempt to make one."""

    name: str
    state: SaveState
    attempt: int
    """The attempt of the task that saved it, from 0."""
    latest: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)
    created_on: str = ""
    """When it was committed, ISO 8601 in UTC; empty until then."""
    version_id: str = ""
    key: str = ""
    """What stands for it in ``load``; two lines may have the same version."""
    size: int = 0
    """Bytes before compression."""
    stored_bytes: int = 0
    """Bytes as stored, those shared with other checkpoints included."""
    new_bytes: int = 0
    """Bytes that saving it added to the store."""
    started_s: float | None = None
    """Seconds from the start of the attempt; None for what an earlier attempt saved."""
    blocked_s: float | None = None
    """Seconds that the step waited for it; None while it does, or if nobody measured it."""
    background_s: float | None = None
    """Seconds from there until it was durable; None while it is not, or if nobody measured it."""
    error: str = ""


@dataclass(frozen=True, slots=True)
class LineageFact:
    """A checkpoint that a task started from, or one that it descends from."""

    name: str
    attempt: int
    pathspec: str
    created_on: str
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, artifact: CheckpointArtifact) -> LineageFact:
        """Return what a card tells of a durable checkpoint."""
        return cls(
            name=artifact.name,
            attempt=artifact.attempt,
            pathspec=artifact.pathspec,
            created_on=artifact.created_on,
            metadata=artifact.metadata,
        )


@dataclass(frozen=True, slots=True)
class CardFacts:
    """All that a page shows, as it was at ``written_on``."""

    pathspec: str
    attempt: int
    state: TaskState
    started_on: str
    """When the attempt started, ISO 8601 in UTC."""
    written_on: str
    elapsed_s: float
    """Seconds since then."""
    saved: tuple[SavedFact, ...] = ()
    """In the order in which they were begun."""
    found: LineageFact | None = None
    """The checkpoint that was found at the attempt's start."""
    lineage: tuple[LineageFact, ...] = ()
    """The ancestors of the loaded checkpoint, the oldest first, and that one last; empty: none was loaded."""
    n_failures: int = 0
    """How often this task has failed before this attempt."""
    observed_s: float = 0.0
    """Seconds of this task that are known of, those of its earlier attempts as far as checkpoints show them."""
    keep: str = ""
    """The retention that deletes checkpoints in the background, which the page does not follow."""
