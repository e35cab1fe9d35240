"""How often something is saved: every so many times, or every so often."""

from __future__ import annotations

import re

from .errors import CheckpointArgumentError

__all__ = ["Cadence", "Every"]

Every = int | str
"""A count (``10``) or a duration (``"5 min"``)."""

_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+)", re.ASCII)


class Cadence:
    """Tells when a save is due, given how many times there was an occasion and what time it is.

    ``every`` is a count, or a text: a number and ``ms``, ``s``, ``min``, ``h``
    or ``d``. A count makes each multiple due (10, 20, 30...), also if it is
    asked late; a duration what lies that long after the last save, or after
    the beginning. Both are asked again and again until ``saved`` is said.

    Raises CheckpointArgumentError for anything else.
    """

    __slots__ = ("_count", "_interval_s", "_saved_n", "_saved_s")

    def __init__(self, every: Every, *, n: int = 0, now_s: float) -> None:
        self._count, self._interval_s = _parse(every)
        self._saved_n = n
        self._saved_s = now_s

    def due(self, n: int, now_s: float) -> bool:
        """Tell whether the ``n``-th occasion, at this time of a monotonic clock, is one to save at."""
        if self._count:
            return n // self._count > self._saved_n // self._count
        return now_s - self._saved_s >= self._interval_s

    def saved(self, n: int, now_s: float) -> None:
        """Take note of a save: the next is due so much later."""
        self._saved_n, self._saved_s = n, now_s


def _parse(every: object) -> tuple[int, float]:
    """Return a count and 0 seconds, or 0 and the seconds."""
    if isinstance(every, int) and not isinstance(every, bool) and every > 0:
        return every, 0.0
    if isinstance(every, str):
        match = _DURATION.fullmatch(every)
        if match is not None and match.group(2) in _SECONDS:
            interval_s = float(match.group(1)) * _SECONDS[match.group(2)]
            if interval_s > 0:
                return 0, interval_s
    raise CheckpointArgumentError(
        f"every must be a count such as 10, or a duration such as '30 s' or '5 min': a number above zero and "
        f"{', '.join(_SECONDS)}. It is {every!r}."
    )
