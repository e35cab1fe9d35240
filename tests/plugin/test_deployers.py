"""Flows for schedulers: what they are handed to run carries the decorator, and runs as it does on their machines."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import bare_python
import pytest
import scheduler_api
import seaweed
from metaflow_extensions.ckptstore.plugins.checkpoint.decorator import CheckpointDecorator

pytestmark = pytest.mark.metaflow

FLOW = Path(__file__).with_name("flows") / "deployed.py"
GIVEN = 'checkpoint:load_policy=eager,include=["epoch"],background=true'


class Rig(NamedTuple):
    """Where flows are compiled: the folder, and the environment of the commands."""

    folder: Path
    env: dict[str, str]

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, str(FLOW), "--no-pylint", "--with", GIVEN, *command],
            cwd=self.folder,
            env=os.environ | self.env,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def rig(tmp_path_factory) -> Iterator[Rig]:
    server = seaweed.server()
    folder = tmp_path_factory.mktemp("deployed")
    with scheduler_api.scheduler_api(folder) as env:
        storage = {
            "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "METAFLOW_S3_ENDPOINT_URL": server.endpoint_url,
            "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{seaweed.BUCKET}/{server.new_prefix()}",
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder),
            "METAFLOW_DEFAULT_DATASTORE": "s3",
            "METAFLOW_HOME": str(folder),
        }
        yield Rig(folder, env | storage)


@pytest.fixture(scope="module")
def states(rig) -> dict[str, Any]:
    """The tasks of the state machine that Step Functions would be given, by step."""
    printed = rig.run("step-functions", "create", "--only-json")
    machine, _ = json.JSONDecoder().raw_decode(printed, printed.index("{\n"))
    return {name: state["Parameters"]["ContainerOverrides"] for name, state in machine["States"].items()}


def decorators_of(command: str, step: str) -> list[str]:
    """The decorators that the command line of a step's task names."""
    (line,) = re.findall(rf"python deployed\.py (?:(?!python ).)*? step {step} [^)]*", command)
    words = shlex.split(line)
    return [words[i + 1] for i, word in enumerate(words) if word == "--with"]


def texts_of(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in value.values() if isinstance(value, dict) else value:
            yield from texts_of(one)


def assert_carried(command: str, static: str) -> None:
    assert not [spec for spec in decorators_of(static, "start") if spec.startswith("checkpoint")]
    (spec,) = [spec for spec in decorators_of(command, "end") if spec.startswith("checkpoint")]
    decorator = CheckpointDecorator.parse_decorator_spec(spec.partition(":")[2])
    decorator.external_init()
    assert decorator._options.load_policy == "eager"
    assert decorator._options.include == ("epoch",)
    assert decorator._options.background is True


def test_step_functions_is_handed_the_decorator_of_the_command_line_and_not_that_of_the_source(states):
    assert_carried(states["end"]["Command"][-1], states["start"]["Command"][-1])


@pytest.mark.skipif(importlib.util.find_spec("kubernetes") is None, reason="needs the package kubernetes")
@pytest.mark.parametrize("how", ["command", "deployer"])
def test_argo_workflows_is_handed_the_same(rig, how):
    if how == "command":
        printed = rig.run("argo-workflows", "create", "--only-json")
        template, _ = json.JSONDecoder().raw_decode(printed, printed.index("{\n"))
    else:
        script = f"""
import json
from metaflow import Deployer
deployer = Deployer({str(FLOW)!r}, pylint=False, show_output=False, decospecs=[{GIVEN!r}])
print(json.dumps(deployer.argo_workflows().create(only_json=True).workflow_template))
"""
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=rig.folder,
            env=os.environ | rig.env,
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        template = json.loads(done.stdout.splitlines()[-1])
    commands = {
        one["name"]: one["container"]["command"][-1]
        for one in template["spec"]["templates"]
        if one["name"] in ("start", "end")
    }
    assert_carried(commands["end"], commands["start"])


@pytest.mark.skipif(importlib.util.find_spec("kubernetes") is None, reason="needs the package kubernetes")
def test_airflow_is_handed_the_same(rig):
    dag = rig.folder / "dag.py"
    rig.run("airflow", "create", str(dag))
    (config,) = re.findall(r"^CONFIG = (.*)$", dag.read_text(), re.MULTILINE)
    states = ast.literal_eval(config)["states"]
    commands = {
        step: next(text for text in texts_of(states[step]) if f" step {step} " in text)
        for step in ("start", "end")
    }
    assert_carried(commands["end"], commands["start"])


class Machine:
    """A machine of the scheduler: an empty folder, a bare interpreter, and what the task is handed."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        needed = ("requests", "boto3", "blake3", "msgpack", "zstandard")
        python = bare_python.make(folder / "python", *needed)
        self._folder = folder
        self._env = {
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "HOME": str(folder),
            "METAFLOW_SKIP_INSTALL_DEPENDENCIES": "1",
            "METAFLOW_RUN_ID": "hello",
            "AWS_BATCH_JQ_NAME": "queue",
            "AWS_BATCH_CE_NAME": "machines",
            "AWS_EXECUTION_ENV": "AWS_ECS_EC2",
            "SFN_STATE_MACHINE": "DeployedFlow",
            **{name: value for name, value in rig.env.items() if name.startswith(("AWS_", "http", "no_"))},
        }

    def run(self, container: dict[str, Any], job: str, attempt: int, **env: str) -> tuple[int, str]:
        handed = {one["Name"]: one["Value"] for one in container["Environment"] if "Value" in one}
        place = self._folder / f"{job}-{attempt}"
        place.mkdir()
        done = subprocess.run(
            ["bash", "-c", container["Command"][-1]],
            cwd=place,
            env=self._env
            | handed
            | env
            | {
                "AWS_BATCH_JOB_ID": job,
                "AWS_BATCH_JOB_ATTEMPT": str(attempt + 1),
                "AWS_BATCH_JQ_NAME": "queue",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )
        return done.returncode, done.stdout


def test_the_tasks_run_as_step_functions_runs_them_and_a_retry_goes_on(rig, states, tmp_path):
    machine = Machine(rig, tmp_path)
    status, died = machine.run(states["start"], "job-1", 0)
    assert status != 0
    assert re.search(r"attempt 0 of DeployedFlow/start/production:deployedflow-\S+/_ from 0", died), died
    assert "saves ['epoch']" in died
    status, again = machine.run(states["start"], "job-1", 1)
    assert status == 0, again
    assert re.search(r"attempt 1 of DeployedFlow/start/production:deployedflow-\S+/_ from 3", again), again
    status, end = machine.run(states["end"], "job-2", 0, METAFLOW_PARENT_TASK_ID="job-1")
    assert status == 0, end
    assert "given eager ('epoch',) True" in end
    assert "lists [1, 0]" in end
