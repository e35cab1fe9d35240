"""A store to run the command on."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_rig import Filled


@pytest.fixture
def filled(tmp_path: Path) -> Filled:
    """A local store with four checkpoints."""
    return Filled(tmp_path / "store")
