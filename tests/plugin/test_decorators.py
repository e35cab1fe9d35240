"""@checkpoint beside @catch, @timeout, @retry and users' step decorators, whatever their order."""

import pytest

pytestmark = pytest.mark.metaflow

ORDERS = ["a", "b", "c", "d", "e", "f"]


@pytest.fixture(scope="module")
def told(run_flow):
    return run_flow("orders").told


@pytest.fixture(scope="module")
def fallbacks(run_flow):
    return run_flow("fallbacks")


@pytest.mark.parametrize("order", ORDERS)
def test_a_timeout_during_a_background_save_leaves_it_whole_and_the_retry_goes_on_there(told, order):
    assert told[f"{order}0"] is None
    assert told[f"{order}1"] == ["in flight", 0]
    assert told[f"{order}1 state"] == [0, 1000]


@pytest.mark.parametrize("order", ORDERS)
def test_a_timeout_in_a_blocking_save_leaves_it_whole_or_absent(told, order):
    assert told[f"{order}2"] in (["blocking", 1], ["in flight", 0])
    assert told[f"{order}2 state"] == [told[f"{order}2"][1], 1000]


@pytest.mark.parametrize("order", ORDERS)
def test_a_timeout_while_the_steps_end_waits_for_a_save_leaves_it_whole_and_is_caught(told, order):
    assert told[f"{order} caught"] is True
    assert told[f"{order} names"][0] == "at the end"
    assert told[f"{order} kept"] == [True, 2]


@pytest.mark.parametrize("order", ["inside", "outside"])
def test_catch_falls_back_after_deaths_and_all_checkpoints_stay(fallbacks, order):
    assert fallbacks.told[f"{order}_caught"] is True
    assert fallbacks.told[f"{order} names"] == ["attempt 1", "attempt 0"]


def test_a_users_step_decorator_loads_before_the_step_and_saves_after_it(fallbacks):
    assert fallbacks.told["resumed"] == [2, ["after the step", "in the step", "in the step"]]


def test_what_replaces_the_step_saves_and_is_found_again_though_it_exits(fallbacks):
    assert fallbacks.told["replaced0"] is None
    assert fallbacks.told["replaced1"] == "by another body"
    assert fallbacks.told["body"] == "another"


def test_a_step_that_is_skipped_needs_no_checkpoint(fallbacks):
    assert fallbacks.told["skipped"] == [False, 0]
    assert fallbacks.run["skipped"].task.successful


def test_an_error_that_a_users_decorator_swallows_finds_its_save_finished(fallbacks):
    assert fallbacks.told["swallowed"] == ["ValueError", "before the error"]
    assert fallbacks.told["swallowed_epoch"] == 7
