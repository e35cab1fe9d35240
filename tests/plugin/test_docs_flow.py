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


def flow_of(page: str) -> str:
    (source,) = [block for block in BLOCK.findall((ROOT / page).read_text()) if "@step" in block]
    if "FlowSpec" in source:
        return str(source)
    return AROUND.format(step="".join(f"    {line}" for line in source.splitlines(keepends=True)))


@pytest.mark.parametrize("page", ["README.md", "docs/metaflow.md"])
def test_the_flow_that_is_shown_runs(page: str, tmp_path: Path) -> None:
    path = tmp_path / "flow.py"
    path.write_text(flow_of(page))
    done = subprocess.run(
        [sys.executable, str(path), "--no-pylint", "--datastore=local", "--metadata=local", "run"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "USER": "tester", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "saved " in done.stdout + done.stderr
