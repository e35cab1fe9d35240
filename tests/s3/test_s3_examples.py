"""The example of docs/backends.md runs as it stands, on another bucket."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "backends.md"


def test_the_page_s_example_runs(server):
    (source,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    options = ", ".join(f"{name}={value!r}" for name, value in server.options.items())
    url = '"s3://my-bucket/team/checkpoints"'
    assert url in source
    exec(source.replace(url, f"{server.new_url()!r}, {options}"), {})
