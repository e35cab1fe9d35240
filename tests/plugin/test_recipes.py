"""Each recipe loses its machine once and goes on from its files.

Where a library is not installed, a stand-in that writes the same files takes its
place (``stand_ins/``); XGBoost is small enough to be there, or the test is skipped.
"""

import importlib.util
import os
from pathlib import Path

import pytest

from ckptstore import CheckpointStore

pytestmark = pytest.mark.metaflow

RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
STAND_INS = Path(__file__).with_name("stand_ins")
RUN_HERE = {"xgboost_directory", "keras_directory", "lightning_directory", "huggingface_directory"}

needs_torch = [
    pytest.mark.torch,
    pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch"),
]


def is_installed(library):
    return importlib.util.find_spec(library) is not None


@pytest.fixture
def run_recipe(run_command):
    """Run a recipe and return its output, and the files and links of its newest checkpoint."""

    def run(name, *, library, flow):
        stand_in = {} if is_installed(library) else {"PYTHONPATH": str(STAND_INS)}
        path = RECIPES / f"{name}.py"
        ended = run_command(str(path), "--no-pylint", "run", KERAS_BACKEND="torch", **stand_in)
        assert ended.returncode == 0, ended.stdout
        assert ended.stdout.count("the machine is gone") > 0
        assert ended.stdout.count("restored the files of 'mfchckpt'") == 1
        url = os.path.join(os.environ["METAFLOW_DATASTORE_SYSROOT_LOCAL"], ".metaflow", "mf.ckptstore")
        with CheckpointStore.open(url, create=False) as store:
            newest = next(one for one in store.list() if one.collection.startswith(f"{flow}/train/"))
            index = store.load(newest, fields=["directory/"])["directory/"]
        return ended.stdout, set(index["files"]), index["links"]

    return run


@pytest.mark.skipif(not is_installed("xgboost"), reason="needs xgboost")
def test_xgboost_goes_on_with_the_rounds_it_had(run_recipe):
    output, files, _ = run_recipe("xgboost_directory", library="xgboost", flow="XGBoostDirectory")
    assert "going on after round 30" in output
    assert "a model of 60 rounds" in output
    assert files == {"model.ubj"}


def test_keras_goes_on_with_the_epochs_it_had(run_recipe):
    output, files, _ = run_recipe("keras_directory", library="keras", flow="KerasDirectory")
    assert "going on after epoch 4" in output
    assert "trained epochs [5, 6] in this attempt" in output
    assert files == {"last.keras"}


class TestWithTorch:
    pytestmark = needs_torch

    def test_lightning_goes_on_from_the_link_to_its_last_checkpoint(self, run_recipe):
        output, files, links = run_recipe(
            "lightning_directory", library="pytorch_lightning", flow="LightningDirectory"
        )
        assert "going on after epoch 4" in output
        assert "trained up to epoch 6, 24 steps in all" in output
        assert links == {"last.ckpt": "epoch=5.ckpt"}
        assert {"epoch=4.ckpt", "epoch=5.ckpt"} <= files

    def test_the_hugging_face_trainer_goes_on_and_rotates_its_folders(self, run_recipe):
        output, files, _ = run_recipe(
            "huggingface_directory", library="transformers", flow="HuggingFaceDirectory"
        )
        assert "going on after step 25" in output
        assert "trained up to step 40" in output
        assert {name.partition("/")[0] for name in files} == {"checkpoint-35", "checkpoint-40"}
        assert {name.partition("/")[2] for name in files} == {
            "model.safetensors",
            "optimizer.pt",
            "rng_state.pth",
            "scheduler.pt",
            "trainer_state.json",
            "training_args.bin",
        }


def test_every_recipe_is_run_by_a_test():
    assert {path.stem for path in RECIPES.glob("*.py")} == RUN_HERE
