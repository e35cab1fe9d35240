"""How often to save: the interval that loses the least time."""

from __future__ import annotations

import math

__all__ = ["recommended_interval_s"]


def recommended_interval_s(cost_s: float, mtbf_s: float) -> float:
    """Return the seconds between two saves at which saving and redoing cost least together.

    ``cost_s`` is what one save costs the computation, ``mtbf_s`` the mean time
    between two failures, both in seconds and above 0. Saving costs ``cost / t``
    of the time and each failure redoes ``t / 2`` on average; their sum is
    smallest at ``sqrt(2 * cost * mtbf)``.

    Source: J. W. Young, A first order approximation to the optimum checkpoint
    interval, Communications of the ACM 17(9), 1974; J. T. Daly, A higher order
    estimate of the optimum checkpoint interval for restart dumps, Future
    Generation Computer Systems 22(3), 2006, whose estimate agrees with it where
    the cost is far below the time between failures, and is the mean time
    between failures itself where the cost is at least twice that: saving more
    rarely than failures come would not get anywhere.
    """
    if cost_s >= 2 * mtbf_s:
        return mtbf_s
    return math.sqrt(2 * cost_s * mtbf_s)
