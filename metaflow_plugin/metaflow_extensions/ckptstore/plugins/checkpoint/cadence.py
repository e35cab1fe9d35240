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
    """Tells when a save is due. It keeps nothing in mind, so it can be asked again and again.

    ``every`` is a count, or a text: a number and ``ms``, ``s``, ``min``, ``h``
    or ``d``. Raises CheckpointArgumentError for anything else.
    """

    __slots__ = ("_count", "_interval_s")

    def __init__(self, every: Every) -> None:
        self._count, self._interval_s = _parse(every)

    def is_due(self, n: int, *, saved_n: int, elapsed_s: float) -> bool:
        """Tell whether the ``n``-th occasion, so long after the last save or the beginning, is one to save at.

        With a count each multiple is one (10, 20, 30...), or the next occasion
        after it if nothing was saved since; ``saved_n`` is the last that was.
        """
        if self._count:
            return n // self._count > saved_n // self._count
        return elapsed_s >= self._interval_s


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
