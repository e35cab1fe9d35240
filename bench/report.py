"""Tables of a run, ratios first, and the goals it is held against."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.harness import Run, Spread
from bench.systems import SYSTEMS
from bench.workloads import WORKLOADS

__all__ = ["GOALS", "Goal", "Verdict", "judge", "render"]

BASE = "ours"
COPY = "copy"
MIB = 1 << 20

Figure = tuple[str, str, str]
"""system, operation, figure"""


@dataclass(frozen=True, slots=True)
class Goal:
    """A ratio of two medians, and the bound it has to keep."""

    text: str
    over: Figure
    under: Figure
    bound: float
    at_least: bool

    def is_met_by(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound


@dataclass(frozen=True, slots=True)
class Verdict:
    workload: str
    goal: Goal
    ratio: float | None
    """None: one of the two was not measured."""

    def __str__(self) -> str:
        bound = f"{'≥' if self.goal.at_least else '≤'} {self.goal.bound:g}x"
        if self.ratio is None:
            return f"{self.workload}: {self.goal.text} {bound}: not measured"
        word = "met" if self.goal.is_met_by(self.ratio) else "NOT MET"
        return f"{self.workload}: {self.goal.text} {bound}: {word}, {self.ratio:.2f}x"


GOALS = (
    Goal(
        "durable save faster than the incumbent's way, which is not flushed",
        ("incumbent", "save", "wall_s"),
        (BASE, "save", "wall_s"),
        3.0,
        at_least=True,
    ),
    Goal(
        "durable save faster than the incumbent's way with fsync",
        ("incumbent-fsync", "save", "wall_s"),
        (BASE, "save", "wall_s"),
        3.0,
        at_least=True,
    ),
    Goal(
        "first background save blocks the caller, against a copy of its bytes",
        ("ours-background", "save", "blocked_s"),
        (COPY, "save", "blocked_s"),
        1.5,
        at_least=False,
    ),
    Goal(
        "second background save blocks the caller, against a copy of its bytes",
        ("ours-background", "again", "blocked_s"),
        (COPY, "again", "blocked_s"),
        1.5,
        at_least=False,
    ),
    Goal(
        "verified load faster than the incumbent's, which verifies nothing",
        ("incumbent", "load", "wall_s"),
        (BASE, "load", "wall_s"),
        3.0,
        at_least=True,
    ),
)
GOAL_WORKLOADS = ("torch", "arrays", "bf16")
"""The goals speak of model states; a counter is bound by one flush, whoever writes it."""


def judge(run: Run) -> list[Verdict]:
    """Every goal for every model workload of the run."""
    workloads = [name for name in GOAL_WORKLOADS if any(name == workload for workload, _ in run.plan.pairs)]
    return [
        Verdict(name, goal, _ratio(run.median(name, *goal.over), run.median(name, *goal.under)))
        for name in workloads
        for goal in GOALS
    ]


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    cell: Callable[[Run, str, str], str]


def _against(title: str, operation: str, figure: str, base: str) -> Column:
    def cell(run: Run, workload: str, system: str) -> str:
        ratio = _ratio(
            run.median(workload, system, operation, figure), run.median(workload, base, operation, figure)
        )
        return "-" if ratio is None else f"{ratio:.2f}"

    return Column(title, cell)


def _stored_cell(run: Run, workload: str, system: str) -> str:
    stored = run.median(workload, system, "save", "stored_bytes")
    state = run.states.get(workload, {}).get("state_bytes")
    ratio = _ratio(stored, state)
    return "-" if ratio is None else f"{ratio:.3f}"


def _flag(title: str, name: str) -> Column:
    return Column(title, lambda run, workload, system: "yes" if getattr(SYSTEMS[system], name) else "no")


def _seconds(title: str, operation: str, figure: str) -> Column:
    def cell(run: Run, workload: str, system: str) -> str:
        return _range(run.spread(workload, system, operation, figure), 1.0, 3)

    return Column(title, cell)


def _mebibytes(title: str, operation: str, figure: str) -> Column:
    def cell(run: Run, workload: str, system: str) -> str:
        spread = run.spread(workload, system, operation, figure)
        return "-" if spread is None else f"{spread.median / MIB:.1f}"

    return Column(title, cell)


def _range(spread: Spread | None, unit: float, digits: int) -> str:
    if spread is None:
        return "-"
    low, middle, high = (
        f"{value / unit:.{digits}f}" for value in (spread.minimum, spread.median, spread.maximum)
    )
    return f"{middle} ({low}-{high})"


RATIOS = (
    _against(f"save ÷ {BASE}", "save", "wall_s", BASE),
    _against(f"again ÷ {BASE}", "again", "wall_s", BASE),
    _against(f"load ÷ {BASE}", "load", "wall_s", BASE),
    _against(f"blocked ÷ {COPY}", "save", "blocked_s", COPY),
    _against(f"blocked again ÷ {COPY}", "again", "blocked_s", COPY),
    _against(f"CPU of save ÷ {BASE}", "save", "cpu_s", BASE),
    Column("stored ÷ state", _stored_cell),
    _flag("flushed", "durable"),
    _flag("verified", "verified"),
)
FIGURES = (
    _seconds("save s", "save", "wall_s"),
    _seconds("blocked s", "save", "blocked_s"),
    _seconds("again s", "again", "wall_s"),
    _seconds("blocked again s", "again", "blocked_s"),
    _seconds("load s", "load", "wall_s"),
)
COSTS = (
    _seconds("CPU s, save", "save", "cpu_s"),
    _seconds("CPU s, load", "load", "cpu_s"),
    _mebibytes("peak MiB, save", "save", "peak_bytes"),
    _mebibytes("peak MiB, load", "load", "peak_bytes"),
    _mebibytes("written MiB", "save", "written_bytes"),
    _mebibytes("stored MiB", "save", "stored_bytes"),
    _mebibytes("stored MiB, again", "again", "stored_bytes"),
)


def _table(run: Run, workload: str, systems: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
    rows = [["system", *(column.title for column in columns)]]
    rows += [[system, *(column.cell(run, workload, system) for column in columns)] for system in systems]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for index, row in enumerate(rows):
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
        ]
        yield "| " + " | ".join(cells) + " |"
        if index == 0:
            yield (
                "|"
                + "|".join([":" + "-" * (widths[0] + 1), *("-" * (w + 1) + ":" for w in widths[1:])])
                + "|"
            )


def render(run: Run) -> str:
    """The run in Markdown: per workload the ratios, the seconds, the costs; then the goals."""
    lines: list[str] = []
    for workload in dict.fromkeys(workload for workload, _ in run.plan.pairs):
        systems = [name for name in SYSTEMS if (workload, name) in run.plan.pairs]
        state = run.states.get(workload, {"state_bytes": 0, "n_buffers": 0})
        lines += [
            f"## {workload}: {WORKLOADS[workload].about}",
            "",
            f"{state['state_bytes'] / MIB:.1f} MiB in {state['n_buffers']} buffers, "
            f"{run.plan.n_rounds} rounds, seed {run.plan.seed}, free memory {run.plan.memory}.",
        ]
        for columns in (RATIOS, FIGURES, COSTS):
            lines += ["", *_table(run, workload, systems, columns)]
        lines.append("")
    notes = [f"- {line}" for line in run.plan.skipped]
    notes += [f"- FAILED {row.workload} {row.system}: {row.reason}" for row in run.failures]
    if notes:
        lines += [*notes, ""]
    verdicts = judge(run)
    if verdicts:
        lines += ["## Goals", "", *(f"- {verdict}" for verdict in verdicts)]
    return "\n".join(lines).rstrip() + "\n"
