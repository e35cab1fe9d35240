"""What a ``Checkpoint`` object holds open, and how that ends."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ckptstore
from ckptstore.errors import UnserializableError

from ..artifact import CheckpointArtifact
from ..errors import CheckpointException
from ..files.directory import CheckpointDirectory
from ..files.directory_names import INDEX
from ..files.directory_restore import restore_files
from ..saving import Saver
from .doors import Door, open_door, standing

__all__ = ["ClientState"]

_log = logging.getLogger("ckptstore")


class ClientState:
    """The door of the process that uses it, a directory, and what saves; it must not refer to the ``Checkpoint``."""

    def __init__(self, temp_dir_root: str | None, datastore: str | None, datastore_root: str | None) -> None:
        self._where = (datastore, datastore_root)
        self._directory = CheckpointDirectory(temp_dir_root, fill=self._fill, log=_log.info)
        self._door: Door | None = None
        self._saver: Saver | None = None
        self._standing: object = None
        self._values: Mapping[str, Any] = {}
        self._parent: ckptstore.CheckpointRef | None = None
        self._files_of: CheckpointArtifact | None = None
        """The checkpoint whose files the directory begins with."""

    @property
    def directory(self) -> str:
        """See ``Checkpoint.directory``."""
        return str(self._directory.path)

    def door(self) -> Door:
        """Return what the process may do now, which changes with a fork, and when a task begins or ends."""
        now = standing()
        if self._door is None or self._standing != now:
            if self._door is not None:
                self._door.close()
            self._door = open_door(*self._where)
            self._saver = None
            self._standing = now
        return self._door

    @contextlib.contextmanager
    def staged(
        self, store: ckptstore.CheckpointStore, manifest: ckptstore.Manifest, *, wanted: bool
    ) -> Iterator[Callable[[], None]]:
        """Prepare what follows from loading a checkpoint; what is given makes it so.

        The directory gets its files, if it has any and they are ``wanted``: now
        if it is in use, else when it first is. What is saved later goes on from it.
        """
        wanted = wanted and INDEX in manifest.fields
        with contextlib.ExitStack() as stack:
            move_in: Callable[[], None] = lambda: None  # noqa: E731
            if wanted and self._directory.in_use:
                move_in = stack.enter_context(
                    self._directory.staged(lambda into: _restore(store, manifest, into))
                )

            def finish() -> None:
                move_in()
                self._parent = manifest.checkpoint.ref
                if wanted:
                    self._files_of = self.door().library.artifact(manifest.checkpoint, store.url)

            yield finish

    def save(
        self,
        name: str,
        values: Mapping[str, Any],
        *,
        path: Path | None,
        metadata: Mapping[str, Any] | None,
        latest: bool,
        wait: bool | None,
    ) -> CheckpointArtifact:
        """Save for the task that the process belongs to."""
        door = self.door()
        task = door.task
        if task is None:
            raise CheckpointException(
                "save() is for a step with @checkpoint and for the processes that it starts, which inherit its "
                "environment variables; this is neither, so there is no task to save for."
            )
        if self._saver is None:
            self._saver = Saver(
                task.identity,
                door.stores,
                collect=self._collect,
                board=task.board,
                log=_log.info,
                keep=task.keep,
            )
        saver = self._saver
        saver.turns, saver.found, saver.parent = task.turns, task.found, self._parent
        self._values = values
        try:
            return saver.save(
                name,
                metadata=metadata,
                latest=latest,
                wait=not task.background if wait is None else wait,
                path=path,
            )
        except UnserializableError as error:
            # The saver calls the values attributes of self; here they have no such owner.
            raise (error.__cause__ if isinstance(error.__cause__, UnserializableError) else error) from None
        finally:
            self._values = {}

    def close(self) -> None:
        """Finish what is being saved and close all. Raises the first error that nobody has seen."""
        self._directory.close()
        door, self._door = self._door, None
        saver, self._saver = self._saver, None
        try:
            if saver is not None:
                saver.settle()
        finally:
            if door is not None:
                door.close()

    def close_quietly(self) -> None:
        """Close where nobody is told, as the object is gone or an error is on its way: what fails is logged."""
        if threading.current_thread().name.startswith("ckptstore"):
            return  # a store's own thread cannot wait for itself; the interpreter's end closes it
        try:
            self.close()
        except Exception as error:  # noqa: BLE001  # nobody is left to raise it to
            _log.error("while closing the checkpoints: %s: %s", type(error).__name__, error)

    def _fill(self, into: Path) -> None:
        if self._files_of is not None:
            store, ref = self.door().library.find(self._files_of)
            _restore(store, store.inspect(ref), into)

    def _collect(self, path: Path | None) -> dict[str, Any]:
        files = self._directory.fields() if path is None else self._directory.collect(path)
        values = {**self._values, **files}
        if not values:
            raise CheckpointException(
                "there is nothing to save: give values, such as save({'model': model}), or a path, or put files "
                "into `directory`."
            )
        return values


def _restore(store: ckptstore.CheckpointStore, manifest: ckptstore.Manifest, into: Path) -> None:
    restore_files(manifest.fields, lambda names: store.load(manifest.checkpoint.ref, fields=names), into)
