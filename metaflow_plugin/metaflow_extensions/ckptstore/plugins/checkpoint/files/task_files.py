"""The files of a task's checkpoints: which its directory begins with, and how they get there and away."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ckptstore

from ..artifact import CheckpointArtifact
from ..library import Library
from .directory import CheckpointDirectory
from .directory_names import INDEX
from .directory_restore import restore_files

__all__ = ["TaskFiles"]


class TaskFiles:
    """Ties the directory of one attempt of a task to the checkpoints it restores.

    The directory begins with the files of the checkpoint that was last loaded,
    or else of the one that was found at the task's start, which ``start``
    tells; a checkpoint that was saved without a directory says nothing of it.
    ``restored`` is told of the checkpoint when its files are taken up at the first use.
    """

    def __init__(
        self,
        temp_dir_root: str | None,
        *,
        library: Library,
        start: Callable[[], CheckpointArtifact | None],
        restored: Callable[[ckptstore.CheckpointStore, ckptstore.Checkpoint], None],
        log: Callable[[str], None],
    ) -> None:
        self._library = library
        self._start = start
        self._restored = restored
        self._log = log
        self._told: set[str] = set()
        self._loaded: CheckpointArtifact | None = None
        self._directory = CheckpointDirectory(temp_dir_root, fill=self._fill, log=self.tell_once)

    @property
    def directory(self) -> str:
        """See ``CurrentCheckpoint.directory``."""
        return str(self._directory.path)

    def fields(self, path: Path | None) -> dict[str, object]:
        """Return the fields of a save: the files of ``path``, or else of the directory if it is in use."""
        if path is not None:
            return self._directory.collect(path)
        # What was loaded belongs to the state, whether or not the step has looked at it yet.
        if self._loaded is not None and not self._directory.in_use:
            return self._directory.collect(self._directory.path)
        return self._directory.fields()

    @contextlib.contextmanager
    def staged(
        self, store: ckptstore.CheckpointStore, manifest: ckptstore.Manifest, *, wanted: bool = True
    ) -> Iterator[Callable[[], None]]:
        """Prepare a checkpoint's files; what is given makes the directory hold them and nothing else.

        That replaces all or raises and changes none. A directory that is not in
        use yet gets them when it first is. It stays as it is if the checkpoint
        was saved without one, or if its files are not ``wanted``.
        """
        if not wanted or INDEX not in manifest.fields:
            yield lambda: None
            return
        kept = self._library.artifact(manifest.checkpoint, store.url)
        with contextlib.ExitStack() as stack:
            exchange: Callable[[], None] = lambda: None  # noqa: E731
            if self._directory.in_use:
                exchange = stack.enter_context(
                    self._directory.staged(lambda into: _restore(store, manifest, into))
                )

            def move_in() -> None:
                exchange()
                self._loaded = kept

            yield move_in

    def close(self) -> None:
        """Remove the directory."""
        self._directory.close()

    def tell_once(self, message: str) -> None:
        """Log what the user should know and not read at every save."""
        if message not in self._told:
            self._told.add(message)
            self._log(message)

    def _fill(self, into: Path) -> None:
        reference = self._start() if self._loaded is None else self._loaded
        if reference is None:
            return
        started = time.perf_counter()
        store, ref = self._library.find(reference)
        manifest = store.inspect(ref)
        if INDEX in manifest.fields:
            _restore(store, manifest, into)
            self._restored(store, manifest.checkpoint)
            self._log(
                f"restored the files of {manifest.checkpoint.label!r} in {time.perf_counter() - started:.2f} s: {into}"
            )


def _restore(store: ckptstore.CheckpointStore, manifest: ckptstore.Manifest, into: Path) -> None:
    restore_files(manifest.fields, lambda names: store.load(manifest.checkpoint.ref, fields=names), into)
