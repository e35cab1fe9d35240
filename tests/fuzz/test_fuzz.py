"""Whatever is read or parsed: a value or an error of ours, within a second and 256 MiB, for any bytes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from fuzzing import corpus
from targets import BROKEN, TARGETS

SEED = int(os.environ.get("CKPTSTORE_TEST_SEED", random.randrange(10**6)))
N_INPUTS = {"manifest": 3000, "manifest_structure": 3000, "manifest_frames": 3000, "chunk": 4000}


def fuzzed(target: str, n_inputs: int, folder: Path, seed: int = SEED, *, timeout_s: float = 110) -> str:
    """Return an empty text, or what was found."""
    print("CKPTSTORE_TEST_SEED =", seed)
    found = folder / "found"
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("fuzzing.py"), target, str(n_inputs), str(seed), found],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    print(done.stdout)
    if done.returncode == 0:
        return ""
    text = found.read_bytes()
    data = text[8 : 8 + int.from_bytes(text[:8], "little")]
    return f"status {done.returncode} with {len(data)} bytes: {data[:2000]!r}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_give_a_value_or_an_error_of_ours(tmp_path: Path, target: str) -> None:
    assert fuzzed(target, N_INPUTS.get(target, 6000), tmp_path) == ""


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", TARGETS)
def test_a_million_inputs_give_values_or_errors_of_ours(tmp_path: Path, target: str) -> None:
    assert fuzzed(target, 1_000_000, tmp_path, timeout_s=3500) == ""


def test_every_target_has_inputs_to_begin_with() -> None:
    assert all(len(corpus(target)) >= 5 for target in TARGETS)


@pytest.mark.parametrize(
    ("broken", "seen"),
    [("a_bug", "KeyError"), ("a_hang", "status -26"), ("a_slow_input", "took 1."), ("a_bomb", "MemoryError")],
)
def test_what_an_input_must_not_do_is_noticed(tmp_path: Path, broken: str, seen: str) -> None:
    assert broken in BROKEN
    found = fuzzed(broken, 100, tmp_path, 1)
    assert seen in found
