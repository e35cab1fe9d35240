"""How long something has taken, by every clock that could tell."""

from __future__ import annotations

import time
from dataclasses import dataclass

__all__ = ["Clock", "Reading"]


@dataclass(frozen=True, slots=True)
class Reading:
    """One moment, by the boot clock and the wall clock, in seconds."""

    boot_s: float
    wall_s: float


class Clock:
    """The clocks of this machine. Tests give their own."""

    def boot_s(self) -> float:
        """Seconds since the boot, counting time asleep where the system can tell."""
        if hasattr(time, "CLOCK_BOOTTIME"):
            return time.clock_gettime(time.CLOCK_BOOTTIME)
        return time.monotonic()

    def wall_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def read(self) -> Reading:
        return Reading(self.boot_s(), self.wall_s())

    def elapsed_s(self, since: Reading, store_s: float | None = None) -> float:
        """Return the longest time since then that any clock, or the storage's own time, shows.

        Clocks stand still, jump and drift; whoever must not be late believes the
        one that says it is latest.
        """
        elapsed = max(self.boot_s() - since.boot_s, self.wall_s() - since.wall_s)
        return elapsed if store_s is None else max(elapsed, store_s - since.wall_s)
