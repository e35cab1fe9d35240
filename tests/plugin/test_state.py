"""A checkpoint holds what Metaflow would persist, and comes back whole or not at all."""

import pytest

pytestmark = pytest.mark.metaflow


@pytest.fixture(scope="module")
def told(run_flow):
    return run_flow("state").told


def test_callables_are_state_and_functions_are_not(told):
    assert {"partial", "a_class", "builtin"} <= set(told["kinds"])
    assert not {"function", "method"} & set(told["kinds"])
    assert told["restored"][:3] == [32, True, 1]


def test_inherited_artifacts_are_saved_even_if_never_touched(told):
    assert {"inherited", "unused"} <= set(told["kinds"])
    assert told["untouched"] is True


def test_private_attributes_are_state_as_metaflow_keeps_them(told):
    assert told["restored"][3:] == ["changed", 6]


def test_parameters_constants_and_the_flows_name_are_not_saved(told):
    assert not {"alpha", "constant", "name"} & set(told["kinds"])
    assert told["foreign"] == ["StateFlow", [1, 2, 3]]


def test_what_attributes_share_stays_shared(told):
    assert told["shared"] == 7


def test_changing_a_loaded_value_does_not_change_the_checkpoint(told):
    assert told["not_the_store"] == 0


def test_include_saves_and_restores_those_only(told):
    assert told["included"] == [1, "kept", [1, 2, 3], ["epoch", "inherited"]]


def test_include_of_what_is_not_set_names_it(told):
    assert told["missing"].startswith(
        "CheckpointException: include names attributes that are not set on self: epoch."
    )


def test_include_of_a_function_says_that_it_is_no_state(told):
    assert "function" in told["included_function"]
    assert "epoch" in told["included_function"]


def test_exclude_leaves_those_out(told):
    assert told["excluded"] == ["_private", "epoch", "foreign", "other"]


def test_saving_nothing_says_what_to_do(told):
    assert told["nothing"].startswith("CheckpointException: there is nothing to save")
    assert "self.epoch" in told["nothing"]


@pytest.mark.parametrize("how", ["unserializable", "unserializable_in_background"])
def test_a_value_that_cannot_be_saved_is_named_by_its_path_and_nothing_is_saved(told, how):
    assert told[how].startswith("UnserializableError: self.deep['x'][1]['y']")
    assert "lock" in told[how]
    assert told["saved_none"] is True


def test_a_damaged_checkpoint_changes_no_attribute(told):
    assert told["corrupt"].startswith("ChunkCorruptError: ")
    assert told["after_corrupt"] == [2, True]
    assert told["after_repair"] == [1, 3 << 20]


def test_wrong_arguments_of_save_are_refused(told):
    wrong = [value for key, value in told.items() if key.startswith("wrong ")]
    assert len(wrong) == 5
    assert all(error.startswith("CheckpointArgumentError: ") for error in wrong)
    assert told["unknown"].startswith("TypeError: ")
