"""``current.checkpoint.mark``: a consistent point in memory, for the case that the machine goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ckptstore

from .saving import Saver

__all__ = ["Marks"]


@dataclass(frozen=True, slots=True)
class _Mark:
    captured: ckptstore.CapturedSave
    number: int


class Marks:
    """The last point that the user marked. It is taken by the step, and saved by another thread."""

    def __init__(self, saver: Saver, *, collection: str, log: Callable[[str], None]) -> None:
        self._saver = saver
        self._collection = collection
        self._log = log
        self._lock = threading.Lock()
        self._last: _Mark | None = None

    def take(self, name: str, metadata: Mapping[str, Any] | None) -> None:
        """Capture the state as it is now; the mark before it is given up."""
        mark = _Mark(*self._saver.capture(name, metadata))
        with self._lock:
            before, self._last = self._last, mark
        if before is not None:
            before.captured.discard()

    def save(self) -> None:
        """Save the last mark, unless what was saved since is newer. Behind what is in flight."""
        # A newer mark may be taken while this one is written, a newer save has to wait.
        with self._saver.lock:
            with self._lock:
                mark, self._last = self._last, None
            if mark is None:
                return
            if mark.number < self._saver.committed_number:
                mark.captured.discard()
                self._log("what was saved since the last mark is newer, so the mark is not needed")
                return
            started_s = time.perf_counter()
            saved = self._saver.in_turn(self._collection, mark.captured.save)
            self._saver.committed(saved, mark.number, blocked_s=time.perf_counter() - started_s)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to save."""
        return self._last is None
