"""A @parallel step on one machine whose last rank dies: after the retry every rank has its own state back."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "ranks.py"


@pytest.fixture(scope="module")
def told(run_command, tmp_path_factory) -> dict[str, Any]:
    told = tmp_path_factory.mktemp("told") / "told.jsonl"
    # Metaflow starts the other ranks with the `python` of the path.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    ended = run_command(str(FLOW), "--no-pylint", "run", TOLD=str(told), PATH=path)
    assert ended.returncode == 0, ended.stdout
    facts: dict[str, Any] = {}
    for line in told.read_text().splitlines():
        facts |= json.loads(line)
    return facts


def test_every_rank_has_a_line_and_the_gang_is_retried_as_one(told):
    for attempt in (0, 1):
        ranks = [told[f"{rank} {attempt}"] for rank in range(3)]
        assert [rank["line"] for rank in ranks] == [f"RanksFlow/train/user:ada/{rank}" for rank in range(3)]
        control = ranks[0]["task"]
        assert [rank["task"] for rank in ranks] == [control, f"{control}_node_1", f"{control}_node_2"]
    assert [told[f"{rank} 0"]["found"] for rank in range(3)] == [None] * 3


def test_after_a_crash_every_rank_gets_its_own_state_back(told):
    for rank in (0, 1):
        assert told[f"{rank} 1"]["found"] == ["own", True, False]
        assert told[f"{rank} 1"]["state"] == f"state of {rank}"


def test_a_rank_without_one_of_its_own_finds_what_was_shared(told):
    assert told["2 1"]["found"] == ["for all", False, True]
    assert told["2 1"]["state"] == "state of 1"


def test_a_later_step_lists_what_each_rank_saved(told):
    control = told["0 0"]["task"]
    assert told["listed"] == {
        control: ["own"],
        f"{control}_node_1": ["for all", "own"],
        f"{control}_node_2": [],
    }
