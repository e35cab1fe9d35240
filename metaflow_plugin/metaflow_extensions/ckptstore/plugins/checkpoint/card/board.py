"""What a task's process saved and loaded, as its card tells it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from ..artifact import CheckpointArtifact
from .facts import CardFacts, LineageFact, SavedFact, TaskState
from .writer import CardWriter

__all__ = ["Board"]


class Board:
    """The saves and loads of one attempt, told as they happen; each gives the card a new page.

    Every call returns at once and none raises. With ``writer=None`` there is no
    card, and in a forked child nothing is done: the card is its parent's.
    """

    def __init__(self, pathspec: str, attempt: int, *, writer: CardWriter | None) -> None:
        self._pathspec = pathspec
        self._attempt = attempt
        self._writer = writer
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._started = datetime.now(timezone.utc)
        self._clock = time.monotonic()
        self._ended_s: float | None = None
        self._state: TaskState = "running"
        self._saved: list[SavedFact] = []
        self._found: LineageFact | None = None
        self._lineage: tuple[LineageFact, ...] = ()
        self._is_written = False

    @property
    def is_on(self) -> bool:
        """Whether this process writes a card."""
        return self._writer is not None and os.getpid() == self._pid

    def found(self, artifact: CheckpointArtifact) -> None:
        """Note the checkpoint that was found at the start of the attempt."""
        if self.is_on:
            with self._lock:
                self._found = LineageFact.of(artifact)

    def earlier(self, artifacts: Iterable[CheckpointArtifact]) -> None:
        """Note what earlier attempts of this task have saved, oldest first. Before this attempt saves."""
        if not self.is_on:
            return
        facts = [_durable(artifact, SavedFact("", "saved", artifact.attempt)) for artifact in artifacts]
        with self._lock:
            self._saved[:0] = facts

    def loaded(self, lineage: Sequence[CheckpointArtifact]) -> None:
        """Note the ancestors of the loaded checkpoint, the oldest first, and itself, last."""
        if not self.is_on:
            return
        with self._lock:
            self._lineage = tuple(LineageFact.of(artifact) for artifact in lineage)
        self._changed()

    def save_started(
        self, name: str, metadata: Mapping[str, Any] | None = None, *, latest: bool = True
    ) -> int:
        """Note that a save begins, and return its number for the calls below."""
        if not self.is_on:
            return -1
        begun = SavedFact(
            name=name,
            state="saving",
            attempt=self._attempt,
            latest=latest,
            metadata=dict(metadata or {}),
            started_s=time.monotonic() - self._clock,
        )
        with self._lock:
            self._saved.append(begun)
            number = len(self._saved) - 1
        self._changed()
        return number

    def captured(self, save: int, blocked_s: float) -> None:
        """Note that a background save has let the step go on after so many seconds."""
        self._note(save, blocked_s=blocked_s)

    def saved(
        self,
        save: int,
        artifact: CheckpointArtifact,
        *,
        blocked_s: float,
        background_s: float | None = None,
    ) -> None:
        """Note that a save is durable. ``artifact`` must be: asking a pending one would wait.

        ``background_s`` is by default what passed from when the step went on to
        the commit: whoever tells of a background save may learn of its end late.
        """
        if not self.is_on or save < 0:
            return
        fact = _durable(artifact, SavedFact("", "saved", artifact.attempt))
        if background_s is None:
            ended = datetime.fromisoformat(fact.created_on) - self._started
            background_s = max(0.0, ended.total_seconds() - (self._saved[save].started_s or 0.0) - blocked_s)
        known = {name: getattr(fact, name) for name in _OF_ARTIFACT}
        self._note(save, **known, state="saved", blocked_s=blocked_s, background_s=background_s)

    def save_failed(self, save: int, error: object, *, blocked_s: float | None = None) -> None:
        """Note that a save failed; ``error`` is an exception or what to say."""
        said = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
        waited = {} if blocked_s is None else {"blocked_s": blocked_s}
        self._note(save, state="failed", error=said, **waited)

    def deleted(self, version_id: str) -> None:
        """Note that a checkpoint of this task is no longer in the store."""
        if not self.is_on:
            return
        with self._lock:
            self._saved = [
                replace(one, state="deleted")
                if one.version_id == version_id and one.state == "saved"
                else one
                for one in self._saved
            ]
        self._changed()

    def finish(self, *, failed: bool = False) -> None:
        """Write the last page; again only if something has happened since. Bounded in time, never raises."""
        if not self.is_on or self._writer is None:
            return
        with self._lock:
            state: TaskState = "failed" if failed or self._state == "failed" else "finished"
            if self._is_written and state == self._state:
                return
            self._state, self._is_written = state, True
            self._ended_s = time.monotonic() - self._clock
        self._writer.finish(self.facts)

    def facts(self) -> CardFacts:
        """Return what a page tells of this moment."""
        with self._lock:
            elapsed_s = time.monotonic() - self._clock if self._ended_s is None else self._ended_s
            return CardFacts(
                pathspec=self._pathspec,
                attempt=self._attempt,
                state=self._state,
                started_on=self._started.isoformat(),
                written_on=datetime.now(timezone.utc).isoformat(),
                elapsed_s=elapsed_s,
                saved=tuple(self._saved),
                found=self._found,
                lineage=self._lineage,
                n_failures=self._attempt,
                observed_s=elapsed_s + self._before_s(),
            )

    def _before_s(self) -> float:
        """Return the seconds from the first checkpoint of this very task that is known of to this attempt."""
        created = [
            one.created_on for one in (*self._lineage, self._found) if one and one.pathspec == self._pathspec
        ]
        created += [one.created_on for one in self._saved if one.attempt < self._attempt]
        if not created:
            return 0.0
        # One writer's clock: all attempts of a task note UTC in one format.
        before = self._started - datetime.fromisoformat(min(created))
        return max(before, timedelta()).total_seconds()

    def _note(self, save: int, **known: Any) -> None:
        if not self.is_on or save < 0:
            return
        with self._lock:
            self._saved[save] = replace(self._saved[save], **known)
        self._changed()

    def _changed(self) -> None:
        with self._lock:
            self._is_written = False
        if self._writer is not None:
            self._writer.update(self.facts)


_OF_ARTIFACT = (
    "name",
    "attempt",
    "metadata",
    "created_on",
    "version_id",
    "size",
    "stored_bytes",
    "new_bytes",
)


def _durable(artifact: CheckpointArtifact, fact: SavedFact) -> SavedFact:
    return replace(fact, **{name: getattr(artifact, name) for name in _OF_ARTIFACT})
