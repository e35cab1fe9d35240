"""Models are state although they are callable, and still belong to their optimizer after a load."""

import pytest

pytest.importorskip("torch")
pytestmark = [pytest.mark.metaflow, pytest.mark.torch]


@pytest.fixture(scope="module")
def told(run_flow):
    return run_flow("torch_state").told


def test_modules_are_saved(told):
    assert told["callable"] is True
    assert told["fields"] == ["best", "epoch", "loss_of", "model", "optimizer"]
    assert "float32" in told["leaf"]


def test_the_optimizer_holds_the_models_parameters_after_a_load(told):
    assert told["retried"] == 1
    assert told["held"] is True
    assert told["alias"] is True


def test_training_goes_on_with_the_restored_optimizer(told):
    assert told["trained"] is True
    assert told["steps"] == 4


def test_numbers_of_torch_in_metadata_become_numbers(told):
    assert told["metadata"] == {"epoch": 4}
