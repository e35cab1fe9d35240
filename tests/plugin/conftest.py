"""Real flows in a datastore of their own, run by Metaflow's Runner."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

# Metaflow reads these when it is imported, so they are set before a test module can import it.
_FOLDER = tempfile.mkdtemp(prefix="ckptstore-flows-")
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)
os.environ |= {
    "METAFLOW_HOME": _FOLDER,
    "METAFLOW_DATASTORE_SYSROOT_LOCAL": _FOLDER,
    "METAFLOW_DEFAULT_DATASTORE": "local",
    "METAFLOW_DEFAULT_METADATA": "local",
    "USER": "ada",
}

FLOWS = Path(__file__).with_name("flows")


class Ran(NamedTuple):
    """A run that has ended: its status, its whole log, what its steps told, and the client's Run."""

    succeeded: bool
    log: str
    told: dict[str, Any]
    run: Any


@pytest.fixture(scope="module")
def run_flow(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Run a flow of ``flows/`` and return what came of it; a failed run is an error unless ``fails``."""

    def run(name: str, *, fails: bool = False, decospecs: list[str] | None = None, **parameters: Any) -> Ran:
        from metaflow import Runner

        told = tmp_path_factory.mktemp("told") / "told.jsonl"
        told.touch()
        with Runner(
            str(FLOWS / f"{name}.py"),
            show_output=False,
            pylint=False,
            cwd=str(FLOWS),
            env={"TOLD": str(told)},
        ) as runner:
            result = runner.run(decospecs=decospecs, **parameters)
            log = result.stdout + result.stderr
            ran = Ran(result.status == "successful", log, _read(told), result.run)
        assert ran.succeeded is not fails, log
        return ran

    return run


@pytest.fixture(scope="module")
def run_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a Python file as a user would, and return the ended process."""

    def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command],
            env=os.environ | env,
            cwd=_FOLDER,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=110,
        )

    return run


def _read(told: Path) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    for line in told.read_text().splitlines():
        facts |= json.loads(line)
    return facts
