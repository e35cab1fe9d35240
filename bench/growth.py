"""``python -m bench.growth``: time and memory of states of more and more tensors, and more and more chunks.

The storage is simulated, a dict in memory, and chunks are tiny: what is told is
what the store itself costs per tensor and per chunk. Each point is measured in
processes of their own. Memory is that above the state and the simulated storage.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

import ckptstore
from bench.machine import describe_machine
from bench.measure import Meter, resident_bytes, trim_memory
from bench.records import keep
from bench.verdicts import Verdict, table
from ckptstore.backends.memory import MemoryBackend, MemorySpace

__all__ = ["main", "measure"]

CHUNK_BYTES = 256
FLOATS_PER_TENSOR = 64
KINDS = {"tensors": (1_000, 10_000, 100_000), "chunks": (10_000, 100_000, 1_000_000)}
OPERATIONS = ("save", "again", "inspect", "load")
LINEAR = 1.5
"""The largest size may take this much more CPU per item than the one before it."""
FLAT = 1.5
"""And this much more memory in all."""
LEAST_BYTES = 16 << 20
"""Below this, memory is what an interpreter's arenas happen to take, and counts as this much."""

Result = dict[str, dict[str, Any]]


def _state(kind: str, n: int) -> dict[str, Any]:
    if kind == "chunks":
        return {"data": np.arange(n * CHUNK_BYTES // 8, dtype=np.int64)}
    numbers = np.arange(n * FLOATS_PER_TENSOR, dtype=np.float32).reshape(n, FLOATS_PER_TENSOR)
    return {"model": {f"blocks.{i}.weight": row for i, row in enumerate(numbers)}}


def _space_bytes(space: MemorySpace) -> int:
    return sys.getsizeof(space) + sum(
        sys.getsizeof(key) + sys.getsizeof(entry) + sys.getsizeof(entry[0]) + sys.getsizeof(entry[1])
        for key, entry in space.items()
    )


def measure(kind: str, n: int) -> Result:
    """What saving, saving again, inspecting and loading `n` tensors or chunks costs, each by name."""
    values = _state(kind, n)
    space: MemorySpace = {}

    async def storage(executor: Executor) -> MemoryBackend:
        return MemoryBackend(space, name="growth")

    small: dict[str, Any] = {"chunk_bytes": CHUNK_BYTES, "inline_bytes": 0} if kind == "chunks" else {}
    config = ckptstore.StoreConfig(codec="raw", **small)
    state_bytes = n * (CHUNK_BYTES if kind == "chunks" else 4 * FLOATS_PER_TENSOR)
    trim_memory()
    base = resident_bytes()
    result: Result = {}
    with ckptstore.CheckpointStore.open(storage, config=config) as store:
        for name in OPERATIONS:
            meter = Meter(base)
            with meter:
                if name in ("save", "again"):
                    store.save("bench/run", values)
                elif name == "inspect":
                    store.inspect("bench/run")
                else:
                    loaded = store.load("bench/run")
            result[name] = asdict(meter.cost)
            # What the storage holds is simulated: elsewhere it is on a disk. A load makes another state.
            above = meter.cost.peak_bytes - _space_bytes(space)
            if name == "load":
                above -= state_bytes
            result[name]["peak_bytes"] = max(0, above)
            trim_memory()
    if len(loaded) != len(values):
        raise AssertionError("the load lost a field")
    return result


Points = Mapping[tuple[str, int], Sequence[Result]]


def _median(points: Points, point: tuple[str, int], operation: str, figure: str) -> float:
    return float(statistics.median(result[operation][figure] for result in points[point]))


def render(points: Points) -> str:
    """Return a table a kind, and the verdicts."""
    median = partial(_median, points)
    lines: list[str] = []
    for kind in dict.fromkeys(kind for kind, _ in points):
        sizes = sorted(n for name, n in points if name == kind)
        rows = []
        for n in sizes:
            row = [f"{n:,}"]
            for operation in OPERATIONS:
                cpu = median((kind, n), operation, "cpu_s")
                row += [f"{median((kind, n), operation, 'wall_s'):.3f}", f"{cpu / n * 1e6:.2f}"]
            row += [f"{median((kind, n), one, 'peak_bytes') / (1 << 20):.1f}" for one in ("save", "load")]
            rows.append(row)
        titles = [kind]
        for operation in OPERATIONS:
            titles += [f"{operation} s", "CPU µs each"]
        lines += [*table([*titles, "save MiB", "load MiB"], rows), ""]
        lines += [*(f"- {verdict}" for verdict in _judge(points, kind, sizes)), ""]
    return "\n".join(lines)


def judge(points: Points) -> Iterator[Verdict]:
    """The largest size of each kind, against the one before it."""
    for kind in dict.fromkeys(kind for kind, _ in points):
        yield from _judge(points, kind, sorted(n for name, n in points if name == kind))


def _judge(points: Points, kind: str, sizes: Sequence[int]) -> Iterator[Verdict]:
    if len(sizes) < 2:
        return
    small, large = sizes[-2:]
    against = f"at {large:,} {kind} against {small:,}"
    for operation in OPERATIONS:
        cpu = [_median(points, (kind, n), operation, "cpu_s") / n for n in (small, large)]
        yield Verdict("growth", f"{operation}, CPU each {against}", cpu[1] / cpu[0], LINEAR)
    for operation in ("save", "load"):
        peaks = [
            max(LEAST_BYTES, _median(points, (kind, n), operation, "peak_bytes")) for n in (small, large)
        ]
        yield Verdict("growth", f"{operation}, memory over the state {against}", peaks[1] / peaks[0], FLAT)


def _round(kind: str, n: int) -> Result:
    done = subprocess.run(
        [sys.executable, "-m", "bench.growth", "--child", kind, str(n)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{n} {kind} failed: {done.stderr[-1000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m bench.growth", description=__doc__)
    for kind, sizes in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, nargs="*", default=sizes, help=f"{sizes}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--json", metavar="FILE", help="keep every figure there")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.child:
        print(json.dumps(measure(options.child[0], int(options.child[1]))))
        return 0
    points: dict[tuple[str, int], list[Result]] = {
        (kind, n): [] for kind in KINDS for n in sorted(getattr(options, kind))
    }
    order = random.Random(options.seed)
    for _ in range(options.rounds):
        for kind, n in order.sample(list(points), len(points)):
            points[kind, n].append(_round(kind, n))
    print(render(points))
    if options.json:
        keep(
            options.json,
            "bench.growth",
            given,
            judge(points),
            machine=describe_machine("."),
            seed=options.seed,
            points=[{"kind": kind, "n": n, "results": results} for (kind, n), results in points.items()],
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
