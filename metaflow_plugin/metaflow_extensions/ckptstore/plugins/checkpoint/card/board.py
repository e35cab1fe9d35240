"""What a task's process saved and loaded, as its card tells it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import ckptstore

from ..artifact import CheckpointArtifact
from .facts import CardFacts, LineageFact, SavedFact, SaveState, TaskState
from .writer import CardWriter

__all__ = ["Board"]


class Board:
    """The saves and loads of one attempt, told as they happen; each gives the card a new page.

    Every call returns at once, from any thread, and none raises. With ``writer=None``
    there is no card, and in a forked child nothing is done: the card is its parent's.
    ``keep``: the retention that the saves ask for.
    """

    def __init__(
        self, pathspec: str, attempt: int, *, writer: CardWriter | None, keep: ckptstore.Keep | None = None
    ) -> None:
        self._pathspec = pathspec
        self._attempt = attempt
        self._writer = writer
        self._keep = "" if keep is None else str(keep)
        self._pid = os.getpid()
        # Reentrant: the handler of a signal may save.
        self._lock = threading.RLock()
        self._started = datetime.now(timezone.utc)
        self._clock = time.monotonic()
        self._ended_s: float | None = None
        self._state: TaskState = "running"
        self._earlier: list[SavedFact] = []
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

    def earlier(self, artifact: CheckpointArtifact, *, latest: bool = True) -> None:
        """Note what an earlier attempt of this task has saved; the newest first."""
        if not self.is_on:
            return
        fact = SavedFact(state="saved", latest=latest, **_known(artifact))
        with self._lock:
            self._earlier.insert(0, fact)
        self._changed()

    def loaded(self, artifact: CheckpointArtifact) -> None:
        """Note the checkpoint that was loaded, in place of one that was before."""
        if not self.is_on:
            return
        with self._lock:
            self._lineage = (LineageFact.of(artifact),)
        self._changed()

    def descends_from(self, artifact: CheckpointArtifact) -> None:
        """Note an ancestor of the loaded checkpoint; the next one is its own."""
        if not self.is_on:
            return
        with self._lock:
            self._lineage = (LineageFact.of(artifact), *self._lineage)
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
        background_s: float,
    ) -> None:
        """Note that a save is durable. ``artifact`` must be: asking a pending one would wait.

        ``background_s``: what passed from when the step went on until then.
        """
        if not self.is_on or save < 0:
            return
        times = {"blocked_s": blocked_s, "background_s": background_s}
        self._note(save, **_known(artifact), **times, state="saved", error="")

    def save_failed(self, save: int, error: object, *, blocked_s: float | None = None) -> None:
        """Note that a save failed; ``error`` is an exception or what to say."""
        said = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
        waited = {} if blocked_s is None else {"blocked_s": blocked_s}
        self._note(save, state="failed", error=said, **waited)

    def deleted(self, key: str) -> None:
        """Note that a checkpoint was deleted, which may be one of this task."""
        self._restate(key, "saved", "deleted")

    def undeleted(self, key: str) -> None:
        """Note that a deleted checkpoint is there again."""
        self._restate(key, "deleted", "saved")

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
                saved=(*self._earlier, *self._saved),
                found=self._found,
                lineage=self._lineage,
                n_failures=self._attempt,
                observed_s=elapsed_s + self._before_s(),
                keep=self._keep,
            )

    def _before_s(self) -> float:
        """Return the seconds from the first checkpoint of this very task that is known of to this attempt."""
        created = [
            one.created_on for one in (*self._lineage, self._found) if one and one.pathspec == self._pathspec
        ]
        created += [one.created_on for one in self._earlier]
        if not created:
            return 0.0
        # One writer's clock: all attempts of a task note UTC in one format.
        before = self._started - datetime.fromisoformat(min(created))
        return max(before, timedelta()).total_seconds()

    def _restate(self, key: str, before: SaveState, after: SaveState) -> None:
        if not self.is_on:
            return
        with self._lock:
            for saves in (self._earlier, self._saved):
                saves[:] = [
                    replace(one, state=after) if (one.key, one.state) == (key, before) else one
                    for one in saves
                ]
        self._changed()

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
    "key",
    "size",
    "stored_bytes",
    "new_bytes",
)


def _known(artifact: CheckpointArtifact) -> dict[str, Any]:
    return {name: getattr(artifact, name) for name in _OF_ARTIFACT}
