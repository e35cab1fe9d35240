"""``current.checkpoint.mark``: a consistent point in memory, for the case that the machine goes away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from ..saving import Captured, Saver

__all__ = ["Marks"]


class Marks:
    """The last point that the user marked. It is taken by the step, and saved by another thread."""

    def __init__(self, saver: Saver, *, log: Callable[[str], None]) -> None:
        self._saver = saver
        self._log = log
        self._lock = threading.Lock()
        self._last: Captured | None = None

    def take(self, name: str, metadata: Mapping[str, Any] | None) -> None:
        """Capture the state as it is now; the mark before it is given up."""
        mark = self._saver.capture(name, metadata)
        with self._lock:
            before, self._last = self._last, mark
        if before is not None:
            before.held.discard()

    def save(self) -> None:
        """Save the last mark, unless what was saved since is newer. Behind what is in flight."""
        # A newer mark may be taken while this one is written, a newer save has to wait.
        with self._saver.lock:
            with self._lock:
                mark, self._last = self._last, None
            if mark is None:
                return
            if mark.number < self._saver.committed_number:
                mark.held.discard()
                self._log("what was saved since the last mark is newer, so the mark is not needed")
                return
            self._saver.save_captured(mark)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to save."""
        return self._last is None
