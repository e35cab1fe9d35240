"""A task that is killed resumes from the last checkpoint that was whole, and retention holds over kills."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import seaweed

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "kills.py"


@pytest.fixture(scope="module", params=["local", "s3"])
def told(request, run_flow, run_command, tmp_path_factory) -> dict[str, Any]:
    if request.param == "local":
        return run_flow("kills").told
    pytest.importorskip("aiobotocore")
    server = seaweed.server()
    notes = tmp_path_factory.mktemp("kills") / "told.jsonl"
    ended = run_command(
        str(FLOW),
        "--no-pylint",
        "run",
        TOLD=str(notes),
        AWS_ACCESS_KEY_ID=seaweed.ACCESS_KEY,
        AWS_SECRET_ACCESS_KEY=seaweed.SECRET_KEY,
        AWS_DEFAULT_REGION="us-east-1",
        AWS_EC2_METADATA_DISABLED="true",
        METAFLOW_DEFAULT_DATASTORE="s3",
        METAFLOW_S3_ENDPOINT_URL=server.endpoint_url,
        METAFLOW_DATASTORE_SYSROOT_S3=f"s3://{seaweed.BUCKET}/{server.new_prefix()}",
    )
    assert ended.returncode == 0, ended.stdout
    facts: dict[str, Any] = {}
    for line in notes.read_text().splitlines():
        facts |= json.loads(line)
    return facts


def test_a_task_killed_in_a_background_save_resumes_from_the_one_before(told):
    assert told["found1"] == ["whole 0", 0]
    assert told["state1"] is True


def test_a_task_killed_in_a_blocking_save_resumes_from_the_one_before(told):
    assert told["found2"] == ["whole 1", 1]
    assert told["state2"] is True


def test_a_task_that_leaves_by_os_exit_in_a_background_save_resumes_from_the_one_before(told):
    assert told["found3"] == ["whole 2", 2]
    assert told["state3"] is True


def test_a_task_killed_right_after_the_commit_resumes_from_that_save(told):
    assert told["found4"] == ["just in time", 3]
    assert told["state4"] is True


def test_interrupted_saves_are_listed_nowhere(told):
    assert told["names"] == ["just in time", "whole 3", "whole 2", "whole 1", "whole 0"]


def test_fifty_saves_of_a_step_that_keeps_the_last_three_leave_three(told):
    assert told["kept"] == ["epoch 50", "epoch 49", "epoch 48"]


def test_a_kill_among_many_saves_loses_at_most_the_one_in_flight(told):
    name, epoch = told["killed_at"]
    assert name == f"epoch {epoch}"
    assert epoch in (9, 10)


def test_retention_after_a_kill_keeps_the_last_three_and_the_one_that_was_loaded(told):
    assert told["kept_when_killed"] == ["epoch 20", "epoch 19", "epoch 18", told["killed_at"][0]]
