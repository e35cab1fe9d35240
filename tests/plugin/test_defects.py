"""Defects that users of checkpoints in flows know from elsewhere: each by what we promise, and the tests that show it.

The tests that no other module has are below, on flows of their own.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ckptstore import CheckpointStore
from ckptstore.errors import StoreNotFoundError

pytestmark = pytest.mark.metaflow

HERE = Path(__file__).parent
FLOWS = HERE / "flows"

PROMISES: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "callables are state: models, partials, classes",
        (
            "test_state:test_callables_are_state_and_functions_are_not",
            "test_state:test_include_of_a_function_says_that_it_is_no_state",
            "test_torch_state:test_modules_are_saved",
        ),
    ),
    2: (
        "what attributes share stays shared: an optimizer holds its model's parameters",
        (
            "test_state:test_what_attributes_share_stays_shared",
            "test_torch_state:test_the_optimizer_holds_the_models_parameters_after_a_load",
            "test_torch_state:test_training_goes_on_with_the_restored_optimizer",
        ),
    ),
    3: (
        "inherited artifacts are saved, touched or not; a parameter in include is refused before the run",
        (
            "test_state:test_inherited_artifacts_are_saved_even_if_never_touched",
            "test_state:test_include_saves_and_restores_those_only",
            "test_policies:test_what_a_join_merged_is_saved_even_if_never_touched",
            "test_arguments:test_wrong_argument_ends_the_run_before_it_starts",
        ),
    ),
    4: (
        "the flow's name is no state, and nothing to save is told",
        (
            "test_state:test_parameters_constants_and_the_flows_name_are_not_saved",
            "test_state:test_saving_nothing_says_what_to_do",
        ),
    ),
    5: (
        "a load is all or nothing, and damage is seen",
        ("test_state:test_a_damaged_checkpoint_changes_no_attribute",),
    ),
    6: (
        "a value that cannot be saved is named by its path",
        ("test_state:test_a_value_that_cannot_be_saved_is_named_by_its_path_and_nothing_is_saved",),
    ),
    7: (
        "include=[] and include beside exclude end a run before it starts",
        ("test_arguments:test_wrong_argument_ends_the_run_before_it_starts",),
    ),
    8: (
        "what a load gives is never the store's",
        (
            "test_state:test_changing_a_loaded_value_does_not_change_the_checkpoint",
            "test_directory:test_a_save_after_the_step_still_has_the_files_and_each_checkpoint_keeps_its_own",
            "test_directory_saves:test_overwriting_a_file_changes_no_older_checkpoint",
        ),
    ),
    9: (
        "any text is a name: it is listed, inspected and loaded",
        ("test_lifecycle:test_names_with_dots_and_slashes_are_listed_inspected_and_loaded_by_key",),
    ),
    10: (
        "a list is newest first over attempts and processes, and nothing overwrites anything",
        (
            "test_lifecycle:test_list_is_newest_first_over_all_attempts",
            "test_outside:test_what_a_task_and_its_processes_save_in_turn_is_listed_in_that_order",
            "test_defects:test_runs_that_save_at_the_same_time_lose_nothing_and_have_one_order",
        ),
    ),
    11: (
        "no clock decides an order, times have a zone, numbers stay numbers",
        (
            "test_defects:test_clocks_that_go_back_change_no_order",
            "test_defects:test_times_have_a_zone",
            "test_lifecycle:test_numbers_of_numpy_in_metadata_become_numbers",
            "test_torch_state:test_numbers_of_torch_in_metadata_become_numbers",
        ),
    ),
    12: (
        "the newest is found among what is there: no pointer to race for, to dangle or to delete by a prefix",
        (
            "test_defects:test_runs_that_save_at_the_same_time_lose_nothing_and_have_one_order",
            "test_defects:test_the_newest_is_found_after_races",
            "test_defects:test_after_the_newest_is_deleted_the_one_before_is_found",
            "test_defects:test_deleting_a_name_leaves_those_that_begin_with_it",
            "test_editing:test_delete_of_one_name_leaves_names_that_begin_alike",
        ),
    ),
    13: (
        "nothing of ours becomes an artifact, and a task is asked for by what it is",
        (
            "test_lifecycle:test_nothing_of_ours_becomes_an_artifact",
            "test_lifecycle:test_another_step_lists_the_task_it_asks_for_and_none_of_it_as_its_own",
            "test_outside:test_a_task_a_step_and_a_run_are_listed_newest_first",
        ),
    ),
    14: (
        "branches are told apart by position, whatever their values",
        ("test_policies:test_branches_of_equal_and_unprintable_values_are_told_apart",),
    ),
    15: (
        "tags and namespaces fail no step and change no scope from run to run",
        (
            "test_arguments:test_with_on_the_command_line_reaches_the_tasks",
            "test_scope:test_checkpoint_tags_make_the_scope_whatever_their_order",
            "test_defects:test_a_step_without_a_namespace_checkpoints_in_its_usual_line",
        ),
    ),
    16: (
        "a resumed task finds what the run that is resumed saved for it",
        (
            "test_resume:test_a_resumed_task_finds_what_the_run_resumed_saved_for_it",
            "test_resume_s3:test_a_resumed_task_of_another_user_finds_the_origins_checkpoint_on_s3",
        ),
    ),
    17: (
        "every rank gets its own state back",
        ("test_parallel:test_after_a_crash_every_rank_gets_its_own_state_back",),
    ),
    18: (
        "checkpoints are in the datastore of the run, however it was given",
        (
            "test_s3:test_checkpoints_are_in_the_runs_own_root_and_nothing_of_them_on_the_disk",
            "test_defects:test_checkpoints_follow_a_datastore_root_of_the_command_line",
        ),
    ),
    19: (
        "spin runs the decorator, in its own datastore",
        (
            "test_spin:test_a_spun_step_saves_and_loads",
            "test_spin:test_checkpoints_are_in_spins_own_datastore",
            "test_spin:test_the_runs_own_checkpoints_are_never_touched",
        ),
    ),
    20: (
        "a save starts no process and makes no temporary file; a tiny one is one request",
        (
            "test_defects:test_a_save_and_a_load_start_no_process_and_make_no_temporary_file",
            "test_s3:test_a_tiny_save_after_the_first_is_one_put",
            "test_s3:test_five_hundred_small_attributes_are_at_most_two_puts",
            "test_lifecycle:test_background_save_is_finished_at_the_steps_end_with_the_state_of_its_call",
        ),
    ),
    21: (
        "the card lists nothing, polls nothing and holds no end up",
        (
            "test_card_writer:test_first_update_is_written_at_once_and_many_make_few_writes",
            "test_card_writer:test_storage_that_hangs_holds_the_end_up_no_longer_than_allowed",
            "test_card_writer:test_no_thread_is_there_before_the_first_page_nor_after_the_last",
            "test_cost:test_the_cards_cost_is_measured_for_every_number_of_saves",
        ),
    ),
}


def names_in(module: str) -> set[str]:
    tree = ast.parse((HERE / f"{module}.py").read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("defect", PROMISES)
def test_what_shows_a_promise_exists(defect):
    for test in PROMISES[defect][1]:
        module, _, name = test.partition(":")
        assert name in names_in(module)


def test_no_defect_is_left_out():
    assert sorted(PROMISES) == list(range(1, 22))
    assert all(promise and tests for promise, tests in PROMISES.values())


@pytest.fixture(scope="module")
def told(run_flow):
    return run_flow("defects").told


def test_a_step_without_a_namespace_checkpoints_in_its_usual_line(told):
    assert told["without_namespace"] == ["DefectsFlow/start/user:ada/_", True, 1]


def test_a_save_and_a_load_start_no_process_and_make_no_temporary_file(told):
    assert told["called"] == []
    assert told["saved"] == ["in the background", "blocking", "the first makes the store"]


def test_clocks_that_go_back_change_no_order(told):
    assert [told[f"skewed{attempt}"] for attempt in range(3)] == [
        None,
        "second of attempt 0",
        "second of attempt 1",
    ]
    assert told["falling"] is True, "the clocks did not go back"
    assert told["order"] == [f"{name} of attempt {n}" for n in (2, 1, 0) for name in ("second", "first")]


def test_times_have_a_zone(told):
    assert set(told["zones"]) == {"+00:00"}


def test_after_the_newest_is_deleted_the_one_before_is_found(told):
    assert told["deleted1"] == "epoch.10"


def test_deleting_a_name_leaves_those_that_begin_with_it(told):
    assert told["left"] == ["epoch.10"]
    assert told["deleted2"] == "epoch.10"


@pytest.fixture(scope="module")
def raced(tmp_path_factory) -> list[dict[str, Any]]:
    """What two runs told that met and saved at the same time, and then a third one."""
    folder = tmp_path_factory.mktemp("raced")
    (folder / "meet").mkdir()

    def start(who: str, twins: int) -> tuple[subprocess.Popen[str], Path]:
        told = folder / f"{who}.jsonl"
        env = {"TOLD": str(told), "MEET": str(folder / "meet"), "TWINS": str(twins)}
        command = [sys.executable, str(FLOWS / "racing.py"), "--no-pylint", "run"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, env=os.environ | env, cwd=folder, **pipes), told

    def end(process: subprocess.Popen[str], told: Path) -> dict[str, Any]:
        log, _ = process.communicate(timeout=60)
        assert process.returncode == 0, log
        facts: dict[str, Any] = {}
        for line in told.read_text().splitlines():
            facts |= json.loads(line)
        return facts

    twins = [start(who, 2) for who in ("one", "another")]
    try:
        return [*(end(*twin) for twin in twins), end(*start("third", 3))]
    finally:
        for process, _ in twins:
            process.kill()
            process.wait()


def test_runs_that_save_at_the_same_time_lose_nothing_and_have_one_order(raced):
    one, another, third = raced
    for ran in (one, another, third):
        assert ran["own"] == [str(epoch) for epoch in reversed(range(10))]
    assert len(third["versions"]) == 30


def test_the_newest_is_found_after_races(raced):
    one, another, third = raced
    assert [third["found"]] == third["newest"]
    assert third["found"] in {f"{ran['run']} 9" for ran in (one, another)}


@pytest.mark.parametrize("option", [["--datastore-root"], ["--datastore=local", "--datastore-root"]])
def test_checkpoints_follow_a_datastore_root_of_the_command_line(run_command, tmp_path, option):
    root = tmp_path / "elsewhere"
    options = [*option[:-1], f"{option[-1]}={root}"]
    ended = run_command(
        str(FLOWS / "remote.py"), "--no-pylint", *options, "run", TOLD=str(tmp_path / "told.jsonl")
    )
    assert ended.returncode == 0, ended.stdout
    assert "starts at epoch 3" in ended.stdout
    assert flows_in(root) == {"RemoteFlow"}
    usual = Path(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"], ".metaflow")
    assert "RemoteFlow" not in flows_in(usual)


def flows_in(root: Path) -> set[str]:
    """The flows that have checkpoints in a datastore."""
    try:
        with CheckpointStore.open(str(root / "mf.ckptstore"), create=False) as store:
            return {checkpoint.collection.partition("/")[0] for checkpoint in store.list()}
    except StoreNotFoundError:
        return set()
