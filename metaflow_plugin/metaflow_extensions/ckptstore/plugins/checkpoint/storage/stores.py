"""The stores that a task reads: its own, and those of tasks on another datastore."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import ckptstore
from ckptstore.errors import StoreNotFoundError

from ..artifact import CheckpointArtifact
from .place import Place, place_of_task

__all__ = ["Stores"]


class Stores:
    """Each is opened when it is first needed, and opened again after ``close``.

    ``origin`` is where tasks are that the client does not know, see ``place_of_origin``.
    """

    def __init__(self, place: Place, log: Callable[[str], None], *, origin: Place | None = None) -> None:
        self.place = place
        """Where the task's own store is."""
        self._origin = origin
        self._log = log
        self._own: ckptstore.CheckpointStore | None = None
        self._others: dict[str, ckptstore.CheckpointStore] = {}
        self._pid = os.getpid()

    @property
    def url(self) -> str:
        """Where the task's own store is, for people."""
        return self.place.url

    def own(self, *, create: bool) -> ckptstore.CheckpointStore:
        """Return the store of the task. Raises StoreNotFoundError if there is none, and not ``create``."""
        self._leave_to_parent()
        if self._own is None:
            self._own = self.place.open(create=create)
        return self._own

    def list_own(
        self, collection: str | None, *, label: str | None = None, run: str | None = None
    ) -> Iterator[ckptstore.Checkpoint]:
        """List the task's own store; there is nothing where there is no store."""
        try:
            store = self.own(create=False)
        except StoreNotFoundError:
            return iter(())
        return store.list(collection, label=label, run=run)

    def of_task(self, task: object) -> tuple[ckptstore.CheckpointStore, str] | None:
        """Return the store of another task, and where it is, if that is not the own one."""
        place = place_of_task(task, self._log) or self._origin
        if place is None or place.url == self.place.url:
            return None
        self._leave_to_parent()
        if place.url not in self._others:
            try:
                self._others[place.url] = place.open(create=False)
            except StoreNotFoundError:
                return None
        return self._others[place.url], place.url

    def holding(self, artifact: CheckpointArtifact) -> ckptstore.CheckpointStore:
        """Return the store that a checkpoint is in: the own one, or that of the task that saved it.

        Which one that is, its task's metadata says, never the artifact itself.
        """
        store_id = artifact.ref.store_id
        with contextlib.suppress(StoreNotFoundError):
            if self.own(create=False).store_id == store_id:
                return self.own(create=False)
        for store in self._others.values():
            if store.store_id == store_id:
                return store
        found = self.of_task(artifact.pathspec)
        return found[0] if found is not None and found[0].store_id == store_id else self.own(create=False)

    def close(self) -> None:
        """Finish what is being written and close all. Raises the first error."""
        self._leave_to_parent()
        own, self._own = self._own, None
        others, self._others = list(self._others.values()), {}
        with contextlib.ExitStack() as stack:
            for store in [*others, *([] if own is None else [own])]:
                stack.callback(store.close)

    def _leave_to_parent(self) -> None:
        # A forked child opens stores of its own: the parent's have no threads here. They are kept,
        # as their loops would take their end for one that was forgotten.
        if self._pid != os.getpid():
            self._parents = (self._own, self._others)
            self._pid = os.getpid()
            self._own = None
            self._others = {}
