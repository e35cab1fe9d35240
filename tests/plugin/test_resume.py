"""A resumed run goes on from what the run that it resumes saved for that very task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "resuming.py"


class Resumed(NamedTuple):
    """Runs of one flow, each but the first resuming the one before: what they told, their ids and logs."""

    told: dict[str, Any]
    ids: dict[str, str]
    logs: dict[str, str]


@pytest.fixture(scope="module")
def resumed(run_command, tmp_path_factory) -> Resumed:
    folder = tmp_path_factory.mktemp("resumed")
    told, ids, logs = folder / "told.jsonl", {}, {}

    def run(mode: str, origin: str | None = None, *options: str, **env: str) -> None:
        how = ("run",) if origin is None else ("resume", "--origin-run-id", ids[origin])
        ended = run_command(
            str(FLOW),
            "--no-pylint",
            *how,
            *("--run-id-file", str(folder / mode), *options),
            **{"MODE": mode, "TOLD": str(told), **env},
        )
        ids[mode], logs[mode] = (folder / mode).read_text(), ended.stdout
        assert (ended.returncode == 0) is (mode == "fourth"), ended.stdout

    run("first")
    run("silent", "first")
    run("third", "silent", USER="bob")
    run("fourth", "third", USER="bob")
    facts: dict[str, Any] = {}
    for line in told.read_text().splitlines():
        facts |= json.loads(line)
    return Resumed(facts, ids, logs)


def test_a_resumed_task_finds_what_the_run_resumed_saved_for_it(resumed):
    assert resumed.told["first 1"] is None
    assert resumed.told["silent 1"] == ["branch", resumed.ids["first"], {"index": 1}]
    assert resumed.told["silent 1 epoch"] == 1
    assert f"this task in run {resumed.ids['first']}, which is resumed" in resumed.logs["silent"]


def test_a_task_that_was_finished_runs_no_code_again(resumed):
    assert "first 0" in resumed.told
    assert "third 0" not in resumed.told


def test_a_resume_of_a_resume_by_another_user_finds_the_first_runs(resumed):
    assert resumed.told["third 1"] == ["branch", resumed.ids["first"], {"index": 1}]
    assert "ResumingFlow/train/user:ada/1" in resumed.logs["third"]
    assert resumed.told["third epochs"] == [1, 2]


def test_eager_goes_on_after_an_interruption_and_a_change_of_code(resumed):
    assert resumed.told["third tune"] == 0
    assert resumed.told["fourth tune"] == 1
