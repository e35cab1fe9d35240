"""``save(every=...)``: a call that is made often and saves now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable

from .cadence import Cadence, Every
from .errors import CheckpointArgumentError

__all__ = ["Occasion", "Recurring"]


class Occasion:
    """One such call: how often it was made, and when it saved. Its time begins with the first."""

    __slots__ = ("_cadence", "_clock", "_is_rescued", "_n", "_saved_n", "_saved_s")

    def __init__(self, every: Every, clock: Callable[[], float]) -> None:
        self._cadence = Cadence(every)
        self._clock = clock
        self._n = self._saved_n = 0
        self._saved_s = clock()
        self._is_rescued = False

    @property
    def is_new(self) -> bool:
        """Whether ``comes`` was not asked before."""
        return self._n == 0

    def comes(self, *, is_preempted: bool) -> bool:
        """Count a call and tell whether it is to save; once the machine is about to go away, one is at once."""
        self._n += 1
        if is_preempted and not self._is_rescued:
            return True
        return self._cadence.is_due(self._n, saved_n=self._saved_n, elapsed_s=self._clock() - self._saved_s)

    def saved(self, *, is_preempted: bool) -> None:
        """Take note that the call has saved."""
        self._saved_n, self._saved_s = self._n, self._clock()
        self._is_rescued = is_preempted


class Recurring:
    """The calls of one attempt, told apart by what they save as and how often."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._occasions: dict[Hashable, Occasion] = {}

    def occasion(self, what: Hashable, every: Every) -> Occasion:
        """Return what is known of such a call. Raises CheckpointArgumentError for a wrong ``every``."""
        try:
            # Of its type too: True is not 1 here.
            found = self._occasions.get((what, every, type(every)))
        except TypeError as error:
            Cadence(every)
            raise CheckpointArgumentError(f"a checkpoint's name must be a text, not {what!r}.") from error
        if found is None:
            found = self._occasions[what, every, type(every)] = Occasion(every, self._clock)
        return found
