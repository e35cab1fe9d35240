"""Remote tasks: what they are sent is enough, and what is missing there is named. Nothing is downloaded.

A run's code package is made where the extension is installed, from a wheel or
editable, unpacked into an empty folder, and its steps are run there as on a
remote machine: by an interpreter that has requests and boto3, like Metaflow's
images, or also what checkpoints need.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bare_python
import pytest
import seaweed
from metaflow.package import MetaflowPackage
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointException
from metaflow_extensions.ckptstore.plugins.checkpoint.requirements import add_requirements, check_installed

pytestmark = pytest.mark.metaflow

ROOT = Path(__file__).parents[2]
FLOW = Path(__file__).with_name("flows") / "remote.py"
METADATA = json.dumps({"version": 0, "archive_format": "tgz", "mfcontent_version": 1})
THE_LINE = "python -m pip install blake3 msgpack zstandard"


@pytest.fixture(scope="module")
def archives(tmp_path_factory) -> dict[str, Path]:
    """The code package as saved from a wheel install and from an editable one."""
    pytest.importorskip("setuptools")
    pytest.importorskip("pip")
    made = {}
    for kind in ("wheel", "editable"):
        folder = tmp_path_factory.mktemp(kind)
        python = bare_python.make(folder / "env", "metaflow", "setuptools")
        bare_python.install(python, ROOT, folder / "source", editable=kind == "editable")
        (folder / "flow").mkdir()
        flow = folder / "flow" / "remote.py"
        flow.write_bytes(FLOW.read_bytes())
        made[kind] = folder / "job.tar"
        command = [str(flow), "--no-pylint", "--datastore=local", "--metadata=local", "package", "save"]
        done = run(python, *command, str(made[kind]), cwd=flow.parent)
        assert done.returncode == 0, done.stdout
    return made


def run(python: Path, *command: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python), *command],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "USER": "ada", "HOME": str(cwd), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )


class Remote:
    """A machine where the package was unpacked, and its interpreter."""

    def __init__(self, archive: Path, folder: Path, python: Path) -> None:
        self._server = seaweed.server()
        self._python = python
        self._root = f"s3://{seaweed.BUCKET}/{self._server.new_prefix()}"
        self._folder = folder / "metaflow"
        (self._folder / ".metaflow").mkdir(parents=True)
        for command in MetaflowPackage.get_extract_commands(METADATA, str(archive), str(self._folder)):
            subprocess.run(command, shell=True, check=True, timeout=60)

    def flow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        options = [
            "--quiet",
            "--no-pylint",
            "--metadata=local",
            "--datastore=s3",
            f"--datastore-root={self._root}",
        ]
        return run(
            self._python,
            "remote.py",
            *options,
            *arguments,
            cwd=self._folder,
            METAFLOW_S3_ENDPOINT_URL=self._server.endpoint_url,
            AWS_ACCESS_KEY_ID=seaweed.ACCESS_KEY,
            AWS_SECRET_ACCESS_KEY=seaweed.SECRET_KEY,
            AWS_DEFAULT_REGION="us-east-1",
            AWS_EC2_METADATA_DISABLED="true",
            **MetaflowPackage.get_post_extract_env_vars(METADATA, str(self._folder)),
        )

    def init(self) -> None:
        done = self.flow("init", "--run-id=17", "--task-id=0")
        assert done.returncode == 0, done.stdout

    def step(self, name: str, task: int, inputs: str, attempt: int = 0) -> subprocess.CompletedProcess[str]:
        numbers = [f"--task-id={task}", f"--retry-count={attempt}", "--max-user-code-retries=1"]
        return self.flow("step", name, "--run-id=17", *numbers, f"--input-paths=17/{inputs}")


def ours(archive: Path) -> dict[str, bytes]:
    """What the package has of the store and the extension."""
    with tarfile.open(archive) as tar:
        files = [member for member in tar if member.isfile() and "ckptstore" in member.name]
        return {member.name: tar.extractfile(member).read() for member in files}  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_the_package_carries_the_store_and_the_extension_whole(archives, kind):
    sent = ours(archives[kind])
    for folder in ("ckptstore", "metaflow_extensions/ckptstore"):
        source = ROOT / ("" if folder == "ckptstore" else "metaflow_plugin") / folder
        copy = archives[kind].parent / "source" / source.relative_to(ROOT)
        for path in copy.rglob("*.py"):
            assert sent[f".mf_code/{folder}/{path.relative_to(copy)}"] == path.read_bytes()


def test_without_the_packages_other_steps_work_and_the_checkpointed_one_names_the_line(archives, tmp_path):
    remote = Remote(archives["wheel"], tmp_path, bare_python.make(tmp_path / "env", "requests", "boto3"))
    remote.init()
    plain = remote.step("start", 1, "_parameters/0")
    assert plain.returncode == 0, plain.stdout
    assert "the plain step runs" in plain.stdout
    checkpointed = remote.step("train", 2, "start/1")
    assert checkpointed.returncode != 0
    assert THE_LINE in checkpointed.stdout
    assert "the checkpointed step runs" not in checkpointed.stdout
    assert "ModuleNotFoundError" not in checkpointed.stdout
    # An attempt beyond the last is @catch's, which needs no checkpoints.
    assert "the checkpointed step runs" in remote.step("train", 2, "start/1", attempt=2).stdout


@pytest.mark.parametrize("more", [(), ("aiobotocore",)], ids=["metaflow's client", "aiobotocore"])
def test_with_the_packages_a_task_dies_is_retried_and_restored(archives, tmp_path, more):
    needed = ("requests", "boto3", "blake3", "msgpack", "zstandard", *more)
    remote = Remote(archives["editable"], tmp_path, bare_python.make(tmp_path / "env", *needed))
    remote.init()
    assert remote.step("start", 1, "_parameters/0").returncode == 0
    died = remote.step("train", 2, "start/1")
    assert died.returncode != 0
    assert "starts at epoch 0" in died.stdout
    again = remote.step("train", 2, "start/1", attempt=1)
    assert again.returncode == 0, again.stdout
    assert "starts at epoch 3" in again.stdout
    assert ("aiobotocore is not installed" in again.stdout) is (not more)
    end = remote.step("end", 3, "train/2")
    assert "ends after epoch 6" in end.stdout


def decorated(name: str, **attributes: Any) -> SimpleNamespace:
    return SimpleNamespace(name=name, attributes={"packages": {}, "disabled": None} | attributes)


def added(
    *decorators: SimpleNamespace, datastore: str = "s3", **bases: list[SimpleNamespace]
) -> list[dict[str, str]]:
    flow = SimpleNamespace(_flow_decorators=bases)
    for _ in range(2):
        add_requirements(decorators, flow, datastore)
    return [decorator.attributes["packages"] for decorator in decorators]


def test_pypi_steps_get_what_they_need():
    (packages,) = added(decorated("pypi"))
    assert sorted(packages) == ["aiobotocore", "blake3", "msgpack", "zstandard"]
    (packages,) = added(decorated("pypi"), datastore="local")
    assert sorted(packages) == ["aiofiles", "blake3", "msgpack", "zstandard"]


def test_conda_steps_get_it_under_condas_names():
    (packages,) = added(decorated("conda"))
    assert sorted(packages) == ["aiobotocore", "blake3", "msgpack-python", "zstandard"]


def test_with_both_only_pypi_is_given_more_because_metaflow_refuses_a_mixture():
    conda, pypi = added(decorated("conda"), decorated("pypi", packages={"numpy": "1.26.4"}))
    assert conda == {}
    assert pypi["numpy"] == "1.26.4"
    assert "blake3" in pypi


@pytest.mark.parametrize("spelled", ["msgpack", "Msgpack", "conda-forge::msgpack-python", "msgpack[x]"])
def test_what_the_user_pins_stays_whatever_its_spelling(spelled):
    for kind in ("pypi", "conda"):
        (packages,) = added(decorated(kind, packages={spelled: "1.0.5"}))
        assert packages[spelled] == "1.0.5"
        assert len([name for name in packages if "msgpack" in name.lower()]) == 1


def test_what_the_user_pins_for_the_whole_flow_stays():
    (packages,) = added(decorated("pypi"), pypi_base=[decorated("pypi_base", packages={"blake3": "1.0.1"})])
    assert "blake3" not in packages


@pytest.mark.parametrize("pinned", ["boto3", "botocore"])
def test_beside_a_pinned_boto3_metaflows_client_is_used(pinned):
    (packages,) = added(decorated("pypi", packages={pinned: "1.35.0"}))
    assert "aiobotocore" not in packages


@pytest.mark.parametrize("kind", ["pypi", "conda"])
def test_metaflows_own_environment_asks_for_what_was_added(kind, tmp_path):
    flow = tmp_path / "flow.py"
    flow.write_text(f"""
import metaflow
from metaflow import FlowSpec, checkpoint, {kind}, step
from metaflow.decorators import _attach_decorators, _init_step_decorators
from metaflow.plugins import DATASTORES
from metaflow.plugins.pypi.conda_environment import CondaEnvironment

class Flow(FlowSpec):
    @checkpoint
    @{kind}(packages={{"numpy": "1.26.4"}})
    @step
    def start(self):
        self.next(self.end)

    @{kind}
    @checkpoint
    @step
    def end(self):
        pass

flow = Flow(use_cli=False)
environment = CondaEnvironment(flow)
environment.datastore_type, environment.logger = "s3", print
(environment.datastore,) = [one for one in DATASTORES if one.TYPE == "s3"]
environment.datastore.get_datastore_root_from_config = lambda echo: "s3://bucket/root"
_attach_decorators(flow, environment.decospecs())
_init_step_decorators(flow, flow._graph, environment, environment.datastore, print)
for step in flow:
    print(step.__name__, sorted(environment.get_environment(step)["{kind}"]["packages"]))
""")
    done = run(Path(sys.executable), str(flow), cwd=tmp_path)
    msgpack = "msgpack" if kind == "pypi" else "msgpack-python"
    always = ["aiobotocore", "blake3", "boto3", msgpack, "requests", "zstandard"]
    assert f"start {sorted([*always, 'numpy'])}" in done.stdout, done.stdout
    assert f"end {always}" in done.stdout


def test_nothing_is_added_to_a_disabled_environment_or_to_none():
    assert added(decorated("conda", disabled=True)) == [{}]
    assert added(decorated("retry", packages=None)) == [None]


def test_the_names_of_the_missing_packages_are_in_the_line(monkeypatch):
    check_installed("train", "local")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in ("zstandard", "aiofiles") else object()
    )
    with pytest.raises(CheckpointException, match=r"step 'train'.*python -m pip install zstandard aiofiles "):
        check_installed("train", "local")
