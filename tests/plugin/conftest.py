"""Real flows in a datastore of their own, run by Metaflow's Runner."""

import atexit
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
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
    # Metaflow starts up to 64 processes to put what a task leaves in S3.
    "METAFLOW_S3_WORKER_COUNT": "2",
    "USER": "ada",
}

# Metaflow's Runner brings a typing_extensions of its own, which changes how `typing` checks parameters
# on Python 3.11: what of torch is imported after that fails. Here it is imported before.
with contextlib.suppress(ImportError):
    import torch._dynamo  # noqa: F401

FLOWS = Path(__file__).with_name("flows")


class Ran(NamedTuple):
    """A run that has ended: its whole log, what its steps told, and the client's Run."""

    log: str
    told: dict[str, Any]
    run: Any


@pytest.fixture(scope="module")
def run_flow(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Ran]:
    """Run a flow of ``flows/`` and return what came of it; a failed run is an error."""

    def run(name: str, **parameters: Any) -> Ran:
        from metaflow import Runner

        told = tmp_path_factory.mktemp("told") / "told.jsonl"
        told.touch()
        with warnings.catch_warnings():
            # Metaflow reads a flow's source with names of `ast` that Python 3.12 deprecates.
            warnings.filterwarnings("ignore", r"(ast\.\w+|Attribute \w+) is deprecated", DeprecationWarning)
            with Runner(
                str(FLOWS / f"{name}.py"),
                show_output=False,
                pylint=False,
                cwd=str(FLOWS),
                env={"TOLD": str(told)},
            ) as runner:
                result = runner.run(**parameters)
                log = result.stdout + result.stderr
        assert result.status == "successful", log
        return Ran(log, _read(told), result.run)

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
