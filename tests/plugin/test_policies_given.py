"""A run starts from what load_policy names: a Run, a Task, a checkpoint, the best of all; wherever it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "given.py"


@pytest.fixture(scope="module")
def start(run_command, tmp_path_factory):
    """Run the flow with a policy, and return what it told, its log and whether it succeeded."""

    def run(
        policy: object, *top: str, run: tuple[str, ...] = (), **env: str
    ) -> tuple[dict[str, Any], str, bool]:
        told = tmp_path_factory.mktemp("told") / "told.jsonl"
        told.touch()
        options = (str(FLOW), "--no-pylint", *top, "run", *run)
        ended = run_command(*options, TOLD=str(told), POLICY=str(policy), **env)
        facts: dict[str, Any] = {}
        for line in told.read_text().splitlines():
            facts |= json.loads(line)
        return facts, ended.stdout, ended.returncode == 0

    return run


@pytest.fixture(scope="module")
def first(start) -> dict[str, Any]:
    """What a run of Bob's told, on a datastore of its own."""
    told, log, succeeded = start("'fresh'", USER="bob")
    assert succeeded, log
    return told


def test_the_branch_of_a_project_is_the_scope(first):
    assert first["line"] == "GivenFlow/start/project:given:user.bob/_"


@pytest.fixture(scope="module")
def second(start, first) -> tuple[dict[str, Any], str]:
    """What a run of Ada's told and logged, which starts from Bob's."""
    told, log, succeeded = start(f"Run({run_of(first)!r}, _namespace_check=False)")
    assert succeeded, log
    return told, log


def run_of(told: dict[str, Any]) -> str:
    return "/".join(told["task"].split("/")[:2])


def test_a_run_object_starts_from_its_newest_in_another_scope(first, second):
    told, log = second
    assert told["line"] == "GivenFlow/start/project:given:user.ada/_"
    assert told["found"] == ["saved", first["task"]]
    assert told["total"] == 1
    assert f"which load_policy names ({run_of(first)})" in log


def test_best_starts_from_the_best_number_of_an_earlier_run(start, second):
    told, log, succeeded = start("'best:total:max'")
    assert succeeded, log
    assert told["found"] == ["saved", second[0]["task"]]
    assert told["total"] == 2
    assert "the largest 'total' of any run (GivenFlow/start/project:given:user.ada/_): 2" in log


@pytest.mark.parametrize("what", ["task", "key"])
def test_a_task_or_a_key_starts_from_it_on_another_datastore(start, first, tmp_path, what):
    told, log, succeeded = start(repr(first[what]), "--datastore-root", str(tmp_path / "elsewhere"))
    assert succeeded, log
    assert told["found"] == ["saved", first["task"]]
    assert told["total"] == 1


def test_a_given_run_that_is_not_there_fails_the_task_and_says_so(start):
    told, log, succeeded = start("'GivenFlow/404'")
    assert not succeeded
    assert told == {}
    assert "load_policy names run GivenFlow/404, which saved no checkpoint for step 'start'" in log
