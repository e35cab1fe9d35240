"""Every Python example of README and docs runs as it stands."""

from __future__ import annotations

import asyncio
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = ["README.md", "docs/quickstart.md", "docs/operations.md", "docs/trust.md"]

# Flows are run by the tests of the plugin.
FLOW = re.compile(r"@step|FlowSpec")


def examples(page: str) -> list[str]:
    return [block for block in BLOCK.findall((ROOT / page).read_text()) if not FLOW.search(block)]


def run_example(source: str, names: dict[str, object]) -> None:
    if "await " in source:
        exec(f"async def example():\n{textwrap.indent(source, '    ')}", names)
        asyncio.run(names["example"]())  # type: ignore[operator]
    else:
        exec(compile(source, "<example>", "exec"), names)


@pytest.mark.parametrize("page", PAGES)
def test_examples_run(page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = examples(page)
    assert found
    names = {"weights": np.ones((100, 100)), "state": {"weights": np.ones(10)}}
    for source in found:
        run_example(source.replace("/data/checkpoints", str(tmp_path)), dict(names))


def test_a_broken_example_is_noticed() -> None:
    with pytest.raises(NameError):
        run_example("nothing_of_that_name\n", {})
