"""Saving: what a task writes, in the foreground and in the background."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ckptstore
from ckptstore.errors import UnserializableError

from .artifact import CheckpointArtifact
from .artifact_serializers import noted, serialized
from .card import Board
from .library import Library
from .scope import TaskIdentity
from .storage.stores import Stores
from .turns import Turns

__all__ = ["Captured", "Saver", "size_text"]


@dataclass(frozen=True, slots=True)
class Captured:
    """A state in memory that may be saved later, and its place among the states of the attempt."""

    held: ckptstore.CapturedSave
    number: int
    name: str
    metadata: Mapping[str, Any]


_IN_LOOP = (
    "it can be loaded, but a retry goes on from what the loop itself saves, between two. "
    "save(latest=True) lets it begin the iteration again from there"
)


@dataclass(frozen=True, slots=True)
class _Flight:
    """A background save that is under way."""

    artifact: CheckpointArtifact
    pending: ckptstore.PendingSave
    number: int
    blocked_s: float


class Saver:
    """Saves the state of one attempt of a task, and knows what is still on its way.

    ``board`` is told of each save from its beginning to its end.
    """

    def __init__(
        self,
        identity: TaskIdentity,
        stores: Stores,
        *,
        collect: Callable[[Path | None], Mapping[str, Any]],
        board: Board,
        log: Callable[[str], None],
        keep: ckptstore.Keep | None = None,
        is_resting: Callable[[], bool] = lambda: True,
    ) -> None:
        # What a task may start from stays, however many were saved with latest=False after it.
        self._keep = None if keep is None else keep | ckptstore.last(1, attributes={"latest": True})
        self._identity = identity
        self._stores = stores
        self._collect = collect
        self._board = board
        self._log = log
        self._is_resting = is_resting
        self._flights: list[_Flight] = []
        self._deferred: list[BaseException] = []
        self._number = 0
        self._has_told_of_loops = False
        self.committed_number = 0
        """The number of the newest state that is durable and that a task may start from."""
        self.lock = threading.RLock()
        """Held by whoever saves, or waits for what is saved: the step, or the watcher of its end."""
        self._pid = os.getpid()
        self._library = Library(stores, settle=self.settle)
        self.turns: Turns | None = None
        """What other processes of the task save in turn with; None: there are none."""
        self.parent: ckptstore.CheckpointRef | None = None
        """The checkpoint that the state was restored from."""
        self.found: ckptstore.CheckpointRef | None = None
        """The checkpoint that was found at the task's start; like the parent, retention leaves it alone."""

    def save(
        self,
        name: str,
        *,
        metadata: Mapping[str, Any] | None,
        latest: bool | None,
        wait: bool,
        path: Path | None = None,
        shared: bool = False,
    ) -> CheckpointArtifact:
        """Save the state as it is now, see ``CurrentCheckpoint.save``."""
        collection = self._identity.line_to_save(shared)
        self._check_process()
        with self.lock:
            self.settle()
            # None is for what is in the middle of an iteration of a loop: no task may start from it.
            in_loop = latest is None and not self._is_resting()
            latest = not in_loop if latest is None else latest
            if in_loop and not self._has_told_of_loops:
                self._has_told_of_loops = True
                self._log(f"{name!r} is saved in the middle of an iteration: {_IN_LOOP}")
            # Reading files and artifacts blocks the step as well.
            started_s = time.perf_counter()
            row = self._board.save_started(name, metadata, latest=latest)
            try:
                request, number = self._request(name, metadata, latest, path, in_loop=in_loop)
                request["collection"] = collection
                if not wait:
                    return self._save_in_background(name, request, number, row, started_s)
                with _attribute_paths():
                    saved = self._in_turn(
                        collection, lambda: self._stores.own(create=True).save(**request, wait=True)
                    )
            except BaseException as error:
                self._board.save_failed(row, error, blocked_s=time.perf_counter() - started_s)
                raise
            blocked_s = time.perf_counter() - started_s
            artifact = self._committed(saved, number, blocked_s)
            self._board.saved(row, artifact, blocked_s=blocked_s, background_s=0.0)
            return artifact

    def reserve(self, nbytes: int) -> None:
        """Have memory for background saves of so many bytes ready, in the background."""
        self._check_process()
        self._stores.own(create=True).reserve(nbytes, wait=False)

    def capture(self, name: str, metadata: Mapping[str, Any] | None) -> Captured:
        """Hold the state as it is now, which the user says is one to start from."""
        request, number = self._request(name, metadata, True, None)
        with _attribute_paths():
            held = self._stores.own(create=True).capture(**request)
        return Captured(held, number, name, request["metadata"])

    def save_captured(self, captured: Captured) -> None:
        """Save what was captured, in a thread beside the step. Raises as the store does."""
        started_s = time.perf_counter()
        row = self._board.save_started(captured.name, captured.metadata)
        self._board.captured(row, 0.0)
        try:
            saved = self._in_turn(self._identity.collection, captured.held.save)
        except BaseException as error:
            self._board.save_failed(row, error)
            raise
        took_s = time.perf_counter() - started_s
        artifact = self._committed(saved, captured.number, took_s)
        self._board.saved(row, artifact, blocked_s=0.0, background_s=took_s)

    @property
    def is_saving(self) -> bool:
        """Whether a background save has not ended yet."""
        return any(not flight.pending.done() for flight in self._flights)

    def defer(self, errors: Sequence[BaseException]) -> None:
        """Keep errors that cannot be raised where they were met for whoever saves next, or settles."""
        self._deferred.extend(errors)

    def settle(self) -> None:
        """Wait for the background saves and raise the first error that nobody has seen."""
        errors = self.finish()
        if errors:
            raise errors[0]

    def finish(self) -> Sequence[BaseException]:
        """Wait for the background saves, tell of each, and return the errors that nobody has seen.

        Raises nothing else but what the handler of a signal raises meanwhile, as @timeout's
        does: the saves go on, and can be waited for again.
        """
        self._check_process()
        with self.lock:
            errors = [*self._land(), *self._deferred]
            self._deferred = []
            return errors

    def _land(self) -> Sequence[Exception]:
        errors: Sequence[Exception] = []
        while self._flights:
            flight = self._flights[0]
            seen = flight.artifact.has_failed
            try:
                flight.artifact.wait()
            except Exception as error:
                if not flight.artifact.has_failed:
                    raise
                self._log(f"NOT saved {flight.artifact.name!r}: {type(error).__name__}: {error}")
                errors = errors if seen else [*errors, error]
            else:
                self.committed_number = max(self.committed_number, flight.number)
                self._log(_saved(flight.artifact, f"in the background, {flight.blocked_s:.2f} s blocked"))
            self._flights.pop(0)
        return errors

    def _check_process(self) -> None:
        if self._pid != os.getpid():  # in a forked child: they are the task's
            self._pid = os.getpid()
            self._flights = []
            self._deferred = []
            self.lock = threading.RLock()

    def _in_turn(self, collection: str, save: Callable[[], ckptstore.Checkpoint]) -> ckptstore.Checkpoint:
        """Return what the save into this collection returns, made in the turn of this process."""
        with contextlib.ExitStack() as turn:
            turn.callback(self._take_turn(collection))
            return save()

    def _committed(self, saved: ckptstore.Checkpoint, number: int, took_s: float) -> CheckpointArtifact:
        artifact = self._library.artifact(saved)
        self.committed_number = max(self.committed_number, number)
        self._log(_saved(artifact, f"{took_s:.2f} s"))
        return artifact

    def _request(
        self,
        name: str,
        metadata: Mapping[str, Any] | None,
        latest: bool,
        path: Path | None,
        *,
        in_loop: bool = False,
    ) -> tuple[dict[str, Any], int]:
        """Return what the store is asked to save of the state as it is now, and the number of that state.

        It is 0 for what no task may start from.
        """
        self._number += 1
        values = serialized(self._collect(path))
        request = {
            "collection": self._identity.collection,
            "values": values,
            "label": name,
            "run": self._identity.run,
            "metadata": dict(metadata or {}),
            "attributes": {
                "pathspec": self._identity.pathspec,
                "attempt": self._identity.attempt,
                "latest": latest,
                **({"in_loop": True} if in_loop else {}),
                **noted(values),
            },
            "parent": self.parent,
            "keep": self._keep,
            "protect": () if self.found is None else (self.found,),
        }
        return request, self._number if latest else 0

    def _take_turn(self, collection: str) -> Callable[[], None]:
        """Wait until no other process of the task saves into its line; what is returned ends the turn."""
        turns = self.turns
        if turns is None or collection != self._identity.collection:
            return lambda: None
        turns.enter(lambda: self._stores.own(create=True).begin(collection, anew=True))
        return turns.leave

    def _save_in_background(
        self, name: str, request: dict[str, Any], number: int, row: int, started_s: float
    ) -> CheckpointArtifact:
        leave = self._take_turn(request["collection"])
        try:
            with _attribute_paths():
                pending = self._stores.own(create=True).save(**request, wait=False)
        except BaseException:
            leave()
            raise
        pending.add_done_callback(lambda _: leave())
        blocked_s = time.perf_counter() - started_s
        self._board.captured(row, blocked_s)
        pending.add_done_callback(lambda ended: self._tell_end(ended, row, started_s, blocked_s))
        artifact = CheckpointArtifact(
            {
                "name": name,
                "pathspec": self._identity.pathspec,
                "attempt": self._identity.attempt,
                "store_url": self._stores.url,
            },
            commit=pending.result,
            ended=pending.done,
            inspect=self._library.inspect,
        )
        self._flights.append(_Flight(artifact, pending, number, blocked_s))
        return artifact

    def _tell_end(self, ended: ckptstore.PendingSave, row: int, started_s: float, blocked_s: float) -> None:
        """Tell the board how a background save has ended, in the store's thread."""
        background_s = time.perf_counter() - started_s - blocked_s
        try:
            saved = ended.result()
            assert saved is not None  # as it is of saves that may be skipped
            artifact = self._library.artifact(saved)
        except Exception as error:  # noqa: BLE001  # whoever waits for the save is told
            self._board.save_failed(row, error)
        else:
            self._board.saved(row, artifact, blocked_s=blocked_s, background_s=background_s)


@contextlib.contextmanager
def _attribute_paths() -> Iterator[None]:
    """Let the path of a value that cannot be saved start at ``self``."""
    try:
        yield
    except UnserializableError as error:
        raise UnserializableError(
            f"self.{error.path} cannot be saved: {error}",
            field=error.field,
            path=f"self.{error.path}",
            type_name=error.type_name,
        ) from error


def _saved(artifact: CheckpointArtifact, how: str) -> str:
    return f"saved {artifact.name!r}: {size_text(artifact.size)}, {size_text(artifact.new_bytes)} new, {how}"


def size_text(n_bytes: int) -> str:
    """Return a number of bytes for people."""
    power = max(0, min(4, (n_bytes.bit_length() - 1) // 10))
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{n_bytes / 1024**power:.{1 if power else 0}f} {unit}"
