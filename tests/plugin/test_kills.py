"""A task that is killed resumes from the last checkpoint that was whole, and retention holds over kills."""

import pytest

pytestmark = pytest.mark.metaflow


@pytest.fixture(scope="module")
def told(run_flow):
    return run_flow("kills").told


def test_a_task_killed_in_a_background_save_resumes_from_the_one_before(told):
    assert told["found1"] == ["whole 0", 0]
    assert told["state1"] is True


def test_a_task_killed_in_a_blocking_save_resumes_from_the_one_before(told):
    assert told["found2"] == ["whole 1", 1]
    assert told["state2"] is True


def test_a_task_that_leaves_by_os_exit_in_a_background_save_resumes_from_the_one_before(told):
    assert told["found3"] == ["whole 2", 2]
    assert told["state3"] is True


def test_a_task_killed_right_after_the_commit_resumes_from_that_save(told):
    assert told["found4"] == ["just in time", 3]
    assert told["state4"] is True


def test_interrupted_saves_are_listed_nowhere(told):
    assert told["names"] == ["just in time", "whole 3", "whole 2", "whole 1", "whole 0"]


def test_fifty_saves_of_a_step_that_keeps_the_last_three_leave_three(told):
    assert told["kept"] == ["epoch 50", "epoch 49", "epoch 48"]


def test_a_kill_among_many_saves_loses_at_most_the_one_in_flight(told):
    name, epoch = told["killed_at"]
    assert name == f"epoch {epoch}"
    assert epoch in (9, 10)


def test_retention_after_a_kill_keeps_the_last_three_and_the_one_that_was_loaded(told):
    assert told["kept_when_killed"] == ["epoch 20", "epoch 19", "epoch 18", told["killed_at"][0]]
