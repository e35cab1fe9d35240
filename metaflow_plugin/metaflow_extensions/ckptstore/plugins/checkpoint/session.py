"""One attempt of a task, from its start to its end: what stands behind ``current.checkpoint``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaflow.flowspec import FlowSpec

import ckptstore

from .artifact import CheckpointArtifact
from .flow_state import FlowState
from .library import Library
from .options import Options
from .place import Place
from .saving import Saver, size_text
from .scope import TaskIdentity
from .start import find_start
from .stores import Stores
from .task_files import TaskFiles

__all__ = ["Session"]


class Session:
    """The parts that one attempt works with, and how they end.

    Created by the decorator. The store is opened when it is first needed, so a
    step that never uses ``current.checkpoint`` pays nothing.
    """

    def __init__(
        self,
        flow: FlowSpec,
        *,
        identity: TaskIdentity,
        options: Options,
        place: Place,
        log: Callable[[str], None],
        origin: Place | None = None,
    ) -> None:
        self.identity = identity
        self.options = options
        self.log = log
        self.stores = Stores(place, log, origin=origin)
        self.state = FlowState(flow, include=options.include, exclude=options.exclude, warn=log)
        self.saver = Saver(identity, self.stores, collect=self._collect, log=log)
        self.library = Library(self.stores, settle=self.saver.settle)
        self.files = TaskFiles(
            options.temp_dir_root,
            library=self.library,
            start=lambda: self.info,
            restored=self._resume_from,
            log=log,
        )
        self.info: CheckpointArtifact | None = None
        """The checkpoint that was found at the task's start."""

    def find_start(self) -> None:
        """Look for the checkpoint that this attempt starts from; the decorator calls it once."""
        try:
            start = find_start(self.options.load_policy, self.identity, self.stores, log=self.log)
        except BaseException:
            self.stores.close()
            raise
        if start.checkpoint is not None:
            self.info = self.library.artifact(start.checkpoint, start.store_url)
            self.log(
                f"found {self.described(self.info)}, {start.what}; current.checkpoint.load() restores it"
            )
        elif start.what:
            self.log(f"found no checkpoint; looked for {start.what}")

    def described(self, artifact: CheckpointArtifact) -> str:
        """Return a checkpoint in a few words, for the log."""
        task = "" if artifact.pathspec == self.identity.pathspec else f"{artifact.pathspec}, "
        return f"{artifact.name!r} of {task}attempt {artifact.attempt} ({size_text(artifact.size)})"

    def close(self) -> None:
        """Finish the background saves and close the stores; a later use opens them again.

        Raises the first error of a background save that nobody has seen.
        """
        try:
            self.saver.settle()
        finally:
            self.stores.close()

    def close_after_error(self) -> None:
        """Close while an exception is on its way: what fails is told on the log and hides nothing."""
        try:
            self.saver.finish()
            self.close()
        except Exception as error:  # noqa: BLE001  # the step's own exception goes on
            self.log(f"failed as the step ended: {type(error).__name__}: {error}")

    def _resume_from(self, ref: ckptstore.CheckpointRef) -> None:
        # A step may take up the files of a checkpoint and never call load().
        if self.saver.parent is None:
            self.saver.parent = ref

    def _collect(self, path: Path | None) -> dict[str, Any]:
        files = self.files.fields(path)
        return self.state.collect(may_be_none=bool(files)) | files
