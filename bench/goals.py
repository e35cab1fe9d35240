"""What a run is held against: ratios of two of its medians."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.harness import Run

__all__ = ["GOALS", "Figure", "Goal", "Verdict", "judge"]

MIB = 1 << 20

Figure = tuple[str, str, str]
"""system, operation, figure"""
MODELS = ("torch", "arrays", "bf16")


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two medians, and the bound it has to keep."""

    text: str
    over: Figure
    under: Figure | Literal["state", "MiB"]
    """``state``: the bytes of the state; ``MiB``: a MiB."""
    bound: float
    at_least: bool = False
    workloads: tuple[str, ...] = MODELS

    @property
    def systems(self) -> tuple[str, ...]:
        return (self.over[0],) if isinstance(self.under, str) else (self.over[0], self.under[0])

    def is_met_by(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(frozen=True, slots=True)
class Verdict:
    workload: str
    goal: Goal
    ratio: float | None
    """None: one of the two was not measured."""

    def __str__(self) -> str:
        unit = " MiB" if self.goal.under == "MiB" else "x"
        bound = f"{'≥' if self.goal.at_least else '≤'} {self.goal.bound:g}{unit}"
        if self.ratio is None:
            return f"{self.workload}: {self.goal.text} {bound}: not measured"
        word = "met" if self.goal.is_met_by(self.ratio) else "NOT MET"
        return f"{self.workload}: {self.goal.text} {bound}: {word}, {self.ratio:.3g}{unit}"


def _blocked(
    text: str, operation: str, under: Figure, bound: float, *, system: str = "ours-background"
) -> Goal:
    return Goal(
        f"{text} blocks the caller, against {under[0]}", (system, operation, "blocked_s"), under, bound
    )


def _peer(peer: str, bound: float = 1.0) -> Goal:
    return Goal(
        f"durable save faster than {peer}",
        (peer, "save", "wall_s"),
        ("ours", "save", "wall_s"),
        bound,
        at_least=True,
    )


_COPY = ("copy", "later", "blocked_s")
_AGAINST_SAVE = ("ours", "save", "wall_s")

GOALS = (
    _blocked("first background save", "save", ("copy", "save", "blocked_s"), 1.2),
    _blocked(
        "first background save, memory reserved",
        "save",
        ("copy", "save", "blocked_s"),
        1.2,
        system="ours-reserved",
    ),
    _blocked("background save", "later", _COPY, 1.2),
    _blocked("background save", "later", ("dcp-async", "later", "blocked_s"), 1.0),
    _blocked("background save", "later", ("incumbent", "later", "blocked_s"), 1 / 40),
    _blocked("background save of an unchanged state", "again", _COPY, 1.2),
    Goal("unchanged save, against hashing", ("ours", "again", "wall_s"), ("hash", "again", "wall_s"), 1.3),
    _peer("torch-fsync"),
    _peer("dcp"),
    _peer("torchsnapshot-fsync"),
    _peer("orbax-fsync"),
    _peer("incumbent-fsync", 5.0),
    _peer("incumbent", 5.0),
    Goal("memory of a durable save over the state", ("ours", "save", "peak_bytes"), "MiB", 256),
    Goal(
        "durable save without compression, against the disk",
        ("ours-raw", "save", "wall_s"),
        ("disk", "save", "wall_s"),
        1.3,
    ),
    Goal(
        "verified load, raw, against torch.load",
        ("ours-raw", "load", "wall_s"),
        ("torch", "load", "wall_s"),
        1.0,
    ),
    Goal(
        "verified load, byte planes, against torch.load",
        ("ours-planes", "load", "wall_s"),
        ("torch", "load", "wall_s"),
        1.5,
    ),
    Goal(
        "stored, byte planes",
        ("ours-planes", "save", "stored_bytes"),
        "state",
        1 / 1.19,
        workloads=("torch",),
    ),
    Goal(
        "stored, byte planes", ("ours-planes", "save", "stored_bytes"), "state", 1 / 1.49, workloads=("bf16",)
    ),
    Goal(
        "bytes of a save where 1 % changed",
        ("ours", "later", "stored_bytes"),
        "state",
        0.02,
        workloads=("lora",),
    ),
    Goal(
        "time of a save where 1 % changed, against the first",
        ("ours", "later", "wall_s"),
        _AGAINST_SAVE,
        0.4,
        workloads=("lora",),
    ),
)


def judge(run: Run) -> list[Verdict]:
    """Every goal for every workload of the run that it speaks of, where its systems were to be run."""
    return [
        Verdict(name, goal, _ratio(run, name, goal))
        for name in dict.fromkeys(workload for workload, _ in run.plan.pairs)
        for goal in GOALS
        if name in goal.workloads and all((name, system) in run.plan.pairs for system in goal.systems)
    ]


def _ratio(run: Run, workload: str, goal: Goal) -> float | None:
    over = run.median(workload, *goal.over)
    if goal.under == "MiB":
        under: float | None = MIB
    elif goal.under == "state":
        under = run.states.get(workload, {}).get("state_bytes")
    else:
        under = run.median(workload, *goal.under)
    return None if over is None or not under else over / under
