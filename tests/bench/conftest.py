"""What the benchmark's tests share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _young_heap() -> Iterator[None]:
    """Rounds collect garbage before whatever they time, which in a process with torch takes a tenth of a second."""
    gc.freeze()
    yield
    gc.unfreeze()
