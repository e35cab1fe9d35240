"""Checkpoint where the run is on S3: its metadata says so, whatever the reader is configured for."""

import json
from pathlib import Path

import pytest
import seaweed

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "outside.py"
READ = """
import json, sys
from metaflow import Checkpoint
with Checkpoint() as client:
    found = client.list(task=sys.argv[1])
    child = next(one for one in found if one.name == "child")
    client.load(child, sys.argv[2])
    print(json.dumps([[one.name for one in found], client.load(child.to_dict(), fields=["number", "by"])]))
    print(json.dumps(client.inspect(sys.argv[1])["version"]))
"""


def test_a_task_on_s3_and_its_processes_save_and_are_read_from_anywhere(run_command, tmp_path):
    server = seaweed.server()
    env = {
        "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "METAFLOW_S3_ENDPOINT_URL": server.endpoint_url,
        "SHORT": "yes",
        "TOLD": str(tmp_path / "told.jsonl"),
    }
    root = f"--datastore-root=s3://{seaweed.BUCKET}/{server.new_prefix()}"
    ran = run_command(str(FLOW), "--no-pylint", "--datastore=s3", root, "run", **env)
    assert ran.returncode == 0, ran.stdout
    told = {}
    for line in (tmp_path / "told.jsonl").read_text().splitlines():
        told |= json.loads(line)
    names = [name for name, _ in told["order"]]
    assert names == ["mfchckpt", "fork at its end", "fork of self", "fork", "task", "child", "task"]
    read = run_command("-c", READ, told["pathspec"], str(tmp_path / "files"), **env)
    assert read.returncode == 0, read.stdout
    assert json.loads(read.stdout.splitlines()[0]) == [names, {"number": 1, "by": "child"}]
    assert (tmp_path / "files" / "child.txt").read_text() == "of the child"
