"""Wrong arguments of the decorator end a run before it starts."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.metaflow

FLOWS = Path(__file__).with_name("flows")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"include": ["a"], "exclude": ["b"]}, "mutually exclusive"),
        ({"include": []}, "include=[] names nothing"),
        ({"include": "model"}, "include must be a list of attribute names"),
        ({"include": [3]}, "3 is none"),
        ({"include": ["alpha"]}, "'alpha' is a parameter. It is the same in every attempt"),
        ({"include": ["constant"]}, "'constant' is a constant"),
        ({"include": ["end"]}, "'end' is a step"),
        ({"include": ["name"]}, "'name' is Metaflow's own"),
        ({"load_policy": "latest"}, "load_policy must be 'fresh', 'eager', 'none' or None, 'best:<metric>'"),
        ({"background": 1}, "background must be True or False"),
        ({"show_card": "yes"}, "show_card must be True or False"),
        ({"temp_dir_root": 5}, "temp_dir_root must be the path of a folder, not 5"),
        ({"keep": 3}, "keep"),
    ],
    ids=lambda value: str(value),
)
def test_wrong_argument_ends_the_run_before_it_starts(run_command, arguments, message):
    ended = run_command(str(FLOWS / "arguments.py"), "--no-pylint", "run", ARGUMENTS=repr(arguments))
    assert ended.returncode != 0
    assert message in " ".join(ended.stdout.split())
    assert "Workflow starting" not in ended.stdout
    assert "Traceback" not in ended.stdout or "keep" in arguments


@pytest.mark.parametrize("policy", ["eager", "null", "none"])
def test_with_on_the_command_line_reaches_the_tasks(run_command, policy):
    spec = f'checkpoint:load_policy={policy},background=true,include=["state"]'
    tags = ("--namespace", "", "--tag", "checkpoint:a", "--tag", "checkpoint:b")
    ended = run_command(str(FLOWS / "with_checkpoint.py"), "--no-pylint", "run", *tags, "--with", spec)
    assert ended.returncode == 0, ended.stdout
    expected = "eager" if policy == "eager" else "none"
    assert f"policy {expected}, background True, include ('state',)" in ended.stdout
    assert "line WithCheckpointFlow/start/checkpoint:a+b/_" in ended.stdout
