"""Flows whose datastore is S3, on a real server: with the engine's own client and with Metaflow's."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import seaweed

pytestmark = pytest.mark.metaflow

FLOWS = Path(__file__).with_name("flows")
WAYS = ["configured", "on the command line", "without aiobotocore"]


class Ran(NamedTuple):
    """A run that succeeded: its log, what its steps told, its S3 root, and the folder it had on the disk.

    ``python`` runs Python as configured as the run was, and returns what it wrote.
    """

    log: str
    told: dict[str, Any]
    root: str
    folder: Path
    python: Callable[..., str]

    def flow(self, *command: str) -> str:
        """Run a command of the flow as it was run."""
        options = [] if "configured" in self.folder.name else [f"--datastore-root={self.root}"]
        return self.python(str(FLOWS / "on_s3.py"), "--no-pylint", "--datastore=s3", *options, *command)


@pytest.fixture(scope="module")
def run_on_s3(tmp_path_factory):
    """Run the flow in one of ``WAYS``, each once; they share the local metadata and nothing else."""
    home = tmp_path_factory.mktemp("home")

    @functools.cache
    def run(way: str) -> Ran:
        server = seaweed.server()
        folder = tmp_path_factory.mktemp(way.replace(" ", "-"))
        root = f"s3://{seaweed.BUCKET}/{server.new_prefix()}"
        env = {
            "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "METAFLOW_S3_ENDPOINT_URL": server.endpoint_url,
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(home),
            "METAFLOW_HOME": str(home),
            "TOLD": str(folder / "told.jsonl"),
        }
        if way == "configured":
            env["METAFLOW_DATASTORE_SYSROOT_S3"] = root
        else:
            env["OTHER_TASK"] = run("configured").told["train_task"]
        if way == "without aiobotocore":
            stub = folder / "none" / "aiobotocore"
            stub.mkdir(parents=True)
            (stub / "__init__.py").write_text("raise ImportError('not here')\n")
            env["PYTHONPATH"] = str(stub.parent)

        def python(*arguments: str) -> str:
            done = subprocess.run(
                [sys.executable, *arguments],
                env=os.environ | env,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=100,
            )
            assert done.returncode == 0, done.stdout
            return done.stdout

        told: dict[str, Any] = {}
        ran = Ran("", told, root, folder, python)
        ran = ran._replace(log=ran.flow("run"))
        for line in (folder / "told.jsonl").read_text().splitlines():
            told |= json.loads(line)
        return ran

    yield run
    if seaweed.start.cache_info().currsize:
        leftovers = [path for path in home.rglob("*") if path.name == "mf.ckptstore"]
        assert not leftovers


@pytest.fixture(params=WAYS)
def ran(request, run_on_s3) -> Ran:
    return run_on_s3(request.param)


def test_attributes_are_back_after_a_crash(ran):
    assert ran.told["found"] == "second"
    assert ran.told["state"] == [2, True]


def test_all_attempts_are_listed_and_loaded_by_a_later_step(ran):
    assert ran.told["listed"] == [["many", 1], ["second", 0], ["first", 0]]
    assert ran.told["first"] == 1


def test_checkpoints_are_in_the_runs_own_root_and_nothing_of_them_on_the_disk(ran):
    assert ran.told["url"].startswith(f"{ran.root}/mf.ckptstore#OnS3Flow/start/user:ada/_/")
    on_disk = {path.name for path in ran.folder.rglob("*")}
    assert on_disk <= {"told.jsonl", "none", "aiobotocore", "__init__.py", "__pycache__"} | {
        name for name in on_disk if name.endswith(".pyc")
    }


def test_a_tiny_save_after_the_first_is_one_put(ran):
    assert [method for method, _ in ran.told["tiny"]] == ["PUT"]
    assert ran.told["tiny"][0][1].startswith("/manifests/")


def test_five_hundred_small_attributes_are_at_most_two_puts(ran):
    assert ran.told["fields"] > 500
    methods = [method for method, _ in ran.told["many"]]
    assert methods.count("PUT") <= 2
    assert set(methods) <= {"PUT"}


def test_a_load_reads_a_manifest_and_its_chunks_and_writes_nothing(ran):
    methods = [method for method, _ in ran.told["loads"]]
    assert len(methods) <= 5
    assert set(methods) <= {"GET", "HEAD"}


def test_nothing_is_deleted_or_locked_on_the_way(ran):
    assert set(ran.told["methods1"]) <= {"GET", "HEAD", "PUT"}


@pytest.mark.parametrize("way", WAYS[:2])
def test_the_card_is_where_metaflows_commands_and_its_client_look(run_on_s3, way):
    ran = run_on_s3(way)
    run_id = ran.told["train_task"].split("/")[1]
    file = ran.folder.parent / f"{way}.html"
    ran.flow("card", "get", f"{run_id}/look", str(file), "--id", "checkpoint")
    assert "loaded &#8220;first&#8221; of OnS3Flow/" in file.read_text()

    script = "import sys; from metaflow import Step; from metaflow.cards import get_cards; "
    script += "print(get_cards(Step(sys.argv[1]).task)[0].get(), end='')"
    assert ran.python("-c", script, f"OnS3Flow/{run_id}/look") == file.read_text()


@pytest.mark.parametrize("way", WAYS[1:])
def test_a_task_on_another_root_is_found_by_its_metadata_listed_loaded_and_inspected(run_on_s3, way):
    told = run_on_s3(way).told
    assert told["elsewhere"] == ["many", "second", "first"]
    assert told["there"].startswith(f"{run_on_s3('configured').root}/mf.ckptstore#")
    assert told["inspected"] == ["epoch", "weights"]


def test_the_way_through_metaflows_client_is_told_once_a_task(run_on_s3):
    line = "aiobotocore is not installed here"
    assert line not in run_on_s3("configured").log
    assert run_on_s3("without aiobotocore").log.count(line) >= 1
