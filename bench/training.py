"""``python -m bench.training``: what saves cost a training loop, beside the same loop without a save.

A model is trained for real: forward, backward and Adam's step. Every process
first makes steps without a save, then saves every so many steps while it goes
on. With one thread of torch on two cores there is a core to spare for a
background save, with two threads there is none.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.__main__ import parse_size
from bench.harness import is_installed
from bench.machine import describe_machine
from bench.records import keep
from bench.systems import SYSTEMS, System, Unavailable
from bench.verdicts import Verdict, table

__all__ = ["Loop", "main", "train"]

NO_SAVE = "no-save"
DEFAULT = (
    NO_SAVE,
    "ours-background",
    "ours-raw-background",
    "ours",
    "torch-fsync",
    "dcp-async",
    "torchsnapshot-async",
    "orbax",
    "incumbent",
)
N_LAYERS = 4
BATCH = 32
WARM_STEPS = 5
GOAL = 1.05
"""A step during a background save, against one without, with a core to spare."""


@dataclass(frozen=True, slots=True)
class Loop:
    """What one process does."""

    system: str
    size_bytes: int
    """Of model and optimizer."""
    n_saves: int
    n_steps: int
    """Between two saves."""
    n_threads: int
    directory: str = ""


def _trainer(size_bytes: int) -> tuple[Callable[[], None], Callable[[], dict[str, Any]]]:
    """One step, and the state as a user gathers it."""
    torch: Any = importlib.import_module("torch")
    torch.manual_seed(0)
    width = max(16, int((size_bytes / 12 / N_LAYERS) ** 0.5))
    layers = [layer for _ in range(N_LAYERS) for layer in (torch.nn.Linear(width, width), torch.nn.ReLU())]
    model = torch.nn.Sequential(*layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    inputs, targets = torch.randn(BATCH, width), torch.randn(BATCH, width)

    def step() -> None:
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()

    return step, lambda: {"model": dict(model.state_dict()), "optimizer": optimizer.state_dict()}


def train(loop: Loop) -> dict[str, Any]:
    """Step times without and during saves, what each save blocked, and the seconds that the saves cost in all.

    A system that cannot run here gives ``unavailable``, the reason, alone.
    """
    torch: Any = importlib.import_module("torch")
    torch.set_num_threads(loop.n_threads)
    step, state = _trainer(loop.size_bytes)
    for _ in range(WARM_STEPS):
        step()
    system = None
    if loop.system != NO_SAVE:
        try:
            system = SYSTEMS[loop.system].make(loop.directory)
        except (ImportError, Unavailable) as error:
            return {"unavailable": f"{error}".splitlines()[0]}
        system.prepare(state())
    try:
        return _measure(loop, step, state, system)
    finally:
        if system is not None:
            system.close()


def _measure(
    loop: Loop, step: Callable[[], None], state: Callable[[], dict[str, Any]], system: System | None
) -> dict[str, Any]:
    def save() -> None:
        if system is not None:
            system.settle()  # a loop that saves too often waits for the save before
            system.save(state())

    def timed(what: Callable[[], None]) -> float:
        start = time.perf_counter()
        what()
        return time.perf_counter() - start

    without = [timed(step) for _ in range(loop.n_steps * 2)]
    during: list[float] = []
    blocked: list[float] = []
    n_steps = loop.n_saves * loop.n_steps
    start = time.perf_counter()
    for number in range(n_steps):
        if system is not None and number % loop.n_steps == 0:
            blocked.append(timed(save))
        is_saving = system is not None and not system.is_settled()
        seconds = timed(step)
        if is_saving:
            during.append(seconds)
    total_s = time.perf_counter() - start
    if system is not None:
        system.settle()
    plain_s = statistics.median(without)
    return {
        "step_s": plain_s,
        "during_s": statistics.median(during) if during else None,
        "n_during": len(during),
        "first_blocked_s": blocked[0] if blocked else None,
        "blocked_s": statistics.median(blocked[1:] or blocked) if blocked else None,
        "save_cost_s": (total_s - n_steps * plain_s) / loop.n_saves,
    }


def _round(loop: Loop, directory: str) -> dict[str, Any]:
    own = tempfile.mkdtemp(prefix="training-", dir=directory)
    spec = asdict(loop) | {"directory": own}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bench.training", "--child", json.dumps(spec)],
            capture_output=True,
            text=True,
        )
    finally:
        shutil.rmtree(own, ignore_errors=True)
    if done.returncode:
        raise RuntimeError(f"{loop.system} failed: {done.stderr[-1000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def render(rounds: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> str:
    """Return the table and the verdicts."""

    def cell(results: Sequence[Mapping[str, Any]], figure: str) -> str:
        found = [result[figure] * 1e3 for result in results if result[figure] is not None]
        return f"{statistics.median(found):.1f} ({min(found):.1f}-{max(found):.1f})" if found else "-"

    rows = []
    for (system, n_threads), results in rounds.items():
        ratios = [one["during_s"] / one["step_s"] for one in results if one["during_s"] is not None]
        rows.append(
            [
                system,
                str(n_threads),
                cell(results, "step_s"),
                cell(results, "during_s"),
                f"{statistics.median(ratios):.2f}" if ratios else "-",
                cell(results, "first_blocked_s"),
                cell(results, "blocked_s"),
                cell(results, "save_cost_s"),
            ]
        )
    titles = ["system", "threads", "step ms", "during a save ms", "ratio"]
    titles += ["first save blocks ms", "later ones block ms", "a save costs the loop ms"]
    lines = [*table(titles, rows), "", *(f"- {verdict}" for verdict in judge(rounds))]
    return "\n".join(lines)


def judge(rounds: Mapping[tuple[str, int], Sequence[Mapping[str, Any]]]) -> Iterator[Verdict]:
    """A step during a background save: judged with a core to spare, told with none."""
    for (system, n_threads), results in rounds.items():
        if system == "ours-background":
            has_core = n_threads < (os.cpu_count() or 1)
            ratios = [one["during_s"] / one["step_s"] for one in results if one["during_s"] is not None]
            yield Verdict(
                "training",
                "a step during a background save, "
                + ("a core to spare" if has_core else f"all cores busy, {n_threads} threads"),
                statistics.median(ratios) if ratios else None,
                GOAL if has_core else None,
            )


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m bench.training", description=__doc__)
    parser.add_argument("--size", type=parse_size, default="256MiB", help="of model and optimizer (256MiB)")
    parser.add_argument("--saves", type=int, default=5, help="in a process (5)")
    parser.add_argument("--steps", type=int, default=20, help="between two saves (20)")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="of torch (1 2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--system", nargs="+", choices=[NO_SAVE, *SYSTEMS], metavar="SYSTEM", default=DEFAULT)
    parser.add_argument("--json", metavar="FILE", help="keep every figure there")
    parser.add_argument("--dir", metavar="DIR", help="where the files go (the system's temporary directory)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.child:
        print(json.dumps(train(Loop(**json.loads(options.child)))))
        return 0
    skipped = {
        system: f"{', '.join(lacking)} is not installed"
        for system in options.system
        if system != NO_SAVE and (lacking := [one for one in SYSTEMS[system].needs if not is_installed(one)])
    }
    pairs = [(one, n) for n in options.threads for one in options.system if one not in skipped]
    rounds: dict[tuple[str, int], list[dict[str, Any]]] = {pair: [] for pair in pairs}
    order = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="ckptstore-bench-", dir=options.dir) as directory:
        machine = describe_machine(directory)
        for _ in range(options.rounds):
            for system, n_threads in order.sample(list(rounds), len(rounds)):
                if system not in skipped:
                    loop = Loop(system, options.size, options.saves, options.steps, n_threads)
                    result = _round(loop, directory)
                    if "unavailable" in result:
                        skipped[system] = result["unavailable"]
                    else:
                        rounds[system, n_threads].append(result)
    rounds = {pair: results for pair, results in rounds.items() if results}
    print(render(rounds))
    print("".join(f"- {name} skipped: {reason}\n" for name, reason in skipped.items()), end="")
    if options.json:
        keep(
            options.json,
            "bench.training",
            given,
            judge(rounds),
            machine=machine,
            seed=options.seed,
            size_bytes=options.size,
            rounds=[
                {"system": system, "threads": n_threads, "results": results}
                for (system, n_threads), results in rounds.items()
            ],
            skipped=skipped,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
