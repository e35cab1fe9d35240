"""What a process may do with checkpoints: read them anywhere, and save them in a task or in a process of one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass

from metaflow.metaflow_current import current

import ckptstore
from ckptstore.errors import StoreNotFoundError

from ..card import Board
from ..current_checkpoint import CurrentCheckpoint
from ..errors import CheckpointException
from ..library import Library
from ..scope import TaskIdentity
from ..session import Session
from ..storage.place import Place, configured_place
from ..storage.stores import Stores
from ..turns import Turns
from .children import VARIABLE, Offer, inherited_offer

__all__ = ["Door", "Task", "open_door", "standing"]

_log = logging.getLogger("ckptstore")


@dataclass(frozen=True, slots=True)
class Task:
    """The task that a process belongs to."""

    identity: TaskIdentity
    turns: Turns | None
    background: bool
    keep: ckptstore.Keep | None
    found: ckptstore.CheckpointRef | None
    board: Board
    """What is told of saves; the card is written by the task's own process only."""


class Door:
    """The stores that a process reads, and the task that it may save for; nothing is opened before it is used."""

    def __init__(
        self, stores: Stores, library: Library, *, task: Task | None, close: Callable[[], None]
    ) -> None:
        self.stores = stores
        self.library = library
        self.task = task
        self.close = close
        """Closes what is this door's own."""


def open_door(datastore: str | None, datastore_root: str | None) -> Door:
    """Return what this process may do, by what it is: a task, a process that a task started, or neither.

    A datastore that is given by its kind or root is read instead of the one that
    is configured or the task's; nothing is saved there. Raises
    CheckpointException if it is not to be had.
    """
    if datastore is not None or datastore_root is not None:
        return _outside(configured_place(_log.info, kind=datastore, root=datastore_root))
    session = _session()
    if session is not None and session.pid == os.getpid():
        return _of_session(session)
    # A task of another flow, run by a task of ours, inherits the variable and is no child in this sense.
    if session is not None or not current.is_running_flow:
        offer = inherited_offer()
        if offer is not None:
            return _of_child(offer)
    try:
        return _outside(configured_place(_log.info, kind=None, root=None))
    except CheckpointException as error:
        return _outside(_Nowhere(error))


def standing() -> object:
    """Return what ``open_door`` goes by: while it is equal, the same door will do."""
    session = _session()
    turns = None if session is None else session.saver.turns
    return os.getpid(), session, turns, current.is_running_flow, os.environ.get(VARIABLE)


def _session() -> Session | None:
    running = current.get("checkpoint")
    return running._session if isinstance(running, CurrentCheckpoint) else None


def _of_session(session: Session) -> Door:
    options, saver = session.options, session.saver
    task = Task(session.identity, saver.turns, options.background, options.keep, saver.found, session.board)
    return Door(session.stores, session.library, task=task, close=lambda: None)


def _of_child(offer: Offer) -> Door:
    stores = Stores(offer.place(_log.info), _log.info)
    task = Task(
        offer.identity,
        Turns.of_child(offer.folder),
        offer.background,
        None if offer.keep is None else ckptstore.Keep.parse(offer.keep),
        None if offer.found is None else ckptstore.CheckpointRef.from_dict(offer.found),
        Board(offer.identity.pathspec, offer.identity.attempt, writer=None),
    )
    return Door(stores, Library(stores, settle=lambda: None), task=task, close=stores.close)


def _outside(place: Place) -> Door:
    stores = Stores(place, _log.info)
    return Door(stores, Library(stores, settle=lambda: None), task=None, close=stores.close)


class _Nowhere(Place):
    """The place of who has no datastore; a task is still read, from where its metadata says."""

    def __init__(self, why: CheckpointException) -> None:
        self._why = why
        self.kind = self.root = ""
        self.url = "no datastore"

    def open(self, *, create: bool) -> ckptstore.CheckpointStore:
        raise StoreNotFoundError(str(self._why))
