"""Processes killed at random moments: what was acknowledged stays, what is listed can be read."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SEED = int(os.environ.get("CKPTSTORE_TEST_SEED", random.randrange(10**6)))


def kill(
    script: str, folder: Path, rounds: int, durability: str, *mutant: str, timeout_s: float = 110
) -> subprocess.CompletedProcess[str]:
    print("CKPTSTORE_TEST_SEED =", SEED)
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name(script),
            folder,
            str(SEED),
            str(rounds),
            durability,
            *mutant,
        ],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a fork keeps only one thread
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done


def assert_nothing_is_lost(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("durability", "rounds"), [("os", 30), ("full", 6)])
def test_a_killed_writer_loses_nothing_it_acknowledged(tmp_path: Path, durability: str, rounds: int) -> None:
    assert_nothing_is_lost(kill("killing.py", tmp_path / "store", rounds, durability))


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("durability", "rounds"), [("os", 1000), ("full", 200)])
def test_a_thousand_killed_writers_lose_nothing_they_acknowledged(
    tmp_path: Path, durability: str, rounds: int
) -> None:
    assert_nothing_is_lost(kill("killing.py", tmp_path / "store", rounds, durability, timeout_s=3500))


@pytest.mark.parametrize(("durability", "rounds"), [("os", 60), ("full", 20)])
def test_killed_trainers_beside_a_collector_keep_their_last_three(
    tmp_path: Path, durability: str, rounds: int
) -> None:
    assert_nothing_is_lost(kill("killing_trainers.py", tmp_path / "store", rounds, durability))


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("durability", "rounds"), [("os", 4000), ("full", 1000)])
def test_thousands_of_killed_trainers_beside_a_collector_keep_their_last_three(
    tmp_path: Path, durability: str, rounds: int
) -> None:
    assert_nothing_is_lost(
        kill("killing_trainers.py", tmp_path / "store", rounds, durability, timeout_s=7000)
    )


@pytest.mark.parametrize(
    ("mutant", "seen"), [("greedy", r"is gone|died by itself"), ("hasty", r"acknowledged")]
)
def test_the_kills_catch_a_collector_without_grace_and_a_hasty_acknowledgement(
    tmp_path: Path, mutant: str, seen: str
) -> None:
    done = kill("killing_trainers.py", tmp_path / "store", 60, "os", mutant)
    assert done.returncode != 0
    assert any(word in done.stderr for word in seen.split("|"))
