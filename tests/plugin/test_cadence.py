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
    cadence = Cadence(every, now_s=1000.0)
    assert not cadence.due(10**9, 1000.0 + seconds * 0.999)
    assert cadence.due(1, 1000.0 + seconds)


WRONG_TEXTS = ["", "5", "min", "5 minutes", "5 MIN", "5  min", " 5 min", "5 min ", "-5 min", "0 s", "0.0 min"]
WRONG_TEXTS += ["1e3 s", "5,5 s", "inf s", "\u0665 min", "5 min 30 s"]


@pytest.mark.parametrize(
    "every", [0, -1, True, False, 1.5, None, b"5 min", [], ("5 min",), *WRONG_TEXTS], ids=repr
)
def test_anything_else_is_refused_with_what_is_accepted(every):
    with pytest.raises(CheckpointArgumentError, match=r"count such as 10.*ms, s, min, h, d"):
        Cadence(every, now_s=0.0)


def test_a_count_makes_its_multiples_due():
    cadence = Cadence(3, now_s=0.0)
    due = []
    for n in range(1, 11):
        if cadence.due(n, 0.0):
            due.append(n)
            cadence.saved(n, 0.0)
    assert due == [3, 6, 9]


def test_what_was_missed_stays_due_and_does_not_move_the_multiples():
    cadence = Cadence(10, now_s=0.0)
    assert [cadence.due(n, 0.0) for n in (9, 10, 11, 12)] == [False, True, True, True]
    cadence.saved(12, 0.0)
    assert [cadence.due(n, 0.0) for n in (13, 19, 20)] == [False, False, True]


def test_a_count_that_starts_in_the_middle_keeps_the_multiples():
    cadence = Cadence(5, n=7, now_s=0.0)
    assert [cadence.due(n, 0.0) for n in (8, 9, 10)] == [False, False, True]


@given(
    interval=st.integers(1, 50),
    steps=st.lists(st.integers(0, 20), max_size=200),
    busy=st.lists(st.booleans(), min_size=200, max_size=200),
)
def test_saves_are_never_closer_than_the_interval_and_never_skipped_for_long(interval, steps, busy):
    cadence = Cadence(f"{interval} s", now_s=0.0)
    now, last = 0.0, 0.0
    for step, is_busy in zip(steps, busy, strict=False):
        now += step
        due = cadence.due(1, now)
        assert due == (now - last >= interval)
        if due and not is_busy:
            cadence.saved(1, now)
            last = now
