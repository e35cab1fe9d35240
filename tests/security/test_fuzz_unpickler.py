"""No stream does more than give a value or an error of ours."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

N_EXAMPLES = int(os.environ.get("CKPTSTORE_FUZZ_EXAMPLES", "300"))


def test_random_streams_give_a_value_or_an_error_and_touch_nothing() -> None:
    pytest.importorskip("torch")
    number = random.randrange(2**32)
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            str(Path(__file__).with_name("tripwire.py")),
            "fuzz",
            str(N_EXAMPLES),
            str(number),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"seed {number}\n{done.stderr[-4000:]}"
