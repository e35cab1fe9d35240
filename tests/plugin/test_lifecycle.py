"""A task that dies again and again goes on where it was."""

import pickle

import pytest

pytestmark = pytest.mark.metaflow

NEWEST_FIRST = ["last", "flushed", "z.1", "side", "x/y", "a.b"]


@pytest.fixture(scope="module")
def ran(run_flow):
    return run_flow("lifecycle")


def test_first_attempt_finds_nothing_and_load_says_so(ran):
    assert ran.told["loaded0"] is False
    assert ran.told["load_without"].startswith("CheckpointException: no checkpoint was found")
    assert ran.told["listed_at_first"] == 0


def test_attributes_are_back_after_an_exception(ran):
    assert ran.told["found1"] == ["x/y", 0, {"epoch": 2, "loss": 0.5}]
    assert ran.told["state1"] == [[], 2, 2.0, 5000, 3]


def test_attributes_are_back_after_os_exit(ran):
    assert ran.told["found2"] == ["z.1", 1, {}]
    assert ran.told["state2"] == [[], 3, 3.0, 5000, 3]


def test_background_save_is_finished_when_the_step_raises(ran):
    assert ran.told["found3"] == ["flushed", 2, {}]
    assert ran.told["state3"] == [[], 4, 4.0, 5000, 3]


def test_background_save_is_finished_at_the_steps_end_with_the_state_of_its_call(ran):
    assert ran.told["ways last"] == [[5, 5.0]] * 3


def test_latest_false_is_listed_and_never_chosen(ran):
    assert ran.told["found1"][0] == "x/y"
    assert "side" in ran.told["names"]


def test_names_with_dots_and_slashes_are_listed_inspected_and_loaded_by_key(ran):
    assert ran.told["of_name"] == ["a.b"]
    assert ran.told["ways a.b"] == [[1, 1.0]] * 3
    assert ran.told["ways x/y"] == [[2, 2.0]] * 3


def test_list_is_newest_first_over_all_attempts(ran):
    assert ran.told["names"] == ran.told["of_task"] == NEWEST_FIRST
    assert ran.told["attempts"] == [3, 2, 1, 0, 0, 0]
    assert ran.told["of_attempt_0"] == ["side", "x/y", "a.b"]


def test_another_step_lists_the_task_it_asks_for_and_none_of_it_as_its_own(ran):
    assert ran.told["own"] == ran.told["whole"] == 0
    assert ran.told["none_found"][0] is False
    assert ran.told["none_found"][1].startswith("CheckpointException: no checkpoint was found")


def test_numbers_of_numpy_in_metadata_become_numbers(ran):
    assert ran.told["metadata"] == {"epoch": 1, "loss": 0.5}


def test_inspect_tells_version_and_fields_and_metadata_holds_no_manifest(ran):
    fields = ran.told["inspected"]["fields"]
    assert ran.told["inspected"]["version"] == 1
    assert sorted(fields) == ["epoch", "weights"]
    assert fields["epoch"]["type"] == "builtins.int"
    assert fields["weights"]["leaves"][0]["shape"] == [5000]
    assert fields["weights"]["format"] == "tree"


def test_wrong_references_are_refused_with_what_a_right_one_is(ran):
    assert "not the key of a checkpoint" in ran.told["wrong_key"]
    assert "dict" in ran.told["wrong_type"]
    assert "missing or of another type" in ran.told["wrong_dict"]
    assert "Flow/run_id/step/task_id" in ran.told["wrong_task"]


def test_artifact_survives_a_dict_a_pickle_and_the_datastore(ran):
    from metaflow import CheckpointArtifact

    (told,) = ran.told["dicts"]
    artifact = CheckpointArtifact.hydrate(told)
    stored = ran.run["train"].task.data.last
    assert artifact.to_dict() == told
    assert pickle.loads(pickle.dumps(artifact)) == artifact == stored
    assert ran.told["last_equals"] is True
    assert len(pickle.dumps(artifact)) < 2000


def test_artifact_has_the_fields_users_know(ran):
    artifact = ran.run["train"].task.data.last
    assert artifact.name == "last"
    assert artifact.attempt == 3
    assert artifact.pathspec == ran.run["train"].task.pathspec
    assert artifact.created_on.endswith("+00:00")
    assert artifact.size > 40_000
    assert artifact.storage_format == "ckptstore-v1"
    assert artifact.url.endswith("#" + artifact.key)
    assert artifact.metadata == {}
    assert artifact.version_id


def test_a_reference_holds_no_place(ran):
    artifact = ran.run["train"].task.data.last
    assert set(artifact.to_dict()["ref"]) == {"store_id", "collection", "name", "digest"}
    assert "/tmp" not in artifact.key


def test_nothing_of_ours_becomes_an_artifact(ran):
    assert sorted(artifact.id for artifact in ran.run["train"].task) == [
        "alpha", "epoch", "kept", "last", "name", "train_task", "weights",
    ]  # fmt: skip


def test_the_store_is_no_flow_to_the_client(ran):
    from metaflow import Metaflow

    assert all(flow.id.isidentifier() for flow in Metaflow().flows)


def test_the_log_tells_in_one_line_each_what_was_found_restored_and_saved(ran):
    lines = [line.partition("[@checkpoint] ")[2] for line in ran.log.splitlines() if "[@checkpoint]" in line]
    assert any(line.startswith("found 'x/y' of attempt 0 (") for line in lines)
    assert any(line.startswith("restored 'x/y'") and line.endswith("epoch, kept, weights") for line in lines)
    assert any(
        line.startswith("saved 'a.b': 3") and " new, " in line and line.endswith(" s") for line in lines
    )
    assert any(line.startswith("saved 'last'") and "in the background" in line for line in lines)
