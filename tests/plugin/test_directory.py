"""current.checkpoint.directory in real tasks: its files outlive every way that an attempt ends."""

import os
from pathlib import Path

import pytest

pytestmark = pytest.mark.metaflow


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    # Metaflow imports the flow here too, and the runner's environment is not yet that of the tasks then.
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("scratch")
        patch.setenv("TEMP_DIR_ROOT", str(folder))
        yield folder


@pytest.fixture(scope="module")
def told(run_flow, scratch):
    return run_flow("directory").told


def test_files_are_there_again_after_every_way_out_without_a_load(told):
    assert told["state1"] == "waited for"
    assert told["state2"] == "background"
    assert told["state3"] == "interrupted"
    assert told["state4"] == "killed"


def test_a_step_that_sets_no_attribute_can_save_its_files(told):
    assert told["fields"] == []


def test_a_save_after_the_step_still_has_the_files_and_each_checkpoint_keeps_its_own(told):
    assert [(name, content) for name, content, _ in told["each"]] == [
        ("after the step", "after the step"),
        ("fourth", "killed"),
        ("third", "interrupted"),
        ("second", "background"),
        ("first", "waited for"),
    ]


def test_load_gives_the_checkpoints_files_and_no_others(told):
    assert [listed for _, _, listed in told["each"]] == [["sub"]] * 5


def test_the_directory_is_removed_when_the_task_ends_unless_it_was_killed(told, scratch):
    directories = [told[f"directory{attempt}"] for attempt in range(5)]
    assert [os.path.exists(directory) for directory in directories] == [False, False, False, True, False]
    assert list(scratch.iterdir()) == [Path(directories[3]).parent]
    assert not os.path.exists(told["directory_of_other"])
