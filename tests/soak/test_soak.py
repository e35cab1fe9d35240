"""Eight writers, three readers and two collectors in two processes, with a short grace: nothing is lost.

``CKPTSTORE_SOAK_S`` says how many seconds the long ones run (an hour each).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import seaweed
from chaos import FAULTS, ChaosProxy, RandomFaults

from ckptstore import CheckpointStore, StoreConfig

SEED = int(os.environ.get("CKPTSTORE_TEST_SEED", random.randrange(10**6)))
SOAK_S = float(os.environ.get("CKPTSTORE_SOAK_S", "3600"))
CREWS = [
    {"name": "one", "n_writers": 4, "n_readers": 2, "n_collectors": 1},
    {"name": "two", "n_writers": 4, "n_readers": 1, "n_collectors": 1},
]

seconds = pytest.mark.parametrize(
    "seconds", [7.0, pytest.param(SOAK_S, marks=[pytest.mark.soak, pytest.mark.timeout(SOAK_S + 300)])]
)


def crews_at_work(**orders: Any) -> Counter[str]:
    """Let both crews work, and return what they have counted."""
    print("CKPTSTORE_TEST_SEED =", SEED)
    script = Path(__file__).with_name("crew.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, json.dumps({**orders, **crew, "seed": SEED})],
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for crew in CREWS
    ]
    counts: Counter[str] = Counter()
    try:
        for process in processes:
            output, _ = process.communicate(timeout=orders["seconds"] + 160)
            assert process.returncode == 0
            told = json.loads(output.splitlines()[-1])
            print(json.dumps(told, indent=1))
            assert not told["violations"], told["violations"]
            counts.update(told["counts"])
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    return counts


def check_what_is_left(url: str, grace_s: float, **options: Any) -> None:
    """All that is listed is whole, and there is no more of it than is kept."""
    config = StoreConfig(grace_s=grace_s, exclusive=True, max_save_s=grace_s / 10)
    with CheckpointStore.open(url, config=config, **options) as store:
        found = list(store.list())
        assert 1 <= len(found) <= 8 * (3 + 2)
        for one in found:
            store.load(one)


@seconds
def test_a_crew_on_a_disk_loses_nothing_and_grows_nowhere(tmp_path: Path, seconds: float) -> None:
    url = str(tmp_path / "store")
    at_least = {"saved": 10, "loaded": 10, "purged": 1, "garbage": 1}
    counts = crews_at_work(url=url, seconds=seconds, grace_s=4.0, at_least=at_least)
    assert counts["saved"] > seconds
    assert counts["loaded"] > seconds
    assert counts["purged"] > 0
    assert counts["garbage"] > 0
    check_what_is_left(url, 4.0)


@pytest.mark.soak
@seconds
def test_a_crew_on_s3_behind_a_bad_network_loses_nothing_and_grows_nowhere(seconds: float) -> None:
    server = seaweed.server()
    url = server.new_url()
    with ChaosProxy(server.port, bucket=seaweed.BUCKET) as proxy:
        options = {**seaweed.options_for(proxy.endpoint_url), "read_timeout_s": 2.0}
        share = 0.01 if seconds > 60 else 0.05  # so that some strike in a few hundred requests
        proxy.random = RandomFaults(SEED, share, FAULTS)
        at_least = {"saved": 10, "loaded": 2, "collected": 1}
        counts = crews_at_work(
            url=url,
            seconds=seconds,
            grace_s=8.0,
            zombie_s=2.0,
            faulty=True,
            at_least=at_least,
            options=options,
        )
        assert len(proxy.hits) > share / 3 * len(proxy.requests)
    assert counts["saved"] > seconds / 2
    assert counts["loaded"]
    assert counts["collected"]
    assert seconds < 20 or counts["purged"] > 0
