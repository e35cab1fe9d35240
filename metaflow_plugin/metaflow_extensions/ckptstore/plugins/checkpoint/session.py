"""One attempt of a task, from its start to its end: what stands behind ``current.checkpoint``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from metaflow.flowspec import FlowSpec

import ckptstore
from ckptstore.errors import StoreNotFoundError

from .artifact import CheckpointArtifact
from .card import Board, CardWriter
from .destination import Destination
from .files.task_files import TaskFiles
from .flow_state import FlowState
from .history import History
from .library import Library
from .loops.loop import Loops
from .loops.loop_host import LoopHost, has_positions
from .options import Options
from .outside.children import make_offer, withdraw_offer
from .preempting.marks import Marks
from .preempting.preemption import Preemption
from .recurring import Recurring
from .reference import Reference
from .restoring import Restorer
from .saving import Saver, size_text
from .scope import TaskIdentity
from .starting.start import find_start
from .storage.place import Place
from .storage.stores import Stores

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
        card: CardWriter | None = None,
    ) -> None:
        self.identity = identity
        self.pid = os.getpid()
        """The task's own process; a forked one has a copy of all this."""
        self.options = options
        self.log = log
        self.stores = Stores(place, log, origin=origin)
        self.state = FlowState(flow, include=options.include, exclude=options.exclude, warn=log)
        self.board = Board(identity.pathspec, identity.attempt, writer=card, keep=options.keep)
        self.saver = Saver(
            identity,
            self.stores,
            collect=self._collect,
            board=self.board,
            log=log,
            keep=options.keep,
            is_resting=lambda: self.loops.is_resting,
        )
        self.library = Library(self.stores, settle=self.saver.settle)
        self.history = History(self.board, self.library)
        self.files = TaskFiles(
            options.temp_dir_root,
            library=self.library,
            start=lambda: self.info,
            restored=self._took_files,
            log=log,
        )
        self.restorer = Restorer(
            library=self.library,
            state=self.state,
            files=self.files,
            went_on_from=self._went_on_from,
            described=self.described,
            log=log,
        )
        self.recurring = Recurring()
        self.marks = Marks(self.saver, log=log)
        self.preemption = Preemption(
            self.saver, self.marks, saves_mark=options.on_preemption == "save", log=log
        )
        self.loops = Loops(
            LoopHost(
                identity,
                state=self.state,
                saver=self.saver,
                restorer=self.restorer,
                preemption=self.preemption,
                start=lambda: self.info,
                log=log,
            )
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
            self.saver.found = start.checkpoint.ref
            self.board.found(self.info)
            if has_positions(start.checkpoint, self.identity):
                self.loops.expect()
            self.log(
                f"found {self.described(self.info)}, {start.what}; current.checkpoint.load() restores it"
            )
        elif start.what:
            self.log(f"found no checkpoint; looked for {start.what}")
        if self.identity.attempt > 0:
            with contextlib.suppress(StoreNotFoundError):
                self.history.look_at_earlier(self.stores.own(create=False), self.identity)

    def open_to_children(self) -> None:
        """Let processes that the step starts save for this task, until it closes; the decorator calls it once."""
        self.saver.turns = make_offer(self.identity, self.stores.place, self.options, found=self.saver.found)
        if self.saver.turns is None:
            self.log("no folder for temporary files can be made: processes of this step cannot save")

    def watch(self, notice: str | None) -> None:
        """Watch for the end of the machine until ``close``; ``notice``: the file that announces it, if any."""
        self.preemption.start(notice=notice, sigterm=self.options.sigterm)

    def restore(self, reference: Reference, fields: Sequence[str] | None, destination: Destination) -> None:
        """Restore what the user asks for; loops that have yet to begin go on where it was saved."""
        checkpoint, positions = self.restorer.load(reference, fields, destination=destination)
        if fields is None:
            positions = positions if has_positions(checkpoint, self.identity) else None
            self.loops.adopt(reference, positions, destination)
        elif self.info is not None and self.info.ref == checkpoint.ref:
            self.loops.aim(destination)

    def described(self, artifact: CheckpointArtifact) -> str:
        """Return a checkpoint in a few words, for the log."""
        task = "" if artifact.pathspec == self.identity.pathspec else f"{artifact.pathspec}, "
        return f"{artifact.name!r} of {task}attempt {artifact.attempt} ({size_text(artifact.size)})"

    def close(self) -> None:
        """Finish the background saves and close the stores; a later use opens them again.

        Raises the first error of a background save that nobody has seen.
        """
        self._close(has_failed=False)

    def _close(self, *, has_failed: bool) -> None:
        with contextlib.ExitStack() as ending:
            ending.callback(self.preemption.release)
            ending.callback(self._close_to_children)
            # Closing the stores waits for their threads, which tell the board how saves have ended.
            ending.push(lambda kind, error, trace: self.board.finish(failed=has_failed or error is not None))
            ending.callback(self.stores.close)
            ending.callback(self.history.stop)
            ending.callback(self.preemption.stop)
            self.loops.close()
            self.saver.settle()

    def close_after_error(self) -> None:
        """Close while an exception is on its way: what fails is told on the log and hides nothing."""
        try:
            self.saver.finish()
            self._close(has_failed=True)
        except Exception as error:  # noqa: BLE001  # the step's own exception goes on
            self.log(f"failed as the step ended: {type(error).__name__}: {error}")

    def _close_to_children(self) -> None:
        turns, self.saver.turns = self.saver.turns, None
        if turns is not None:
            withdraw_offer(turns)

    def _went_on_from(self, store: ckptstore.CheckpointStore, checkpoint: ckptstore.Checkpoint) -> None:
        self.saver.parent = checkpoint.ref
        self.history.look_at_ancestors(store, checkpoint)

    def _took_files(self, store: ckptstore.CheckpointStore, checkpoint: ckptstore.Checkpoint) -> None:
        # A step may take up the files of a checkpoint and never call load().
        if self.saver.parent is None:
            self._went_on_from(store, checkpoint)

    def _collect(self, path: Path | None) -> dict[str, Any]:
        files = self.files.fields(path)
        return self.state.collect(may_be_none=bool(files)) | files | self.loops.fields()
