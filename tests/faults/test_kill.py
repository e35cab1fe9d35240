"""Writers killed at random moments: what was acknowledged stays, what is listed can be read."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SEED = int(os.environ.get("CKPTSTORE_TEST_SEED", random.randrange(10**6)))


def kill(folder: Path, rounds: int, durability: str, timeout_s: float) -> None:
    print("CKPTSTORE_TEST_SEED =", SEED)
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("killing.py"), folder, str(SEED), str(rounds), durability],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a fork keeps only one thread
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("durability", "rounds"), [("os", 30), ("full", 6)])
def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path, durability: str, rounds: int) -> None:
    kill(tmp_path / "store", rounds, durability, 110)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("durability", "rounds"), [("os", 1000), ("full", 200)])
def test_a_thousand_killed_writers_lose_nothing_they_acknowledged(
    tmp_path: Path, durability: str, rounds: int
) -> None:
    kill(tmp_path / "store", rounds, durability, 3500)
