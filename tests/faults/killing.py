"""Run as a script: writers that are killed at random moments, and a check of what they leave, over and over.

    python killing.py FOLDER SEED ROUNDS DURABILITY

Each writer and each check is a fork of this process, which itself opens no store.
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

import ckptstore.backends.local  # noqa: F401  imported once, and not by every fork
from ckptstore import CheckpointStore, StoreConfig

# A check lists all there is, so a store does not grow without end.
ROUNDS_PER_STORE = 50

SAME = np.random.default_rng(1).standard_normal(40_000)


def values(n: int) -> dict[str, Any]:
    return {"same": SAME, "n": n, "changing": np.full(3000, n)}


def config(durability: Any) -> StoreConfig:
    return StoreConfig(durability=durability, chunk_bytes=65536, inline_bytes=64, encode_workers=2)


def write(url: str, durability: str, acknowledged: int) -> None:
    """Go on where the last writer was killed; tell each checkpoint when it is durable."""

    def tell(saved: Any) -> None:
        os.write(acknowledged, f"{saved.ref.name} {saved.sizes.new_bytes}\n".encode())

    store = CheckpointStore.open(url, config=config(durability))
    newest = store.latest("c")
    n = store.load(newest)["n"] + 1 if newest is not None else 0
    while True:
        tell(store.save("c", values(n)))
        pending = store.save("c", values(n + 1), wait=False)
        tell(pending.result(60))
        n += 2


def check(url: str, names: list[str], full: bool) -> None:
    """All that was acknowledged is there, all that is there can be read, and the order is that of the saves."""
    with CheckpointStore.open(url, config=config("os")) as store:
        listed = list(store.list("c"))
        there = [found.ref.name for found in listed]
        lost = set(names) - set(there)
        assert not lost, f"acknowledged and lost: {lost}"
        assert [name for name in there if name in set(names)] == names[::-1]
        numbers = []
        for found in listed if full else listed[:8]:
            loaded = store.load(found)
            numbers.append(loaded["n"])
            assert np.array_equal(loaded["same"], SAME)
            assert np.array_equal(loaded["changing"], np.full(3000, loaded["n"]))
        assert numbers == sorted(numbers, reverse=True)
        assert len(set(numbers)) == len(numbers)


def forked(work: Any, *arguments: Any) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work(*arguments)
            sys.stdout.flush()
            os._exit(0)
        except BaseException:  # noqa: BLE001  # the end of a process
            import traceback

            traceback.print_exc()
            os._exit(1)
    return pid


def killed_writer(url: str, durability: str, rng: random.Random) -> list[tuple[str, int]]:
    """Start a writer, kill it at a random moment, and return what it had acknowledged."""
    reading, writing = os.pipe()
    pid = forked(write, url, durability, writing)
    os.close(writing)
    n_wanted = rng.choice([0, 0, 1, 1, 2, 3, 5])
    told = b""
    while told.count(b"\n") < n_wanted:
        part = os.read(reading, 65536)
        assert part, "the writer died by itself"
        told += part
    moment = rng.uniform(0, 0.02 if n_wanted else 0.06)
    if select.select([reading], [], [], moment)[0] and rng.random() < 0.5:
        select.select([], [], [], rng.uniform(0, 0.005))
    os.kill(pid, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), "the writer died by itself"
    while part := os.read(reading, 65536):
        told += part
    os.close(reading)
    lines = [line.split() for line in told.decode().splitlines()]
    return [(name, int(new_bytes)) for name, new_bytes in lines]


def main(folder: str, seed: int, rounds: int, durability: str) -> None:
    gc.freeze()  # a collection in a fork would copy all of its pages
    rng = random.Random(seed)
    total = 0
    for number in range(rounds):
        in_this_store = number % ROUNDS_PER_STORE
        if in_this_store == 0:
            names: list[str] = []
        url = f"{folder}/{number // ROUNDS_PER_STORE}"
        told = killed_writer(url, durability, rng)
        if told and names:
            assert told[0][1] < SAME.nbytes // 4, (
                f"round {number}: the resumed writer stored all again: {told[0]}"
            )
        names += [name for name, _ in told]
        total += len(told)
        full = number == rounds - 1 or in_this_store == ROUNDS_PER_STORE - 1
        status = os.waitpid(forked(check, url, names, full), 0)[1]
        assert status == 0, f"round {number} of seed {seed} failed"
    print(f"{total} checkpoints acknowledged in {rounds} rounds")
    assert total > rounds // 2


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
