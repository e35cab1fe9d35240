"""The blocking store of a test, and a second thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from rig import Blocking


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Blocking]:
    made = Blocking(tmp_path)
    yield made
    made.store.close()


@pytest.fixture
def aside() -> Iterator[Callable[..., Future[Any]]]:
    """Run a call on another thread."""
    with ThreadPoolExecutor(4, thread_name_prefix="test") as pool:
        yield pool.submit
