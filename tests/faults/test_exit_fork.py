"""What becomes of a save in flight when the process ends or forks, each in a process of its own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rig import Storage, everything, is_values


def ended(folder: Path, case: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("exiting.py"), case, folder],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done


def seeds(folder: Path, collection: str = "c") -> list[Any]:
    found = asyncio.run(everything(Storage("local", folder), collection))
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    return [loaded["seed"] for _, loaded in found]


@pytest.mark.parametrize(
    ("case", "status"),
    [("end", 0), ("exception", 1), ("sys_exit", 3), ("interrupt", -signal.SIGINT), ("forgotten", 0)],
)
def test_the_end_of_a_process_waits_for_its_background_save(tmp_path: Path, case: str, status: int) -> None:
    done = ended(tmp_path / "store", case)
    assert done.returncode == status
    assert ("Traceback" in done.stderr) == (case in ("exception", "interrupt"))
    assert "ERROR" not in done.stderr
    assert seeds(tmp_path / "store") == [1, 0]


def test_the_end_of_a_process_waits_for_the_saves_of_all_stores(tmp_path: Path) -> None:
    assert ended(tmp_path / "store", "two_stores").returncode == 0
    assert seeds(tmp_path / "store") == [1, 0]
    assert seeds(tmp_path / "store" / "other") == [5]


def test_a_process_that_ends_at_once_leaves_the_save_absent_or_whole(tmp_path: Path) -> None:
    assert ended(tmp_path / "store", "hard_exit").returncode == 0
    assert seeds(tmp_path / "store") in ([0], [1, 0])


def test_a_save_that_does_not_end_in_time_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    done = ended(tmp_path / "store", "too_slow")
    assert done.returncode == 0
    assert "before these saves were committed: c stuck" in done.stderr
    assert seeds(tmp_path / "store") == [1, 0]


def test_the_end_of_a_process_waits_for_retention_but_not_for_ever(tmp_path: Path) -> None:
    done = ended(tmp_path / "store", "retention")
    assert (done.returncode, done.stderr) == (0, "")
    assert seeds(tmp_path / "store") == [2]
    done = ended(tmp_path / "stuck", "stuck_retention")
    assert done.returncode == 0
    assert "retention of collection 'c' was cut short" in done.stderr
    assert "ERROR" not in done.stderr
    assert seeds(tmp_path / "stuck") == [2, 1, 0]


def test_a_save_that_fails_at_the_end_of_a_process_is_heard_of(tmp_path: Path) -> None:
    done = ended(tmp_path / "store", "failing")
    assert done.returncode == 0
    assert "a background save failed: no space" in done.stderr
    assert seeds(tmp_path / "store") == []


@pytest.mark.parametrize("case", ["fork", "fork_of_a_fork", "multiprocessing_fork", "multiprocessing_spawn"])
def test_a_child_process_cannot_use_its_parents_store_and_opens_its_own(tmp_path: Path, case: str) -> None:
    done = ended(tmp_path / "store", case)
    assert done.returncode == 0, done.stderr
    assert seeds(tmp_path / "store") == [3, 2, 0]
    assert seeds(tmp_path / "store", "child") == [8, 7]
    if case == "fork_of_a_fork":
        assert seeds(tmp_path / "store", "grandchild") == [8, 7]
