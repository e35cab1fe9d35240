"""The flows that README and docs show run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.metaflow

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)

# What stands around the step that the README shows.
AROUND = """
from metaflow import FlowSpec, checkpoint, current, retry, step

loss = 0.5

def build():
    return {{"weights": [0.0] * 10}}

class ReadmeFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.train)

{step}
        self.next(self.end)

    @step
    def end(self):
        assert self.epoch == 9 and self.model == build()

if __name__ == "__main__":
    ReadmeFlow()
"""


def blocks_of(page: str) -> list[str]:
    return [str(block) for block in BLOCK.findall((ROOT / page).read_text())]


def runs_well(source: str, folder: Path, name: str, *arguments: str) -> str:
    path = folder / f"{name}.py"
    path.write_text(source)
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        cwd=folder,
        env={
            "PATH": "/usr/bin:/bin",
            "USER": "tester",
            "HOME": str(folder),
            "METAFLOW_DEFAULT_DATASTORE": "local",
            "METAFLOW_DEFAULT_METADATA": "local",
        },
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_step_that_the_readme_shows_runs(tmp_path: Path) -> None:
    (step,) = [block for block in blocks_of("README.md") if "@step" in block]
    flow = AROUND.format(step="".join(f"    {line}" for line in step.splitlines(keepends=True)))
    assert "saved " in runs_well(flow, tmp_path, "readme", "--no-pylint", "run")


def test_every_example_of_the_guide_runs(tmp_path: Path) -> None:
    blocks = blocks_of("docs/metaflow.md")
    flows = [block for block in blocks if "FlowSpec" in block]
    scripts = [block for block in blocks if block not in flows]
    for number, flow in enumerate(flows):
        assert "saved " in runs_well(flow, tmp_path, f"flow{number}", "--no-pylint", "run")
    for number, script in enumerate(scripts):
        assert "->" in runs_well(script, tmp_path, f"script{number}")
    assert len(flows) >= 4
    assert scripts
