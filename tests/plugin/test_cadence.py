"""What `every` may say, and when it makes a save due."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metaflow_extensions.ckptstore.plugins.checkpoint.cadence import Cadence
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError


@pytest.mark.parametrize(
    ("every", "seconds"),
    [
        ("5 min", 300),
        ("30 s", 30),
        ("30s", 30),
        ("1 h", 3600),
        ("500 ms", 0.5),
        ("1.5 h", 5400),
        ("2 d", 172800),
    ],
)
def test_a_duration_is_a_number_and_a_unit(every, seconds):
    cadence = Cadence(every)
    assert not cadence.is_due(10**9, saved_n=0, elapsed_s=seconds * 0.999)
    assert cadence.is_due(1, saved_n=1, elapsed_s=seconds)


WRONG_TEXTS = ["", "5", "min", "5 minutes", "5 MIN", "5  min", " 5 min", "5 min ", "-5 min", "0 s", "0.0 min"]
WRONG_TEXTS += ["1e3 s", "5,5 s", "inf s", "\u0665 min", "5 min 30 s"]


@pytest.mark.parametrize(
    "every", [0, -1, True, False, 1.5, None, b"5 min", [], ("5 min",), *WRONG_TEXTS], ids=repr
)
def test_anything_else_is_refused_with_what_is_accepted(every):
    with pytest.raises(CheckpointArgumentError, match=r"count such as 10.*ms, s, min, h, d"):
        Cadence(every)


def test_a_count_makes_its_multiples_due():
    cadence = Cadence(3)
    due, saved_n = [], 0
    for n in range(1, 11):
        if cadence.is_due(n, saved_n=saved_n, elapsed_s=0.0):
            due.append(n)
            saved_n = n
    assert due == [3, 6, 9]


def test_what_was_missed_stays_due_and_does_not_move_the_multiples():
    cadence = Cadence(10)
    assert [cadence.is_due(n, saved_n=0, elapsed_s=0.0) for n in (9, 10, 11, 12)] == [False, True, True, True]
    assert [cadence.is_due(n, saved_n=12, elapsed_s=0.0) for n in (13, 19, 20)] == [False, False, True]


def test_a_count_that_starts_in_the_middle_keeps_the_multiples():
    cadence = Cadence(5)
    assert [cadence.is_due(n, saved_n=7, elapsed_s=0.0) for n in (8, 9, 10)] == [False, False, True]


@given(st.integers(1, 50), st.integers(0, 10**6), st.integers(0, 200))
def test_a_count_is_due_exactly_if_a_multiple_lies_behind_the_last_save(count, saved_n, later):
    n = saved_n + later
    crossed = any(m % count == 0 for m in range(saved_n + 1, n + 1))
    assert Cadence(count).is_due(n, saved_n=saved_n, elapsed_s=1e9) == crossed
