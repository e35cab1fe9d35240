"""Stores a card's page where Metaflow's own commands, client and UI look for it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from metaflow import metaflow_config
from metaflow.datastore.flow_datastore import FlowDataStore
from metaflow.plugins.cards.card_datastore import CardDatastore

from .facts import CardFacts
from .page import render

__all__ = ["CARD_ID", "CARD_TYPE", "CardWriter"]

CARD_TYPE = "checkpoint"
CARD_ID = "checkpoint"

_NAMESPACE = uuid.UUID("0bd0ab5c-0a49-4d3e-9d2a-5cf2f7a3d21b")


class CardWriter:
    """Writes one task's card, from a thread that nothing waits for longer than ``finish_timeout_s``.

    ``storage`` is the DataStoreStorage of the task's run, ``pathspec`` the
    task's. All attempts of a task have one card. No process is started, and
    what cannot be written is told on ``log`` once: a card fails no step.
    """

    def __init__(
        self,
        storage: Any,
        pathspec: str,
        *,
        log: Callable[[str], None],
        interval_s: float = 2.0,
        finish_timeout_s: float = 2.0,
    ) -> None:
        self._storage = storage
        self._pathspec = pathspec
        self._log = log
        self._interval_s = interval_s
        self._finish_timeout_s = finish_timeout_s
        self._pid = os.getpid()
        # Reentrant: the handler of a signal may save.
        self._lock = threading.RLock()
        # Two, so that an update does not wake a worker that waits for its interval to pass.
        self._changed = threading.Condition(self._lock)
        self._ended = threading.Condition(self._lock)
        self._newest: Callable[[], CardFacts] | None = None
        self._is_final = False
        self._worker: threading.Thread | None = None
        self._stores: list[CardDatastore] | None = None
        self._error: Exception | None = None
        self._has_told = False

    def update(self, facts: Callable[[], CardFacts]) -> None:
        """Let a page be written soon, of what ``facts`` gives then; returns at once."""
        if os.getpid() == self._pid:
            with self._lock:
                self._hand_over(facts)

    def finish(self, facts: Callable[[], CardFacts]) -> None:
        """Write the last page now, and wait for it until ``finish_timeout_s`` have passed."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._hand_over(facts)
            self._is_final = True
            self._ended.notify_all()
            is_written = self._ended.wait_for(lambda: self._worker is None, self._finish_timeout_s)
            error = self._error
        if not is_written:
            self._tell(f"was not written within {self._finish_timeout_s:g} s")
        elif error is not None:
            self._tell(f"could not be written: {type(error).__name__}: {error}")

    def _hand_over(self, facts: Callable[[], CardFacts]) -> None:
        self._newest = facts
        if self._worker is None:
            # A daemon: the interpreter does not wait for it, whatever the storage does.
            worker = threading.Thread(target=self._write_on, name="ckptstore-card", daemon=True)
            try:
                worker.start()
            except RuntimeError as error:  # the process may have no more threads
                self._error = error
                return
            self._worker = worker
        self._changed.notify()

    def _write_on(self) -> None:
        while True:
            with self._lock:
                self._changed.wait_for(lambda: self._newest is not None)
                facts, self._newest = self._newest, None
                is_final = self._is_final
            started = time.monotonic()
            error = self._write(facts) if facts is not None else None
            took_s = time.monotonic() - started
            with self._lock:
                self._error = error
                if is_final and self._newest is None:
                    self._is_final, self._worker = False, None
                    self._ended.notify_all()
                    return
                # Where writing is slow it is done more rarely: at most a tenth of the time.
                self._ended.wait_for(lambda: self._is_final, max(self._interval_s, 9 * took_s))

    def _write(self, facts: Callable[[], CardFacts]) -> Exception | None:
        try:
            if self._stores is None:
                self._stores = _card_stores(self._storage, self._pathspec)
            page = render(facts())
            card = uuid.uuid5(_NAMESPACE, self._pathspec).hex
            for store in self._stores:
                store.save_card(  # type: ignore[no-untyped-call]  # Metaflow's
                    card, CARD_TYPE, page, card_id=CARD_ID, overwrite=True
                )
        except Exception as error:  # noqa: BLE001  # whatever the storage raises; told by finish()
            return error
        return None

    def _tell(self, what: str) -> None:
        if not self._has_told:
            self._has_told = True
            self._log(f"the card of this task {what}")


def _card_stores(storage: Any, pathspec: str) -> list[CardDatastore]:
    """Return where the task's card belongs: where Metaflow's client looks, and where its commands do.

    The client looks beside the run's datastore, the commands where the
    configuration says; mostly that is one place.
    """
    own = str(storage.datastore_root).rstrip("/")
    roots = [f"{own}/{metaflow_config.CARD_SUFFIX}"]
    # Without a configured root the commands search one from the current folder, which a step may change.
    if storage.TYPE not in ("local", "spin") or metaflow_config.CARD_LOCALROOT:
        with contextlib.suppress(NotImplementedError):  # a datastore that Metaflow's commands do not know
            configured = CardDatastore.get_storage_root(storage.TYPE)  # type: ignore[no-untyped-call]  # Metaflow's
            # Given no root they look in the datastore itself.
            roots.append(str(configured or own).rstrip("/"))
    return [_card_store(storage, root, pathspec) for root in dict.fromkeys(roots)]


def _card_store(storage: Any, root: str, pathspec: str) -> CardDatastore:
    flow = pathspec.split("/")[0]
    flow_datastore = FlowDataStore(  # type: ignore[no-untyped-call]  # Metaflow's
        flow, environment=None, storage_impl=type(storage), ds_root=root
    )
    client = getattr(storage, "s3_client", None)
    if client is not None:
        # Making a client of its own would cost more than the page.
        flow_datastore._storage_impl.s3_client = client
    return CardDatastore(flow_datastore, pathspec=pathspec)  # type: ignore[no-untyped-call]  # Metaflow's
