"""Metaflow's generated stubs type the decorator, ``current.checkpoint`` and ``Checkpoint``."""

import ast
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from metaflow import Checkpoint
from metaflow.cmd.develop.stub_generator import StubGenerator
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.options import DEFAULTS

pytestmark = pytest.mark.metaflow

ROOT = Path(__file__).parents[2]
OURS = "mf_extensions/ckptstore/plugins/checkpoint"
USER = """
from metaflow import Checkpoint, FlowSpec, checkpoint, current, step


class Train(FlowSpec):
    @checkpoint(load_policy="eager", include=["a"], background=True, keep="last(3)")
    @step
    def start(self) -> None:
        reveal_type(current.checkpoint)  # CurrentCheckpoint
        reveal_type(current.checkpoint.info)  # CheckpointArtifact | None
        reveal_type(current.checkpoint.list())  # list[CheckpointArtifact]
        reveal_type(current.checkpoint.inspect())  # dict[str, Any]
        current.checkpoint.sav()  # error: "CurrentCheckpoint" has no attribute "sav"
        current.checkpoint.save(metadata=3)  # error: Argument "metadata" to "save"


@checkpoint(load_polcy="eager")  # error: Unexpected keyword argument "load_polcy"
@step
def other(self: FlowSpec) -> None: ...


with Checkpoint(temp_dir_root="/scratch") as client:
    reveal_type(client)  # Checkpoint
    reveal_type(client.list(task="Train/1/start/2"))  # list[CheckpointArtifact]
    reveal_type(client.load("Train/1/start/2", fields=["a"]))  # dict[str, Any]
    reveal_type(client.save({"a": 1}))  # CheckpointArtifact
"""


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stubs") / "metaflow"
    StubGenerator(str(folder)).write_out()
    return folder


def functions(stub, name):
    """Return all functions of a name at the top of a stub, or the methods of a class by their names."""
    return [node for node in ast.parse(stub.read_text()).body if getattr(node, "name", "") == name]


def public(cls):
    return {name for name in vars(cls) if not name.startswith("_")}


def test_current_checkpoint_is_typed(stubs):
    (current,) = functions(stubs / "metaflow_current.pyi", "Current")
    (attribute,) = [node for node in current.body if getattr(node, "name", "") == "checkpoint"]
    kind = ast.literal_eval(attribute.returns)
    assert kind == "metaflow." + OURS.replace("/", ".") + ".current_checkpoint.CurrentCheckpoint"


@pytest.mark.parametrize(
    ("module", "cls"), [("current_checkpoint", CurrentCheckpoint), ("client", Checkpoint)]
)
def test_all_that_is_public_is_there_with_its_parameters(stubs, module, cls):
    (stub,) = functions(stubs / OURS / f"{module}.pyi", cls.__name__)
    found = {node.name: node for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert public(cls) <= set(found)
    for name in public(cls):
        method = getattr(cls, name)
        if callable(method):
            arguments = found[name].args
            names = [one.arg for one in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
            assert names == list(inspect.signature(method).parameters), name


def test_the_decorator_has_all_parameters_of_checkpoint_with_their_defaults(stubs):
    overloads = functions(stubs / "__init__.pyi", "checkpoint")
    assert len(overloads) == 4
    for one in (overloads[0], overloads[-1]):
        defaults = dict(zip((arg.arg for arg in one.args.kwonlyargs), one.args.kw_defaults, strict=True))
        assert {name: ast.literal_eval(value) for name, value in defaults.items()} == DEFAULTS
        assert all(arg.annotation is not None for arg in one.args.kwonlyargs)


def test_metaflow_gives_checkpoint_and_its_artifact(stubs):
    text = (stubs / "__init__.pyi").read_text()
    for name in ("Checkpoint", "CheckpointArtifact", "CheckpointException"):
        assert re.search(rf"import {name} as {name}$", text, re.MULTILINE), name


def test_a_type_checker_sees_what_a_user_does(stubs, tmp_path):
    pytest.importorskip("mypy")
    user = tmp_path / "user.py"
    user.write_text(USER)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--follow-imports=silent",
        "--cache-dir",
        str(tmp_path),
        str(user),
    ]
    env = os.environ | {"MYPYPATH": os.pathsep.join([str(stubs.parent), str(ROOT)])}
    ran = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110)
    told = re.findall(r"^user\.py:(\d+): \w+: (.*)$", ran.stdout, re.MULTILINE)
    said = {int(line): re.sub(r"\bmetaflow\.[\w.]*\.", "", text) for line, text in told}
    for number, line in enumerate(USER.splitlines(), 1):
        code, comment, wanted = line.partition("  # ")
        if not comment:
            assert number not in said, said[number]
        elif wanted.startswith("error: "):
            assert wanted.removeprefix("error: ") in said[number]
        else:
            assert said[number] == f'Revealed type is "{wanted}"', code
