"""Whatever way a step ends, what was being saved is finished or its failure is told."""

import pytest

pytestmark = pytest.mark.metaflow


@pytest.fixture(scope="module")
def ran(run_flow):
    return run_flow("ways_out")


def test_background_is_the_default_that_the_decorator_sets(ran):
    assert ran.told["pending"] is True


def test_background_save_is_finished_on_sys_exit(ran):
    assert ran.told["interrupted1"] == "before exit"


def test_background_save_is_finished_on_keyboard_interrupt(ran):
    assert ran.told["interrupted2"] == "before interrupt"


def test_what_another_decorator_saves_after_the_step_is_finished_too(ran):
    assert ran.told["afterwards"] == ["after the step", "before interrupt", "before exit"]


def test_catch_still_catches_after_all_retries(ran):
    assert ran.told["caught"] == [1, True]
    assert "always fails" in str(ran.run["caught"].task.data.failure)


def test_a_failed_background_save_is_raised_where_it_is_waited_for_and_stays_failed(ran):
    assert ran.told["raised_when_waited"].startswith("BackendError: cannot write")
    assert "was never saved" in ran.told["raised_when_used"]
    assert "failed" in ran.told["repr"]


def test_a_failed_background_save_that_nobody_waited_for_fails_the_step(ran):
    assert "NOT saved 'too large again'" in ran.log
    assert ran.told["full1"] == "fits"
