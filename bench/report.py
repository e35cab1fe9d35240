"""Tables of a run in Markdown, ratios first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.goals import judge
from bench.harness import Run, Spread
from bench.systems import SYSTEMS
from bench.verdicts import table
from bench.workloads import WORKLOADS

__all__ = ["render"]

BASE = "ours"
S3_BASE = "s3-ours"
COPY = "copy"
MIB = 1 << 20


def _ratio(over: float | None, under: float | None) -> float | None:
    return None if over is None or not under else over / under


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    cell: Callable[[Run, str, str], str]


def _against(title: str, operation: str, figure: str, base: str) -> Column:
    def cell(run: Run, workload: str, system: str) -> str:
        against = S3_BASE if SYSTEMS[system].on_s3 and base == BASE else base
        ratio = _ratio(
            run.median(workload, system, operation, figure),
            run.median(workload, against, operation, figure),
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


def _milliseconds(title: str, operation: str, figure: str) -> Column:
    def cell(run: Run, workload: str, system: str) -> str:
        return _range(run.spread(workload, system, operation, figure), 1e-3, 1)

    return Column(title, cell)


def _mebibytes(title: str, operation: str, figure: str) -> Column:
    def cell(run: Run, workload: str, system: str) -> str:
        spread = run.spread(workload, system, operation, figure)
        return "-" if spread is None else f"{spread.median / MIB:.1f}"

    return Column(title, cell)


def _count(title: str, operation: str, figure: str) -> Column:
    def cell(run: Run, workload: str, system: str) -> str:
        median = run.median(workload, system, operation, figure)
        return "-" if median is None else f"{median:.0f}"

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
    _against(f"later ÷ {BASE}", "later", "wall_s", BASE),
    _against(f"load ÷ {BASE}", "load", "wall_s", BASE),
    _against(f"into ÷ {BASE}", "into", "wall_s", BASE),
    _against(f"blocked ÷ {COPY}", "save", "blocked_s", COPY),
    _against(f"blocked later ÷ {COPY}", "later", "blocked_s", COPY),
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
    _seconds("later s", "later", "wall_s"),
    _seconds("blocked later s", "later", "blocked_s"),
    _seconds("load s", "load", "wall_s"),
    _seconds("into s", "into", "wall_s"),
    _seconds("into, in place s", "inplace", "wall_s"),
    _milliseconds("inspect ms", "inspect", "wall_s"),
    _milliseconds("load of one ms", "one", "wall_s"),
)
COSTS = (
    _seconds("CPU s, save", "save", "cpu_s"),
    _seconds("CPU s, load", "load", "cpu_s"),
    _mebibytes("peak MiB, save", "save", "peak_bytes"),
    _mebibytes("peak MiB, load", "load", "peak_bytes"),
    _mebibytes("written MiB", "save", "written_bytes"),
    _count("write calls", "save", "write_calls"),
    _count("requests, save", "save", "requests"),
    _count("PUTs, later", "later", "puts"),
    _count("requests, load", "load", "requests"),
    _count("requests, inspect", "inspect", "requests"),
    _count("requests, load of one", "one", "requests"),
    _mebibytes("read MiB, load of one", "one", "read_bytes"),
    _mebibytes("stored MiB", "save", "stored_bytes"),
    _mebibytes("stored MiB, again", "again", "stored_bytes"),
    _mebibytes("stored MiB, later", "later", "stored_bytes"),
)


def _rows(run: Run, workload: str, systems: Sequence[str], columns: Sequence[Column]) -> Iterator[str]:
    rows = [[system, *(column.cell(run, workload, system) for column in columns)] for system in systems]
    # A column that no system of this run fills says nothing.
    kept = [i for i in range(len(columns)) if any(row[i + 1] != "-" for row in rows)]
    return table(
        ["system", *(columns[i].title for i in kept)], [[row[0], *(row[i + 1] for i in kept)] for row in rows]
    )


def render(run: Run) -> str:
    """The run in Markdown: per workload the ratios, the seconds, the costs; then the goals."""
    lines: list[str] = []
    for workload in dict.fromkeys(workload for workload, _ in run.plan.pairs):
        systems = [
            name for name in SYSTEMS if (workload, name) in run.plan.pairs and name not in run.unavailable
        ]
        state = run.states.get(workload, {"state_bytes": 0, "n_buffers": 0})
        lines += [
            f"## {workload}: {WORKLOADS[workload].about}",
            "",
            f"{state['state_bytes'] / MIB:.1f} MiB in {state['n_buffers']} buffers, "
            f"{run.plan.n_rounds} rounds, seed {run.plan.seed}, free memory {run.plan.memory}.",
        ]
        for columns in (RATIOS, FIGURES, COSTS):
            lines += ["", *_rows(run, workload, systems, columns)]
        lines.append("")
    notes = [f"- {line}" for line in run.plan.skipped]
    notes += [f"- system {name} skipped: {reason}" for name, reason in run.unavailable.items()]
    notes += [f"- FAILED {row.workload} {row.system}: {row.reason}" for row in run.failures]
    if notes:
        lines += [*notes, ""]
    verdicts = judge(run)
    if verdicts:
        lines += ["## Goals", "", *(f"- {verdict}" for verdict in verdicts)]
    return "\n".join(lines).rstrip() + "\n"
