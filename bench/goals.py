"""What a run of states is held against: medians, against other medians of the same run or a plain bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.harness import Run, Spread
from bench.verdicts import Verdict

__all__ = ["GOALS", "Figure", "Goal", "judge"]

MIB = 1 << 20

Figure = tuple[str, str, str]
"""system, operation, figure"""
MODELS = ("torch", "arrays", "bf16")
UNITS = {"MiB": (MIB, " MiB"), "ms": (1e-3, " ms"), "requests": (1, " requests"), "PUTs": (1, " PUTs")}


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two medians, or one median in a unit, and the bound it has to keep."""

    topic: str
    text: str
    over: Figure
    under: Figure | Literal["state", "MiB", "ms", "requests", "PUTs"]
    """``state``: the bytes of the state; else a unit."""
    bound: float | None
    """None: it is told only."""
    at_least: bool = False
    workloads: tuple[str, ...] = MODELS
    against: str = ""
    """The workload that `under` is taken from, where it is another one."""
    noisy: bool = False
    """The bound is closer than the rounds of a write are to each other: those that were fastest count too."""

    @property
    def unit(self) -> str:
        return UNITS[self.under][1] if isinstance(self.under, str) and self.under in UNITS else "x"

    def needs(self, workload: str) -> set[tuple[str, str]]:
        """The pairs of workload and system that it takes."""
        pairs = {(workload, self.over[0])}
        if not isinstance(self.under, str):
            pairs.add((self.against or workload, self.under[0]))
        return pairs


def _blocked(
    text: str, operation: str, under: Figure, bound: float, *, topic: str = "blocked", by: str = "background"
) -> Goal:
    text = f"{text} blocks the caller, against {under[0]}"
    return Goal(topic, text, (f"ours-{by}", operation, "blocked_s"), under, bound)


def _peer(peer: str, bound: float = 1.0) -> Goal:
    return Goal(
        "durable",
        f"durable save faster than {peer}",
        (peer, "save", "wall_s"),
        ("ours", "save", "wall_s"),
        bound,
        at_least=True,
    )


def _load(text: str, system: str, operation: str, bound: float) -> Goal:
    return Goal(
        "load",
        f"verified load{text}, against torch.load",
        (system, operation, "wall_s"),
        ("torch", "load", "wall_s"),
        bound,
    )


def _stored(workload: str, ratio: float) -> Goal:
    figure = ("ours-planes", "save", "stored_bytes")
    return Goal(
        "size", f"stored, byte planes (1/{ratio:g})", figure, "state", 1 / ratio, workloads=(workload,)
    )


def _random(figure: str, text: str) -> Goal:
    return Goal(
        "size",
        f"durable save of random data, byte planes against raw, {text}",
        ("ours-planes", "save", figure),
        ("ours-raw", "save", figure),
        1.05,
        workloads=("random",),
        noisy=True,
    )


def _many(text: str, operation: str, bound: float | None = 2.0) -> Goal:
    figure = ("ours", operation, "wall_s")
    text = f"{text}, against the same bytes in 300 tensors"
    return Goal("many", text, figure, figure, bound, workloads=("many-small",), against="torch")


def _small(text: str, figure: Figure, unit: Literal["MiB", "ms", "requests", "PUTs"], bound: float) -> Goal:
    topic, workload = ("counter", "counter") if "counter" in text else ("many", "many-small")
    return Goal(topic, text, figure, unit, bound, workloads=(workload,))


_COPY = ("copy", "later", "blocked_s")

GOALS = (
    _blocked("first background save", "save", ("copy", "save", "blocked_s"), 1.2),
    _blocked(
        "first background save, memory reserved", "save", ("copy", "save", "blocked_s"), 1.2, by="reserved"
    ),
    _blocked("background save", "later", _COPY, 1.2),
    _blocked("background save", "later", ("dcp-async", "later", "blocked_s"), 1.0),
    _blocked("background save", "later", ("incumbent", "later", "blocked_s"), 1 / 40),
    _blocked("background save", "later", ("incumbent-package", "later", "blocked_s"), 1 / 40),
    _blocked("background save of an unchanged state", "again", _COPY, 1.2, topic="unchanged"),
    _blocked(
        "background save of an unchanged state",
        "again",
        ("dcp-async", "again", "blocked_s"),
        1.0,
        topic="unchanged",
    ),
    Goal(
        "unchanged",
        "stored by a save where nothing changed (its manifest)",
        ("ours", "again", "stored_bytes"),
        "MiB",
        0.25,
    ),
    Goal(
        "unchanged",
        "unchanged save, against hashing",
        ("ours", "again", "wall_s"),
        ("hash", "again", "wall_s"),
        1.3,
    ),
    _peer("torch-fsync"),
    _peer("dcp"),
    _peer("torchsnapshot-fsync"),
    _peer("orbax-fsync"),
    _peer("incumbent-fsync", 5.0),
    _peer("incumbent", 5.0),
    _peer("incumbent-package-fsync", 5.0),
    Goal("durable", "memory of a durable save over the state", ("ours", "save", "peak_bytes"), "MiB", 256),
    Goal(
        "raw",
        "durable save without compression, against the disk",
        ("ours-raw", "save", "wall_s"),
        ("disk", "save", "wall_s"),
        1.3,
    ),
    _load(", raw", "ours-raw", "load", 1.0),
    _load(" into existing tensors, raw", "ours-raw", "into", 0.8),
    _load(" into existing tensors in place, raw", "ours-raw", "inplace", 0.8),
    _load(", byte planes", "ours-planes", "load", 1.5),
    _load(" into existing tensors, byte planes", "ours-planes", "into", 1.5),
    _stored("torch", 1.19),
    _stored("bf16", 1.49),
    _random("wall_s", "time"),
    _random("cpu_s", "CPU"),
    Goal(
        "lora",
        "bytes of a save where 1 % changed",
        ("ours", "later", "stored_bytes"),
        "state",
        0.02,
        workloads=("lora",),
    ),
    Goal(
        "lora",
        "time of a save where 1 % changed, against the first",
        ("ours", "later", "wall_s"),
        ("ours", "save", "wall_s"),
        0.4,
        workloads=("lora",),
    ),
    Goal(
        "embedding",
        "bytes of a save where 1 % of the rows changed",
        ("ours", "later", "stored_bytes"),
        "state",
        None,
        workloads=("embedding",),
    ),
    _many("save", "save"),
    _many("inspect", "inspect"),
    _many("load of one", "one"),
    _many("load of all", "load", None),
    _small("inspect of 10,000 tensors", ("ours", "inspect", "wall_s"), "ms", 20),
    _small("inspect of 10,000 tensors on S3", ("s3-ours", "inspect", "requests"), "requests", 1),
    # Two chunks of 8 MiB, if it lies on their border, and the manifest.
    _small("read by a load of one of 10,000", ("ours", "one", "read_bytes"), "MiB", 20),
    _small("a load of one of 10,000 on S3", ("s3-ours", "one", "requests"), "requests", 4),
    _small("counter, without fsync, first save", ("ours-os", "save", "wall_s"), "ms", 2),
    _small("counter, without fsync, later save", ("ours-os", "later", "wall_s"), "ms", 2),
    _small("counter on S3, later save", ("s3-ours", "later", "puts"), "PUTs", 1),
)


def judge(run: Run) -> list[Verdict]:
    """Every goal for every workload of the run that it speaks of, where its systems were to be run."""
    return [
        _verdict(run, name, goal)
        for name in dict.fromkeys(workload for workload, _ in run.plan.pairs)
        for goal in GOALS
        if name in goal.workloads and goal.needs(name) <= set(run.plan.pairs)
    ]


def _verdict(run: Run, workload: str, goal: Goal) -> Verdict:
    over, under = run.spread(workload, *goal.over), _under(run, workload, goal)
    measured = fastest = None
    if over is not None and under is not None and under.median:
        measured = over.median / under.median
        if goal.noisy:
            fastest = over.minimum / under.minimum
    return Verdict(goal.topic, goal.text, measured, goal.bound, goal.at_least, goal.unit, workload, fastest)


def _under(run: Run, workload: str, goal: Goal) -> Spread | None:
    if not isinstance(goal.under, str):
        return run.spread(goal.against or workload, *goal.under)
    if goal.under in UNITS:
        return Spread.of([UNITS[goal.under][0]])
    state = run.states.get(workload)
    return None if state is None else Spread.of([state["state_bytes"]])
