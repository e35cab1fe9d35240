"""@checkpoint that is added by mutators, and arguments from a configuration."""

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.decorator import CheckpointDecorator
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError

pytestmark = pytest.mark.metaflow


@pytest.fixture(scope="module")
def told(run_flow):
    return run_flow("mutators").told


def test_a_flow_mutator_adds_it_by_name_with_arguments_of_the_configuration(told):
    assert told["by_name"] == ["eager", False, ["epoch", "other"]]


def test_a_flow_mutator_adds_it_by_its_class(told):
    assert told["by_class"] == ["fresh", False, ["epoch"]]


def test_a_step_mutator_replaces_it(told):
    assert told["by_step"] == ["fresh", True, ["epoch"]]


def test_arguments_are_taken_from_a_configuration(told):
    assert told["by_config"] == ["eager", True, ["epoch", "model"]]


def test_steps_without_it_have_no_current_checkpoint(told):
    assert told["start"] is False


def test_an_argument_that_does_not_exist_is_refused_where_metaflow_does_not_look():
    decorator = CheckpointDecorator.parse_decorator_spec("load_policy=eager")
    decorator.attributes["inclde"] = ["epoch"]  # as a mutator's deco_kwargs are added
    with pytest.raises(CheckpointArgumentError, match="has no argument inclde; it has load_policy, include"):
        decorator.external_init()


@pytest.mark.parametrize("names", [{"b", "a"}, ("b", "a"), ["b", "a"]], ids=["set", "tuple", "list"])
def test_what_metaflow_hands_on_as_text_comes_back_as_it_was(names):
    given = CheckpointDecorator(attributes={"include": names, "load_policy": None, "background": True})
    kind, _, text = given.make_decorator_spec().partition(":")
    back = CheckpointDecorator.parse_decorator_spec(text)
    back.external_init()
    assert kind == "checkpoint"
    assert back._options == given._options
    assert given._options.include == ("a", "b")
