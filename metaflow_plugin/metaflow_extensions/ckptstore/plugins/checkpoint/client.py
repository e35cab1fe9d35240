"""``from metaflow import Checkpoint``: the checkpoints of any task, outside of flows and in a task's processes."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

# Metaflow's generator of stubs keeps the parameters of these, and drops those of `list` and `dict`.
from typing import Any, Dict, List  # noqa: UP035

from metaflow.flowspec import FlowSpec

import ckptstore

# The rest is imported where it is used: Metaflow imports this module in every process of every flow.
from .artifact import CheckpointArtifact
from .errors import CheckpointArgumentError
from .reference import Reference
from .save_arguments import StrPath, check_save, check_storage_format

__all__ = ["Checkpoint"]

DEFAULT_NAME = "mfchckpt"

_log = logging.getLogger("ckptstore")

# Metaflow's generator of stubs follows names from `metaflow`, and none leads to what `current` gives.
_addl_stubgen_modules = ["metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint"]


class Checkpoint:
    """The checkpoints of any task, from a notebook, a script, a task, or a process that a task has started.

    It reads everywhere; it saves in a task with ``@checkpoint`` and in the
    processes that such a task starts, under the task's name and attempt. The
    store is opened when it is first needed, and closed by ``close``, at the end
    of a ``with`` block, when the object is gone or the interpreter ends. It
    works where an event loop is running.

    ``temp_dir_root`` is where ``directory`` is made: by default where temporary
    files go, when it is first used, or at once with ``init_dir``. ``datastore``
    and ``datastore_root`` say which datastore to read, as the options of a flow
    do, instead of the task's own or the one that Metaflow is configured for;
    nothing is saved then.
    """

    def __init__(
        self,
        temp_dir_root: str | None = None,
        init_dir: bool = False,
        *,
        datastore: str | None = None,
        datastore_root: str | None = None,
    ) -> None:
        from .outside.client_state import ClientState

        self._state = ClientState(temp_dir_root, datastore, datastore_root)
        # Not a method of this object: that would keep it alive.
        weakref.finalize(self, self._state.close_quietly)
        if init_dir:
            _ = self.directory

    @property
    def directory(self) -> str:
        """A temporary directory of this object, made when this is first used; it goes when the object is closed.

        It begins with the files of the checkpoint that was last loaded, and
        ``load`` replaces them. Its files are part of what ``save`` saves.
        """
        return self._state.directory

    def list(
        self,
        name: str | None = None,
        task: object = None,
        attempt: int | None = None,
        full_namespace: bool = False,
        *,
        shared: bool | None = None,
    ) -> List[CheckpointArtifact]:  # noqa: UP006
        """Return checkpoints, newest first.

        ``task`` is a Task, also one that still runs, a Step or a Run, or the
        pathspec of one. Those of one task are in the store's own order, between
        tasks of a step or run the writers' clocks decide. ``name`` and
        ``attempt`` narrow that. In a task with ``@checkpoint``, and in a process
        that it started, ``task`` may be left out for its own, and
        ``full_namespace=True`` gives all of its step and foreach branch in the
        namespace, of every run; ``shared`` as in ``current.checkpoint.list``.

        Raises CheckpointArgumentError without ``task`` elsewhere, and the store's errors.
        """
        door = self._state.door()
        return door.library.listed(
            None if door.task is None else door.task.identity,
            name=name,
            task=task,
            attempt=attempt,
            full_namespace=full_namespace,
            shared=shared,
        )

    def load(
        self,
        reference: Reference,
        path: StrPath | None = None,
        *,
        fields: Sequence[str] | None = None,
        onto: object = None,
        trusted: bool = True,
    ) -> Dict[str, Any]:  # noqa: UP006
        """Return a checkpoint's attributes by name; with ``path`` write its files there instead.

        ``reference`` is an artifact, its dict or its key, or a Task or its
        pathspec, which stand for the newest one that was not saved with
        ``latest=False``. ``fields``: only attributes of these names. ``onto``:
        also set them on this object, all or none. ``path``: a new or empty
        directory, which gets the files of ``current.checkpoint.directory``;
        the attributes are not loaded and the dict is empty. Without ``path``
        and ``fields`` the files are those of ``directory``: at once if it is in
        use, or else when it first is.

        A reference pins what is loaded, and everything is verified before
        anything is built. ``trusted``: what is pickled is unpickled, as
        Metaflow's client does with artifacts; with ``trusted=False`` no code of
        the checkpoint's runs, and what would need it raises
        UntrustedPickleError.

        Raises CheckpointArgumentError for anything else, CheckpointException if
        there is no such field, file or attribute of ``onto``, and the store's
        errors; ``onto``, ``path`` and ``directory`` are as they were then.
        """
        from .artifact_serializers import restored
        from .files.files_outside import write_files
        from .library import choose_fields
        from .onto import attributes_set

        if path is not None and (fields is not None or onto is not None):
            raise CheckpointArgumentError(
                "path is for files: without it fields and onto say which attributes."
            )
        library = self._state.door().library
        store, ref = library.find(reference)
        manifest = store.inspect(ref)
        if path is not None:
            write_files(store, manifest, Path(path))
            return {}
        chosen = choose_fields(manifest.checkpoint, fields)
        with self._state.staged(store, manifest, wanted=fields is None) as finish:
            values = restored(store.load(ref, fields=chosen, trusted=trusted), trusted=trusted)
            with attributes_set(onto, {} if onto is None else values):
                finish()
        return values

    def handle(
        self,
        reference: Reference,
        *,
        fields: Sequence[str] | None = None,
        trusted: bool = True,
        device: str | None = None,
    ) -> ckptstore.CheckpointHandle:
        """Open a checkpoint to load parts of its attributes, see ``current.checkpoint.handle``.

        It serves as long as this object is there and open.
        """
        library = self._state.door().library
        return library.handle(reference, fields=fields, trusted=trusted, device=device)

    def inspect(self, reference: Reference) -> Dict[str, Any]:  # noqa: UP006
        """Return what a checkpoint holds without reading its data, see ``current.checkpoint.inspect``."""
        return self._state.door().library.inspect(reference)

    def diff(self, a: Reference, b: Reference) -> ckptstore.Diff:
        """Return what changed from checkpoint ``a`` to ``b``, see ``current.checkpoint.diff``."""
        return self._state.door().library.diff(a, b)

    def save(
        self,
        values: object = None,
        /,
        metadata: Mapping[str, Any] | None = None,
        latest: bool = True,
        name: str = DEFAULT_NAME,
        storage_format: str | None = None,
        *,
        path: StrPath | None = None,
        wait: bool | None = None,
    ) -> CheckpointArtifact:
        """Save values for the task that this process belongs to, and return the checkpoint's artifact.

        ``values`` is a mapping of names to values, or an object whose
        attributes are saved; a path object or a text is the ``path`` of a
        directory or a file to save. Without ``path`` the files are those of
        ``directory``, if it is in use. ``name``, ``metadata``,
        ``latest``, ``storage_format`` and ``wait`` as in ``current.checkpoint.save``.

        All processes of a task save one after the other: this one waits until
        what another has in flight is saved, and what is saved later is listed
        as newer. Raises CheckpointException outside of a task with
        ``@checkpoint`` and of the processes that it starts, and when the task
        has ended; else as ``current.checkpoint.save``.
        """
        check_save(name, metadata, latest, wait)
        check_storage_format(storage_format, _log.info)
        if isinstance(values, (str, os.PathLike)):
            if path is not None:
                raise CheckpointArgumentError(f"save was given two paths, {values!r} and path={path!r}.")
            values, path = None, values
        if path is not None and not os.path.exists(path):
            raise CheckpointArgumentError(f"there is no file or directory {os.fspath(path)!r} to save.")
        return self._state.save(
            name,
            _fields_of(values),
            path=None if path is None else Path(path),
            metadata=metadata,
            latest=latest,
            wait=wait,
        )

    def delete(self, reference: Reference) -> None:
        """Make a checkpoint invisible, see ``current.checkpoint.delete``."""
        self._state.door().library.delete(reference)

    def undelete(self, reference: Reference) -> None:
        """Bring a deleted checkpoint back, see ``current.checkpoint.undelete``."""
        self._state.door().library.undelete(reference)

    def pin(self, reference: Reference) -> None:
        """Keep retention away from a checkpoint. Idempotent."""
        self._state.door().library.pin(reference)

    def unpin(self, reference: Reference) -> None:
        """Take the pin away. Idempotent."""
        self._state.door().library.unpin(reference)

    def close(self) -> None:
        """Finish what is being saved, close the stores and remove the directory; a later use opens them again.

        Raises what a background save failed with, if nobody has been told.
        """
        self._state.close()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._state.close_quietly()


def _fields_of(values: object) -> dict[str, Any]:
    """Return what is to be saved by name: of a mapping, or of an object's attributes; nothing of None."""
    if values is None:
        return {}
    if isinstance(values, FlowSpec):
        raise CheckpointArgumentError("the attributes of a flow are saved by current.checkpoint.save().")
    if not isinstance(values, Mapping):
        try:
            values = {name: value for name, value in vars(values).items() if not name.startswith("__")}
        except TypeError:
            raise CheckpointArgumentError(
                f"values must be a mapping of names to values, or an object with attributes, not {values!r:.80}."
            ) from None
    wrong = [name for name in values if not isinstance(name, str) or not name.isidentifier()]
    if wrong:
        raise CheckpointArgumentError(f"names of values must be names of attributes; {wrong[0]!r} is none.")
    return dict(values)
