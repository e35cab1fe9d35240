"""Every way out of a process, and every way into another, each with exactly the commits that it promises."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from rig import Storage, everything, is_values

LIMIT_S = 20


def command(folder: Path, case: str) -> list[str | Path]:
    return [sys.executable, Path(__file__).with_name("exiting.py"), case, folder]


def environment() -> dict[str, str]:
    return {**os.environ, "OPENBLAS_NUM_THREADS": "1", "USER": os.environ.get("USER", "ckptstore")}


def ended(folder: Path, case: str) -> tuple[int, str]:
    done = subprocess.run(
        command(folder, case),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    print(done.stdout, done.stderr)
    return done.returncode, done.stderr


def ended_by(folder: Path, case: str, number: int) -> tuple[int, str]:
    """Let it come so far that it is saving, send it a signal, and return as ``ended``."""
    process = subprocess.Popen(
        command(folder, case),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "under way\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.communicate()
    print(stderr)
    return process.returncode, stderr


def seeds(folder: Path, collection: str = "c") -> list[int]:
    found = asyncio.run(everything(Storage("local", folder), collection))
    assert all(is_values(loaded, loaded["seed"]) for _, loaded in found)
    return [loaded["seed"] for _, loaded in found]


@pytest.mark.parametrize(
    ("case", "status"),
    [
        ("running_loop", 0),
        ("loop_that_raises", 1),
        ("another_thread", 0),
        ("asynchronous", 3),
        ("interrupted_asynchronous", -signal.SIGINT),
    ],
)
def test_the_end_waits_for_a_save_wherever_it_was_begun(tmp_path: Path, case: str, status: int) -> None:
    returned, stderr = ended(tmp_path / "store", case)
    assert returned == status
    assert ("Traceback" in stderr) == (case in ("loop_that_raises", "interrupted_asynchronous"))
    assert "ERROR" not in stderr
    assert seeds(tmp_path / "store") == [1, 0]


def test_a_save_of_a_function_at_the_interpreters_end_is_told_that_it_is_too_late(tmp_path: Path) -> None:
    returned, stderr = ended(tmp_path / "store", "at_exit")
    assert returned == 0
    assert "StoreClosedError" in stderr
    assert seeds(tmp_path / "store") == [1, 0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_that_ends_the_process_leaves_the_save_under_way_absent(tmp_path: Path, number: int) -> None:
    returned, stderr = ended_by(tmp_path / "store", "signalled_in_a_save", number)
    assert (returned, stderr) == (-number, "")
    assert seeds(tmp_path / "store") == [1, 0]


@pytest.mark.parametrize(
    ("case", "number", "status"),
    [
        ("signalled", signal.SIGINT, -signal.SIGINT),
        ("signalled_with_a_handler", signal.SIGTERM, 128 + signal.SIGTERM),
    ],
)
def test_a_signal_that_becomes_an_exception_waits_for_the_save_under_way(
    tmp_path: Path, case: str, number: int, status: int
) -> None:
    returned, stderr = ended_by(tmp_path / "store", case, number)
    assert returned == status
    assert "ERROR" not in stderr
    assert seeds(tmp_path / "store") == [2, 1, 0]


@pytest.mark.parametrize(
    ("case", "of_children"),
    [
        ("multiprocessing_forkserver", {"child": [8, 7]}),
        ("process_pool", {"child": [8, 7]}),
        ("metaflow_parallel_map", {"child1": [8, 7], "child2": [8, 7]}),
    ],
)
def test_children_of_every_kind_save_to_stores_of_their_own(
    tmp_path: Path, case: str, of_children: dict[str, list[int]]
) -> None:
    if case.startswith("metaflow"):
        pytest.importorskip("metaflow")
    returned, stderr = ended(tmp_path / "store", case)
    assert returned == 0, stderr
    assert seeds(tmp_path / "store") == [3, 2, 0]
    for collection, expected in of_children.items():
        assert seeds(tmp_path / "store", collection) == expected


def test_a_child_that_exits_at_once_leaves_its_save_absent_or_whole(tmp_path: Path) -> None:
    returned, stderr = ended(tmp_path / "store", "child_exits_at_once")
    assert returned == 0, stderr
    assert seeds(tmp_path / "store") == [3, 2, 0]
    assert seeds(tmp_path / "store", "child") in ([7], [8, 7])
