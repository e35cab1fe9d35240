"""Reading checkpoints: listing them, finding the one that a reference means, and what is in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import ckptstore

from .artifact import CheckpointArtifact, parse_key
from .artifact_serializers import NOTED
from .description import describe
from .errors import CheckpointArgumentError, CheckpointException
from .files.directory_restore import describe_files
from .reference import Reference, TaskLike
from .reserved import attributes_of
from .scope import TaskIdentity
from .starting.policies import newest_of
from .storage.stores import Stores
from .task_listing import found_of_task, found_of_tasks

__all__ = ["Library", "choose_fields"]

_PATHSPEC = re.compile(r"[^/@]+(/[^/@]+){3}")


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

        A task or its pathspec stands for its newest that was not saved with ``latest=False``.
        Raises CheckpointArgumentError for anything else, CheckpointException if it has none.
        """
        self._settle()
        if isinstance(reference, TaskLike) or (
            isinstance(reference, str) and _PATHSPEC.fullmatch(reference) is not None
        ):
            reference = self._newest_of(reference)
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

    def handle(
        self, reference: Reference, *, fields: Sequence[str] | None, trusted: bool, device: str | None
    ) -> ckptstore.CheckpointHandle:
        """Open the attributes of a checkpoint, see ``CurrentCheckpoint.handle``."""
        store, ref = self.find(reference)
        checkpoint = store.inspect(ref).checkpoint
        made = checkpoint.attributes.get(NOTED, {})
        chosen = [name for name in choose_fields(checkpoint, fields) if name not in made]
        return store.handle(ref, fields=chosen, trusted=trusted, device=device)

    def diff(self, a: Reference, b: Reference) -> ckptstore.Diff:
        """Return what changed from one checkpoint to another, see ``CurrentCheckpoint.diff``."""
        store, ref = self.find(a)
        return store.diff(ref, self.find(b)[1])

    def delete(self, reference: Reference) -> ckptstore.CheckpointRef:
        """Make a checkpoint invisible, see ``CurrentCheckpoint.delete``, and return which."""
        store, ref = self.find(reference)
        store.delete(ref)
        return ref

    def undelete(self, reference: Reference) -> ckptstore.CheckpointRef:
        """Bring a deleted checkpoint back, see ``CurrentCheckpoint.undelete``, and return which."""
        store, ref = self.find(reference)
        store.undelete(ref)
        return ref

    def pin(self, reference: Reference) -> None:
        """Keep retention away from a checkpoint."""
        store, ref = self.find(reference)
        store.pin(ref)

    def unpin(self, reference: Reference) -> None:
        """Take the pin away."""
        store, ref = self.find(reference)
        store.unpin(ref)

    def listed(
        self,
        identity: TaskIdentity | None,
        *,
        name: str | None,
        task: object,
        attempt: int | None,
        full_namespace: bool,
        shared: bool | None,
    ) -> list[CheckpointArtifact]:
        """Return what ``list`` of a task is asked for, or of whoever is none; see ``CurrentCheckpoint.list``."""
        _check_filters(name, attempt)
        if task is not None and full_namespace:
            raise CheckpointArgumentError("task and full_namespace are mutually exclusive.")
        if task is not None:
            found = self.of_tasks(task, name=name, scope=None if identity is None else identity.scope)
            found = [one for one in found if shared is None or one.shared is shared]
        elif identity is not None:
            run = None if full_namespace else identity.run
            lines = identity.lines_listed(shared)
            found = [one for at in lines for one in self.in_line(at, name=name, run=run)]
        else:
            raise CheckpointArgumentError(
                "outside of a step with @checkpoint and of the processes that it starts list() needs to know whose "
                "checkpoints are meant: Checkpoint().list(task=...), with a Task, a Step, a Run or a pathspec such "
                "as 'Flow/run_id/step/task_id'."
            )
        return [one for one in found if attempt is None or one.attempt == attempt]

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
        self._settle()
        found = found_of_task(self._stores, task, name=name, scope=scope)
        return [self.artifact(checkpoint, url) for checkpoint, url in found]

    def of_tasks(
        self, what: object, *, name: str | None = None, scope: str | None = None
    ) -> list[CheckpointArtifact]:
        """Return the checkpoints of a task, of a step or of a run, see ``task_listing.found_of_tasks``."""
        self._settle()
        found = found_of_tasks(self._stores, what, name=name, scope=scope)
        return [self.artifact(checkpoint, url) for checkpoint, url in found]

    def _newest_of(self, task: object) -> CheckpointArtifact:
        found = found_of_task(self._stores, task, name=None, scope=None)
        newest = newest_of(checkpoint for checkpoint, _ in found)
        if newest is None:
            raise CheckpointException(
                f"task {getattr(task, 'pathspec', task)} saved no checkpoint, or only with latest=False: "
                "list(task=...) gives those."
            )
        return self.artifact(newest, found[0][1])


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


def _check_filters(name: object, attempt: object) -> None:
    """Raise CheckpointArgumentError unless both can narrow a listing."""
    if attempt is not None and (type(attempt) is not int or attempt < 0):
        raise CheckpointArgumentError(f"attempt must be a number from 0, not {attempt!r}.")
    if name is not None and not isinstance(name, str):
        raise CheckpointArgumentError(f"name must be a string, not {name!r}.")
