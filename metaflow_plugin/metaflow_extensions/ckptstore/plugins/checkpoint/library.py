"""Reading checkpoints: listing them, finding the one that a reference means, and what is in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ckptstore

from .artifact import CheckpointArtifact, parse_key
from .description import describe
from .directory_restore import describe_files
from .errors import CheckpointArgumentError, CheckpointException
from .reserved import attributes_of
from .scope import NO_INDEX, line, parse_pathspec
from .stores import Stores
from .task_lines import known_task, lines_of, tasks_of

__all__ = ["Library", "Reference", "check_filters", "choose_fields", "merged", "of_attempt"]

Reference = CheckpointArtifact | Mapping[str, Any] | str


class Library:
    """The checkpoints that can be read from one place; it knows no flow and no task.

    ``settle`` is called before anything is read: what is still being written
    is then seen, and what failed is raised.
    """

    def __init__(self, stores: Stores, *, settle: Callable[[], None]) -> None:
        self._stores = stores
        self._settle = settle

    def artifact(self, checkpoint: ckptstore.Checkpoint, store_url: str | None = None) -> CheckpointArtifact:
        """Return what the user gets for a checkpoint; ``store_url``: where it is, if not in the own store."""
        return CheckpointArtifact.from_checkpoint(
            checkpoint, store_url=store_url or self._stores.url, inspect=self.inspect
        )

    def find(self, reference: Reference) -> tuple[ckptstore.CheckpointStore, ckptstore.CheckpointRef]:
        """Return the store and the store's own reference of an artifact, its dict or its key.

        Raises CheckpointArgumentError for anything else.
        """
        self._settle()
        if isinstance(reference, str):
            store = self._stores.own(create=False)
            return store, parse_key(reference, store.store_id)
        artifact = CheckpointArtifact.hydrate(reference)
        return self._stores.holding(artifact), artifact.ref

    def inspect(self, reference: Reference) -> dict[str, Any]:
        """Return what a checkpoint holds, see ``CurrentCheckpoint.inspect``."""
        store, ref = self.find(reference)
        manifest = store.inspect(ref)
        files = describe_files(manifest.fields, lambda names: store.load(ref, fields=names))
        return describe(manifest, files)

    def delete(self, reference: Reference) -> None:
        """Make a checkpoint invisible, see ``CurrentCheckpoint.delete``."""
        store, ref = self.find(reference)
        store.delete(ref)

    def undelete(self, reference: Reference) -> None:
        """Bring a deleted checkpoint back, see ``CurrentCheckpoint.undelete``."""
        store, ref = self.find(reference)
        store.undelete(ref)

    def pin(self, reference: Reference) -> None:
        """Keep retention away from a checkpoint."""
        store, ref = self.find(reference)
        store.pin(ref)

    def unpin(self, reference: Reference) -> None:
        """Take the pin away."""
        store, ref = self.find(reference)
        store.unpin(ref)

    def in_line(
        self, collection: str, *, name: str | None = None, run: str | None = None
    ) -> list[CheckpointArtifact]:
        """Return the checkpoints of one line, newest first; ``run``: of one run only."""
        self._settle()
        return [self.artifact(one) for one in self._stores.list_own(collection, label=name, run=run)]

    def of_task(
        self, task: object, *, name: str | None = None, scope: str | None = None
    ) -> list[CheckpointArtifact]:
        """Return the checkpoints of a task, newest first, wherever its datastore is.

        ``task`` is a Task or its pathspec; ``scope`` is where it most likely ran.
        """
        flow, run_id, step, task_id = parse_pathspec(task)
        self._settle()
        pathspec = "/".join((flow, run_id, step, task_id))
        found: list[ckptstore.Checkpoint] = []
        if scope is not None:
            likely = line(flow, step, scope, NO_INDEX)
            found = _of(pathspec, self._stores.list_own(likely, label=name, run=run_id))
        if found:
            return [self.artifact(checkpoint) for checkpoint in found]
        known = known_task(task)
        lines: Sequence[str | None] = (None,) if known is None else lines_of(known)
        elsewhere = None if known is None else self._stores.of_task(known)
        if elsewhere is None:
            # Without a line, for a task that the client does not know, this goes through the whole store.
            own = [_of(pathspec, self._stores.list_own(one, label=name, run=run_id)) for one in lines]
            if any(own) or known is not None:
                return merged([[self.artifact(one) for one in found] for found in own])
            elsewhere = self._stores.of_task(task)
        if elsewhere is None:
            return []
        store, url = elsewhere
        others = [_of(pathspec, store.list(one, label=name, run=run_id)) for one in lines]
        return merged([[self.artifact(one, url) for one in found] for found in others])

    def of_tasks(
        self, what: object, *, name: str | None = None, scope: str | None = None
    ) -> list[CheckpointArtifact]:
        """Return the checkpoints of a task, of a step or of a run, newest first.

        Those of one task are in the store's own order; only between tasks the
        writers' clocks decide. ``what`` is a Task, a Step, a Run or a pathspec.
        """
        listed = [self.of_task(task, name=name, scope=scope) for task in tasks_of(what)]
        return merged(listed)


def choose_fields(checkpoint: ckptstore.Checkpoint, fields: Sequence[str] | None) -> list[str]:
    """Return the attributes that a load restores: all, or those of ``fields``.

    Raises CheckpointArgumentError for what is no list of names, CheckpointException
    for names that the checkpoint does not hold.
    """
    held = attributes_of(checkpoint.fields)
    if fields is None:
        return held
    if isinstance(fields, str) or not fields or not all(isinstance(name, str) for name in fields):
        raise CheckpointArgumentError(f"fields must be a list of attribute names, not {fields!r}.")
    missing = sorted(set(fields) - set(held))
    if missing:
        raise CheckpointException(
            f"checkpoint {checkpoint.label!r} holds no {', '.join(map(repr, missing))}; it holds "
            f"{', '.join(held) or 'no attributes'}."
        )
    return [name for name in held if name in set(fields)]


def check_filters(name: object, attempt: object) -> None:
    """Raise CheckpointArgumentError unless both can narrow a listing."""
    if attempt is not None and (type(attempt) is not int or attempt < 0):
        raise CheckpointArgumentError(f"attempt must be a number from 0, not {attempt!r}.")
    if name is not None and not isinstance(name, str):
        raise CheckpointArgumentError(f"name must be a string, not {name!r}.")


def of_attempt(artifacts: Sequence[CheckpointArtifact], attempt: int | None) -> list[CheckpointArtifact]:
    """Return those of one attempt, or all."""
    return [artifact for artifact in artifacts if attempt is None or artifact.attempt == attempt]


def merged(listed: Iterable[Sequence[CheckpointArtifact]]) -> list[CheckpointArtifact]:
    """Return what several lines or tasks have, newest first by their clocks; the order within each is kept."""
    dated: list[tuple[str, CheckpointArtifact]] = []
    for one in listed:
        # None may pass a newer one of its own sequence, whatever its clock says.
        dates = itertools.accumulate((artifact.created_on for artifact in one), min)
        dated += zip(dates, one, strict=True)
    return [artifact for _, artifact in sorted(dated, key=lambda pair: pair[0], reverse=True)]


def _of(pathspec: str, found: Iterable[ckptstore.Checkpoint]) -> list[ckptstore.Checkpoint]:
    return [checkpoint for checkpoint in found if checkpoint.attributes.get("pathspec") == pathspec]
