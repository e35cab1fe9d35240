"""Foreach branches of equal values, iterations of a step, tags and namespaces: every task has its own line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "nesting.py"


@pytest.fixture(scope="module")
def told(run_command, tmp_path_factory) -> dict[str, Any]:
    """A flow that sets ``namespace(None)``, run with an empty namespace and several tags."""
    told = tmp_path_factory.mktemp("told") / "told.jsonl"
    tags = ("--tag", "checkpoint:b", "--tag", "other", "--tag", "checkpoint:a")
    ended = run_command(str(FLOW), "--no-pylint", "run", "--namespace", "", *tags, TOLD=str(told))
    assert ended.returncode == 0, ended.stdout
    facts: dict[str, Any] = {}
    for line in told.read_text().splitlines():
        facts |= json.loads(line)
    return facts


def test_a_flow_without_a_namespace_runs_and_its_checkpoint_tags_are_the_scope(told):
    assert told["join"] == "NestingFlow/join_again/checkpoint:a+b/_"


def test_nested_branches_of_equal_values_that_are_no_json_have_a_line_each(told):
    lines = {told[f"after {where}"] for where in ("0.0", "1.0", "1.1")}
    assert lines == {f"NestingFlow/after/checkpoint:a+b/{where}" for where in ("0.0", "1.0", "1.1")}


def test_each_iteration_of_a_recursive_step_has_a_line(told):
    for where in ("0.0.i0", "1.0.i0", "1.1.i0", "1.0.i1"):
        assert told[f"line {where}"] == f"NestingFlow/leaf/checkpoint:a+b/{where}"
        assert told[f"found {where} 0"] is None


def test_a_retried_iteration_finds_its_own_checkpoint(told):
    assert told["found 1.0.i1 1"] == "1.0.i1"
