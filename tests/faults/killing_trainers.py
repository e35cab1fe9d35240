"""Run as a script: trainers that keep their last three checkpoints are killed, with a collector beside them.

    python killing_trainers.py FOLDER SEED ROUNDS DURABILITY [MUTANT]

A trainer saves in the background; the collector runs again and again and is
killed now and then as well. Between two trainers a reader looks at what is there, while
the collector goes on. Each of them is a fork of this process, which itself
opens no store. The mutants are for the tests of this check:
``greedy`` collects without a grace, ``hasty`` acknowledges before the commit.
"""

from __future__ import annotations

import gc
import os
import random
import select
import signal
import sys
from typing import Any

import numpy as np
from killing import SAME, forked

import ckptstore._collect
import ckptstore.backends.local  # imported once, and not by every fork
from ckptstore import CheckpointStore, StoreConfig, last

KEPT = 3
GRACE_S = 2.0


def config(durability: Any) -> StoreConfig:
    return StoreConfig(
        durability=durability,
        chunk_bytes=65536,
        inline_bytes=64,
        encode_workers=2,
        grace_s=GRACE_S,
        exclusive=True,  # a short grace; that these processes end with this script is the promise
    )


def values(n: int) -> dict[str, Any]:
    """Some chunks, of which one comes and goes and comes again."""
    return {
        "same": SAME,
        "n": n,
        "changing": np.full(3000, n),
        "again": np.full(9000, n % 5, "float32"),
    }


def train(url: str, durability: str, acknowledged: int, mutant: str) -> None:
    """Go on after the newest checkpoint; tell each one when it is durable."""

    def tell(name: str) -> None:
        os.write(acknowledged, f"{name}\n".encode())

    store = CheckpointStore.open(url, config=config(durability))
    newest = store.latest("c")
    n = store.load(newest)["n"] + 1 if newest is not None else 0
    state = values(n)
    while True:
        pending = store.save("c", state, wait=False, keep=last(KEPT))
        n += 1
        state["n"] = n
        state["changing"][:] = n  # at once: what is stored is what it was
        state["again"][:] = n % 5
        if mutant == "hasty":
            tell(f"{n - 1}")
            pending.result(60)
        else:
            pending.result(60)
            tell(f"{n - 1}")


def collect(url: str, durability: str, told: int, mutant: str) -> None:
    """Collect garbage without end, and tell what went each time."""
    if mutant == "greedy":
        ckptstore._collect._Run._cut_s = property(lambda run: run._now_s + 1)  # type: ignore[assignment,method-assign]
    store = CheckpointStore.open(url, config=config(durability))
    while True:
        report = store.collect_garbage(force=True)
        assert not report.n_failed, report
        os.write(told, f"{report.n_purged} {report.n_garbage} {report.n_unfinished}\n".encode())
        select.select([], [], [], 0.02)


def check(url: str, acknowledged: int) -> None:
    """The newest is no older than what was acknowledged last; at least three are there; all can be read."""
    with CheckpointStore.open(url, config=config("os")) as store:
        numbers = []
        for found in store.list("c"):
            loaded = store.load(found)
            n = loaded["n"]
            numbers.append(n)
            for name, expected in values(n).items():
                assert np.array_equal(loaded[name], expected), f"{name} of {n}"
        if acknowledged >= 0:
            assert numbers, "acknowledged and lost: nothing is there"
            assert numbers[0] >= acknowledged, f"acknowledged {acknowledged}, the newest is {numbers[0]}"
            newest = range(numbers[0], max(-1, numbers[0] - KEPT), -1)
            assert numbers[:KEPT] == list(newest), f"lost of the last three: {numbers}"
        assert numbers == sorted(set(numbers), reverse=True)


def drained(reading: int) -> list[bytes]:
    """Return the whole lines of a pipe whose writers are gone."""
    told = b""
    while part := os.read(reading, 65536):
        told += part
    os.close(reading)
    return told.split(b"\n")[:-1]


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "it died by itself"


def killed_trainer(url: str, durability: str, rng: random.Random, mutant: str) -> list[int]:
    """Start a trainer, kill it at a random moment, and return what it had acknowledged."""
    reading, writing = os.pipe()
    pid = forked(train, url, durability, writing, mutant)
    os.close(writing)
    told = b""
    n_wanted = rng.choice([0, 1, 1, 2, 4])
    while told.count(b"\n") < n_wanted:
        part = os.read(reading, 65536)
        assert part, "the trainer died by itself"
        told += part
    select.select([], [], [], rng.uniform(0, 0.02 if n_wanted else 0.05))
    end(pid)
    lines = told.split(b"\n")[:-1] + drained(reading)
    return [int(line) for line in lines]


class Collectors:
    """One collector after another; ``totals`` is what all of them told."""

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        self.totals = np.zeros(3, int)
        self._start()

    def _start(self) -> None:
        self._reading, writing = os.pipe()
        url, durability, mutant = self._arguments
        self._pid = forked(collect, url, durability, writing, mutant)
        os.close(writing)

    def end(self) -> None:
        end(self._pid)
        for line in drained(self._reading):
            self.totals += [int(n) for n in line.split()]

    def replace(self) -> None:
        self.end()
        self._start()


def main(folder: str, seed: int, rounds: int, durability: str, mutant: str = "") -> None:
    gc.freeze()
    rng = random.Random(seed)
    collectors = Collectors(folder, durability, mutant)
    newest, total = -1, 0
    try:
        for number in range(rounds):
            told = killed_trainer(folder, durability, rng, mutant)
            total += len(told)
            newest = max([newest, *told])
            status = os.waitpid(forked(check, folder, newest), 0)[1]
            assert status == 0, f"round {number} of seed {seed} failed"
            if rng.random() < 0.05:
                collectors.replace()
    finally:
        collectors.end()
    purged, garbage, unfinished = collectors.totals
    print(
        f"{rounds} kills, {total} checkpoints acknowledged; collected {purged} checkpoints, {garbage} chunks, "
        f"{unfinished} unfinished files"
    )
    assert total > rounds // 2
    n_files = sum(len(files) for _, _, files in os.walk(folder))
    print(f"{n_files} files at the end")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
