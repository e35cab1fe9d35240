"""Restoring: a checkpoint's attributes onto ``self`` and its files into the directory, all of it or nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import ckptstore

from .artifact import CheckpointArtifact
from .artifact_serializers import restored
from .destination import ANEW, Destination
from .files.task_files import TaskFiles
from .flow_state import FlowState
from .library import Library, choose_fields
from .loops.loop_position import Positions
from .reference import Reference
from .reserved import LOOP

__all__ = ["Restorer"]


class Restorer:
    """Restores checkpoints in one attempt of a task, and tells where its state came from."""

    def __init__(
        self,
        *,
        library: Library,
        state: FlowState,
        files: TaskFiles,
        went_on_from: Callable[[ckptstore.CheckpointStore, ckptstore.Checkpoint], None],
        described: Callable[[CheckpointArtifact], str],
        log: Callable[[str], None],
    ) -> None:
        self._library = library
        self._state = state
        self._files = files
        self._went_on_from = went_on_from
        self._described = described
        self._log = log

    def load(
        self, reference: Reference, fields: Sequence[str] | None = None, *, destination: Destination = ANEW
    ) -> tuple[ckptstore.Checkpoint, Positions | None]:
        """Restore, see ``CurrentCheckpoint.load``; return the checkpoint and, of all of it, where its loops were."""
        store, ref = self._library.find(reference)
        started = time.perf_counter()
        manifest = store.inspect(ref)
        checkpoint = manifest.checkpoint
        chosen = choose_fields(checkpoint, fields)
        destination.check(checkpoint, chosen)
        self._state.check_restorable(chosen)
        positions: Positions | None = None
        with self._files.staged(store, manifest, wanted=fields is None) as move_in:
            noted = [LOOP] if fields is None and LOOP in checkpoint.fields else []
            loaded = store.load(ref, fields=[*chosen, *noted], trusted=True, **destination.arguments())
            values = restored(loaded, trusted=True)
            if noted:
                positions = Positions.from_plain(values.pop(LOOP))
            move_in()
            self._state.restore(values)
        self._went_on_from(store, checkpoint)
        what = self._described(self._library.artifact(checkpoint))
        names = ", ".join(sorted(chosen)) or "no attributes"
        self._log(f"restored {what} in {time.perf_counter() - started:.2f} s: {names}")
        return checkpoint, positions
