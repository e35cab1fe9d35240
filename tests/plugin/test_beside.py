"""Beside an installed metaflow-checkpoint: ours are `checkpoint` and `Checkpoint`, all else of theirs stays.

That package is no requirement of the tests, where all the others run without
it: it is fetched for these, which are skipped where it cannot be had.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.artifact import CheckpointArtifact, parse_key
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError
from metaflow_extensions.ckptstore.plugins.checkpoint.foreign import refuse_foreign

pytestmark = pytest.mark.metaflow

FLOWS = Path(__file__).with_name("flows")
THEIRS = "metaflow-checkpoint==0.2.14"
KEY = "mf.checkpoints/checkpoints/artifacts/Flow/start/19d0191a4a07/a92ae9615600/aa1ff14e.0.best.0"
DICT = {
    "type": "checkpoint",
    "key": KEY,
    "url": f"/data/.metaflow/{KEY}",
    "name": "best",
    "pathspec": "Flow/1/start/2",
    "attempt": 0,
    "created_on": "2026-01-01T00:00:00",
    "version_id": "0",
    "storage_format": "files",
    "metadata": {},
    "size": 6,
}
NAMES = """
import sys
sys.path.insert(0, sys.argv[2]) if sys.argv[1] == "first" else sys.path.append(sys.argv[2])
import metaflow
given = metaflow.Checkpoint, metaflow.checkpoint.args[0], metaflow.model.args[0], metaflow.huggingface_hub.args[0]
print([one.__module__.split(".")[1] for one in given], metaflow.load_model.__name__)
"""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Return a folder with metaflow-checkpoint in it."""
    pytest.importorskip("pip")
    folder = tmp_path_factory.mktemp("theirs")
    options = ["--quiet", "--no-deps", "--disable-pip-version-check", "--retries=0", "--timeout=10"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), THEIRS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        pytest.skip(f"{THEIRS} cannot be had: {done.stderr.strip().splitlines()[-1]}")
    return str(folder)


@pytest.fixture(scope="module")
def told(theirs, run_command, tmp_path_factory):
    folder = tmp_path_factory.mktemp("beside")
    path = folder / "told.jsonl"
    env = {"TOLD": str(path), "PYTHONPATH": theirs, "FOLDER": str(folder)}
    ran = run_command(str(FLOWS / "beside.py"), "--no-pylint", "run", **env)
    assert ran.returncode == 0, ran.stdout
    facts = {}
    for line in path.read_text().splitlines():
        facts |= json.loads(line)
    return facts


@pytest.mark.parametrize("place", ["first", "last"])
def test_the_names_that_both_have_are_ours_wherever_theirs_is_on_the_path(theirs, run_command, place):
    ran = run_command("-c", NAMES, place, theirs)
    told = "['ckptstore', 'ckptstore', 'obcheckpoint', 'obcheckpoint'] load_model"
    assert told in ran.stdout, ran.stdout


def test_our_checkpoints_and_their_models_work_in_one_step(told):
    assert told["decorator"].startswith("metaflow_extensions.ckptstore.")
    assert told["client"].startswith("metaflow_extensions.ckptstore.")
    assert told["epoch"] == 3
    assert told["model"] == "a model"


def test_a_checkpoint_of_theirs_is_read_by_their_function(told):
    assert told["theirs"] == "a model"


def test_what_is_theirs_is_refused_in_every_form_with_how_to_read_it(told):
    assert len(told["refused"]) == 12
    for number, error in enumerate(told["refused"]):
        assert error.startswith("CheckpointArgumentError: this is a ")
        assert ("model" if number >= 9 else "checkpoint") in error.partition(" of ")[0]
        assert "load_model(reference, 'a directory')" in error


def test_their_dict_and_key_are_told_from_ours_without_their_package():
    for take, reference in ((CheckpointArtifact.hydrate, DICT), (lambda key: parse_key(key, "a" * 32), KEY)):
        with pytest.raises(CheckpointArgumentError, match="the package metaflow-checkpoint") as raised:
            take(reference)
        assert "best" in str(raised.value)


@pytest.mark.parametrize(
    "reference",
    [
        "Flow/train/user:ada/_/00~1~best~0@" + "b" * 64,
        "checkpoints/metadata/user:ada/_/00~1~best~0@" + "b" * 64,
        "Flow/1/start/2",
        {},
        {"key": "nothing/of/theirs"},
        {"ref": {}, "key": KEY},
        3,
        None,
    ],
)
def test_what_is_not_theirs_passes(reference):
    refuse_foreign(reference)


def test_a_mapping_with_a_model_id_is_a_model_of_theirs():
    with pytest.raises(CheckpointArgumentError, match="this is a model of the package"):
        refuse_foreign({"model_uuid": "7", "type": "model", "key": "mf.models/models/artifacts/7"})
