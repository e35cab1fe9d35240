"""`save(every=...)`: a call in a hot loop that saves now and then."""

from __future__ import annotations

import pytest
from looping import Attempts, hold_commits
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError
from metaflow_extensions.ckptstore.plugins.checkpoint.recurring import Recurring


@pytest.fixture
def task(tmp_path):
    return Attempts(tmp_path)


class Clock:
    now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


def test_every_so_many_calls_one_saves(task):
    with task.begin() as checkpoint:
        task.flow.x = 1
        saved = [checkpoint.save(every=3) is not None for _ in range(8)]
    assert saved == [False, False, True, False, False, True, False, False]


def test_a_duration_counts_from_the_first_call_and_from_each_save(task, clock):
    with task.begin() as checkpoint:
        task.session.recurring = Recurring(clock)
        task.flow.x = 1
        clock.now_s = 1000.0
        saved = []
        for _ in range(9):
            saved.append(checkpoint.save(every="10 s") is not None)
            clock.now_s += 4.0
    assert saved == [False, False, False, True, False, False, True, False, False]


def test_calls_are_told_apart_by_name_and_every(task):
    with task.begin() as checkpoint:
        task.flow.x = 1
        for _ in range(6):
            checkpoint.save("a", every=2)
            checkpoint.save("b", every=3)
            checkpoint.save(name="a", every=6)
    assert [one.name for one in task.saved] == ["a", "b", "a", "a", "b", "a"]


def test_a_call_that_would_wait_for_a_background_save_leaves_it_to_the_next(task):
    with task.begin() as checkpoint:
        task.flow.x = 1
        gate = hold_commits(task.session)
        gate.close()
        first = checkpoint.save(every=1, wait=False)
        gate.wait_arrived()
        assert checkpoint.save(every=1, wait=False) is None
        assert checkpoint.save("other", every=1, wait=False) is None
        gate.open()
        first.wait()
        assert checkpoint.save(every=1, wait=False) is not None


def test_wrong_arguments_are_told_by_the_first_call_though_it_saves_nothing(task):
    with task.begin() as checkpoint:
        task.flow.x = 1
        for every in ("soon", 0, True, 1.5):
            with pytest.raises(CheckpointArgumentError, match="every must be a count"):
                checkpoint.save(every=every)
        with pytest.raises(CheckpointArgumentError, match="metadata must be a mapping"):
            checkpoint.save("a", metadata=3, every="1 h")
        with pytest.raises(CheckpointArgumentError, match="name must be"):
            checkpoint.save(name=["b"], every="1 h")
        checkpoint.save("c", every=1)
        with pytest.raises(CheckpointArgumentError, match="every must be a count"):
            checkpoint.save("c", every=True)


def test_after_a_notice_the_next_call_saves_once(task, clock):
    with task.begin() as checkpoint:
        task.session.recurring = Recurring(clock)
        task.flow.x = 1
        assert checkpoint.save(every="1 h") is None
        task.session.preemption.is_noticed = True
        assert checkpoint.preempted
        assert checkpoint.save(every="1 h") is not None
        assert checkpoint.save(every="1 h") is None
