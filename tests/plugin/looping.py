"""Attempts of a step that is written as one function, and a storage whose commits can be held up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.session import Session
from sessions import Flow, begin_attempt

import ckptstore
from ckptstore.backends.local import LocalBackend
from ckptstore.testing import Fault, FaultyBackend, Gate, SlowBackend

Step = Callable[[Any, CurrentCheckpoint], None]


class Attempts:
    """Attempts of one task; ``flow`` is that of the last, ``log`` of all."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.n = 0
        self.flow: Any = None
        self.log: list[str] = []
        self.session: Session | None = None

    @contextlib.contextmanager
    def begin(self, **options: Any) -> Iterator[CurrentCheckpoint]:
        """Give ``current.checkpoint`` of the next attempt, and end it as the decorator does."""
        self.flow = Flow()
        session = self.session = begin_attempt(
            self.n, self.root, self.flow, log=self.log.append, **{"show_card": False, **options}
        )
        self.n += 1
        try:
            yield CurrentCheckpoint(session)
        except BaseException:
            session.close_after_error()
            raise
        session.close()

    def run(self, step: Step, **options: Any) -> Any:
        """Run the step to its end and return the flow."""
        with self.begin(**options) as checkpoint:
            step(self.flow, checkpoint)
        return self.flow

    def fail(self, step: Step, error: type[BaseException] = ZeroDivisionError, **options: Any) -> Any:
        """Run a step that must raise, and return the flow."""
        try:
            self.run(step, **options)
        except error:
            return self.flow
        raise AssertionError(f"the step did not raise {error.__name__}")

    @property
    def saved(self) -> list[Any]:
        """All artifacts of the task, oldest first."""
        with self.begin(load_policy="none") as checkpoint:
            self.n -= 1
            return checkpoint.list()[::-1]


def hold_commits(session: Session, *faults: Fault) -> Gate:
    """Let the session's storage wait before each commit while the gate that is returned is closed; it is open."""
    gates: list[Gate] = []
    root = session.stores.place.url

    async def make(executor: Any) -> SlowBackend:
        inner = LocalBackend(root, durability="os", executor=executor)
        await inner.open(create=True)
        slow = SlowBackend(FaultyBackend(inner, *faults))
        gates.append(slow.gate("put", "manifests/"))
        gates[-1].open()
        return slow

    place: Any = session.stores.place
    place.open = lambda *, create: ckptstore.CheckpointStore.open(make, create=True)
    session.stores.own(create=True)
    return gates[0]
