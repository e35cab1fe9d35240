"""Every example runs and does what it says."""

import importlib.util
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.metaflow

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("name", ["sync_api", "async_api"])
def test_the_programmatic_doors(run_command, name):
    ended = run_command("-W", "error", str(EXAMPLES / f"{name}.py"))
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.endswith("done\n")


def test_the_demo_trains_dies_resumes_and_ends_with_the_same_bits(run_command):
    ended = run_command(str(EXAMPLES / "demo.py"))
    assert ended.returncode == 0, ended.stdout
    assert "weights bit-identical to a training that never died: \N{CHECK MARK} yes" in ended.stdout
    assert ended.stdout.count("[@checkpoint] restored 'epoch'") == 3
    attempts = re.findall(
        r"^ +(\d)  (the start|epoch \d+) .*(exception|os\._exit|finished)", ended.stdout, re.M
    )
    assert [attempt[0] for attempt in attempts] == ["0", "1", "2", "3"]
    assert [attempt[2] for attempt in attempts] == ["exception", "os._exit", "exception", "finished"]


@pytest.mark.torch
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
def test_the_pytorch_example_fails_at_random_resumes_and_looks_at_its_checkpoints(run_command):
    ended = run_command(str(EXAMPLES / "train_pytorch.py"), "--no-pylint", "run")
    assert ended.returncode == 0, ended.stdout
    assert "failed by chance after epoch" in ended.stdout
    assert "restored 'latest' of attempt" in ended.stdout
    assert "model torch.nn.modules.container.Sequential" in ended.stdout
    assert "the best model, of epoch" in ended.stdout


def test_every_example_is_run_by_a_test():
    run_here = {"sync_api", "async_api", "demo", "train_numpy", "train_pytorch"}  # the demo runs train_numpy
    assert {path.stem for path in EXAMPLES.glob("*.py")} == run_here
