"""Rounds: every system once per round, each in a fresh process, in a new order every time."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.child import RoundSpec
from bench.measure import Memory
from bench.s3_server import S3Server
from bench.systems import SYSTEMS, SystemSpec
from bench.workloads import WORKLOADS

__all__ = ["Failure", "Plan", "Round", "Run", "Spread", "execute", "is_installed", "make_plan"]

OPERATIONS = ("save", "again", "later", "load", "into", "inplace", "inspect", "one")
FIGURES = (
    "wall_s",
    "blocked_s",
    "cpu_s",
    "peak_bytes",
    "written_bytes",
    "write_calls",
    "read_bytes",
    "stored_bytes",
    "requests",
    "puts",
)
CHILD_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What will run, and what will not and why."""

    pairs: tuple[tuple[str, str], ...]
    """(workload, system)"""
    size_bytes: int
    n_rounds: int
    seed: int
    memory: Memory
    skipped: tuple[str, ...] = ()

    def order(self, round_index: int) -> list[tuple[str, str]]:
        """The pairs as this round runs them: shuffled, the same for the same seed."""
        pairs = list(self.pairs)
        random.Random(f"{self.seed}/{round_index}").shuffle(pairs)
        return pairs


@dataclass(frozen=True, slots=True)
class Round:
    workload: str
    system: str
    round_index: int
    load_average: float
    """The machine's, one minute, before the round."""
    operations: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Failure:
    workload: str
    system: str
    round_index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))


@dataclass(slots=True)
class Run:
    """All that was measured."""

    plan: Plan
    states: dict[str, dict[str, int]] = field(default_factory=dict)
    """workload -> state_bytes, n_buffers"""
    unavailable: dict[str, str] = field(default_factory=dict)
    """system -> why it could not run here"""
    rounds: list[Round] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def spread(self, workload: str, system: str, operation: str, figure: str) -> Spread | None:
        """Median, minimum and maximum over the rounds; None where there are none."""
        values = [
            row.operations[operation][figure]
            for row in self.rounds
            if (row.workload, row.system) == (workload, system)
            and row.operations.get(operation, {}).get(figure) is not None
        ]
        return Spread.of(values) if values else None

    def median(self, workload: str, system: str, operation: str, figure: str) -> float | None:
        spread = self.spread(workload, system, operation, figure)
        return None if spread is None else spread.median

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the rounds as they were measured, and their medians."""
        summary = [
            {
                "workload": workload,
                "system": system,
                "operation": operation,
                "figure": figure,
                **asdict(spread),
            }
            for workload, system in self.plan.pairs
            for operation in OPERATIONS
            for figure in FIGURES
            if (spread := self.spread(workload, system, operation, figure)) is not None
        ]
        return {
            "plan": asdict(self.plan),
            "states": self.states,
            "unavailable": self.unavailable,
            "summary": summary,
            "rounds": [asdict(row) for row in self.rounds],
            "failures": [asdict(row) for row in self.failures],
        }


def is_installed(module: str) -> bool:
    """Whether it could be imported, which may still fail; ``a.b`` is looked for without running ``a`` alone."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def make_plan(
    workloads: Sequence[str],
    systems: Sequence[str],
    *,
    size_bytes: int,
    n_rounds: int = 5,
    seed: int = 0,
    memory: Memory = "warm",
    is_installed: Callable[[str], bool] = is_installed,
) -> Plan:
    """The pairs that can run here; one line for each workload or system that cannot."""
    skipped: list[str] = []
    pairs: list[tuple[str, str]] = []

    def missing(kind: str, name: str, needs: Sequence[str]) -> bool:
        lacking = [package for package in needs if not is_installed(package)]
        if lacking:
            skipped.append(f"{kind} {name} skipped: {', '.join(lacking)} is not installed")
        return bool(lacking)

    runnable = [SYSTEMS[name] for name in systems if not missing("system", name, SYSTEMS[name].needs)]
    for name in workloads:
        workload = WORKLOADS[name]
        if missing("workload", name, workload.needs):
            continue
        left_out = [
            row.name
            for row in runnable
            if (row.torch_only and not workload.torch) or (row.tensors_only and not workload.tensors)
        ]
        if left_out:
            kind = "torch tensors" if workload.tensors else "tensors"
            skipped.append(f"{', '.join(left_out)} not run on {name}: it is not made of {kind}")
        pairs.extend((name, row.name) for row in runnable if row.name not in left_out)
    return Plan(tuple(pairs), size_bytes, n_rounds, seed, memory, tuple(skipped))


def execute(
    plan: Plan,
    directory: str,
    *,
    server: S3Server | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Run:
    """Runs the plan inside `directory`; a system that fails is recorded, and the others go on.

    `server`: where systems on S3 keep their checkpoints.
    """
    run = Run(plan)
    endpoint_url, metrics_url = (server.endpoint_url, server.metrics_url) if server else ("", "")
    for workload in dict.fromkeys(workload for workload, _ in plan.pairs):
        spec = RoundSpec(workload, plan.size_bytes, plan.seed)
        described = _run_child(spec)
        if isinstance(described, str):
            run.failures.append(Failure(workload, "-", 0, described))
        else:
            run.states[workload] = described
    for round_index in range(plan.n_rounds):
        for workload, system in plan.order(round_index):
            if system in run.unavailable:
                continue
            load_average = os.getloadavg()[0]
            own = tempfile.mkdtemp(prefix=f"{system}-", dir=directory)
            spec = RoundSpec(
                workload, plan.size_bytes, plan.seed, system, own, plan.memory, endpoint_url, metrics_url
            )
            try:
                result = _run_child(spec)
            finally:
                shutil.rmtree(own, ignore_errors=True)
            if isinstance(result, str):
                run.failures.append(Failure(workload, system, round_index, result))
                say(f"round {round_index + 1}/{plan.n_rounds} {workload} {system}: FAILED {result}")
            elif "unavailable" in result:
                run.unavailable[system] = result["unavailable"]
                say(f"{system} skipped: {result['unavailable']}")
            else:
                row = Round(workload, system, round_index, load_average, result["operations"])
                run.rounds.append(row)
                say(f"round {round_index + 1}/{plan.n_rounds} {workload} {_line(SYSTEMS[system], row)}")
    return run


def _run_child(spec: RoundSpec) -> dict[str, Any] | str:
    """The child's result, or in one line why there is none."""
    command = [sys.executable, "-m", "bench.child", json.dumps(asdict(spec))]
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=CHILD_TIMEOUT_S,
            env=os.environ | {"PYTHONPATH": path},
        )
    except subprocess.TimeoutExpired:
        return f"no result after {CHILD_TIMEOUT_S:.0f} s"
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"exit status {done.returncode}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _line(system: SystemSpec, row: Round) -> str:
    seconds = " ".join(f"{name} {cost['wall_s']:.3f} s" for name, cost in row.operations.items())
    return f"{system.name}: {seconds}"
