"""A run whose datastore is S3 fails, and is resumed by another user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import seaweed

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "given.py"


def test_a_resumed_task_of_another_user_finds_the_origins_checkpoint_on_s3(run_command, tmp_path):
    server = seaweed.server()
    env = {
        "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "METAFLOW_S3_ENDPOINT_URL": server.endpoint_url,
        "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{seaweed.BUCKET}/{server.new_prefix()}",
        "TOLD": str(tmp_path / "told.jsonl"),
    }
    options = (str(FLOW), "--no-pylint", "--datastore=s3")
    first = tmp_path / "first"
    failed = run_command(*options, "run", "--run-id-file", str(first), DIES="yes", POLICY="'fresh'", **env)
    assert failed.returncode != 0
    assert first.exists(), failed.stdout
    resume = ("resume", "--origin-run-id", first.read_text())
    resumed = run_command(*options, *resume, POLICY="'fresh'", **env, USER="bob")
    assert resumed.returncode == 0, resumed.stdout
    told: dict[str, Any] = {}
    for line in (tmp_path / "told.jsonl").read_text().splitlines():
        told |= json.loads(line)
    assert told["line"] == "GivenFlow/start/project:given:user.bob/_"
    assert told["found"] == ["saved", f"GivenFlow/{first.read_text()}/start/1"]
    assert told["total"] == 1
