"""What was before an attempt, looked up for its card."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator

import ckptstore

from .card import Board
from .library import Library
from .scope import TaskIdentity

__all__ = ["History"]

MAX_ANCESTORS = 200
MAX_EARLIER = 200


class History:
    """Tells a board what a loaded checkpoint descends from, and what earlier attempts of the task saved.

    That takes requests to the store, one or two a checkpoint, so it is done in
    threads beside the step. Nothing waits for them longer than ``stop`` says,
    and what cannot be read ends the look: a card fails no step.
    """

    def __init__(self, board: Board, library: Library) -> None:
        self._board = board
        self._library = library
        self._looks: list[_Look] = []
        self._of_loaded: _Look | None = None

    def look_at_ancestors(self, store: ckptstore.CheckpointStore, loaded: ckptstore.Checkpoint) -> None:
        """Tell of a checkpoint that was loaded, and soon of those that it descends from."""
        if not self._board.is_on:
            return
        if self._of_loaded is not None:
            self._of_loaded.stop()
        self._board.loaded(self._library.artifact(loaded, store.url))
        if loaded.parent is not None:
            self._of_loaded = self._look(
                _ancestors(store, loaded),
                lambda one: self._board.descends_from(self._library.artifact(one, store.url)),
            )

    def look_at_earlier(self, store: ckptstore.CheckpointStore, identity: TaskIdentity) -> None:
        """Tell soon of what earlier attempts of the task saved in its line."""
        if self._board.is_on:
            self._look(
                itertools.islice(_earlier(store, identity), MAX_EARLIER),
                lambda one: self._board.earlier(
                    self._library.artifact(one, store.url), latest=one.attributes.get("latest") is True
                ),
            )

    def stop(self, wait_s: float = 0.05) -> None:
        """Wait for what is under way, for so long in all; what is found later is not told. Idempotent."""
        if not self._board.is_on:
            return
        until = time.monotonic() + wait_s
        looks, self._looks = self._looks, []
        for look in looks:
            look.join(max(0.0, until - time.monotonic()))
            look.stop()

    def _look(
        self, found: Iterator[ckptstore.Checkpoint], tell: Callable[[ckptstore.Checkpoint], None]
    ) -> _Look:
        look = _Look(found, tell)
        with contextlib.suppress(RuntimeError):  # the process may have no more threads
            look.start()
            self._looks.append(look)
        return look


class _Look(threading.Thread):
    """Goes through checkpoints and tells of each. A daemon: the interpreter does not wait for it."""

    def __init__(
        self, found: Iterator[ckptstore.Checkpoint], tell: Callable[[ckptstore.Checkpoint], None]
    ) -> None:
        super().__init__(name="ckptstore-history", daemon=True)
        self._found = found
        self._tell = tell
        self._lock = threading.Lock()
        self._is_stopped = False

    def run(self) -> None:
        try:
            for checkpoint in self._found:
                with self._lock:
                    if self._is_stopped:
                        return
                    self._tell(checkpoint)
        except Exception:  # noqa: BLE001  # it is gone, in another store, or this one was closed
            return

    def stop(self) -> None:
        """Tell no more."""
        with self._lock:
            self._is_stopped = True


def _ancestors(
    store: ckptstore.CheckpointStore, checkpoint: ckptstore.Checkpoint
) -> Iterator[ckptstore.Checkpoint]:
    for _ in range(MAX_ANCESTORS):
        if checkpoint.parent is None:
            return
        checkpoint = store.inspect(checkpoint.parent).checkpoint
        yield checkpoint


def _earlier(store: ckptstore.CheckpointStore, identity: TaskIdentity) -> Iterator[ckptstore.Checkpoint]:
    """Yield what earlier attempts of the task saved in its line, the newest first."""
    for checkpoint in store.list(identity.collection, run=identity.run):
        if checkpoint.attributes.get("attempt", 0) < identity.attempt:
            yield checkpoint
