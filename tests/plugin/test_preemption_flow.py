"""Tasks whose machine goes away, in a real flow."""

import pytest

pytestmark = pytest.mark.metaflow


@pytest.fixture(scope="module")
def ran(run_flow):
    return run_flow("preempted")


def test_sigterm_in_the_middle_of_a_background_save_lets_it_end_and_kills_then(ran):
    assert ran.told["pending0"] is True
    assert ran.told["found0"] is None
    assert ran.told["found1"] == "in flight"
    assert "survived" not in ran.told
    assert "SIGTERM: what is being saved is finished" in ran.log


def test_the_next_attempt_goes_on_from_the_mark_and_not_from_what_was_half_done(ran):
    assert ran.told["found2"] == "marked"
    assert ran.told["parts"] == [1, 1]


def test_nothing_is_installed_in_a_step_that_did_not_ask(ran):
    assert ran.told["handler"] is True
    assert ran.told["descriptor"] == -1
    assert ran.told["preempted"] is False


def test_after_a_notice_the_loop_saves_behind_the_iteration_that_is_under_way(ran):
    assert "a notice that the machine goes away" in ran.log
    assert ran.told["done"] == [0, 1, 2, 3]
    assert "restored 'mfchckpt'" in ran.log


def test_the_task_that_is_noticed_has_one_watcher(ran):
    assert ran.told["watcher"].count("ckptstore-preemption") == 1
