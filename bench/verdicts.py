"""How a run's figures are held against goals, and the one table in which all of them stand."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["TOPICS", "Verdict", "table", "table_of_goals"]

TOPICS: Mapping[str, str] = {
    "blocked": "caller blocked, background save",
    "unchanged": "nothing changed since the last save",
    "durable": "durable save",
    "raw": "durable save without compression",
    "load": "verified load",
    "size": "stored size, encoding",
    "lora": "1 % of the tensors changed",
    "embedding": "1 % of the rows changed, scattered",
    "s3": "client CPU to S3",
    "training": "training during a save",
    "many": "10,000 tensors",
    "counter": "counter-sized save",
    "growth": "growth",
}
"""What is promised, in the order in which it is told."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One figure, and the bound it has to keep."""

    topic: str
    goal: str
    measured: float | None
    """None: something it takes was not measured."""
    bound: float | None
    """None: it is told, and held against nothing."""
    at_least: bool = False
    unit: str = "x"
    """Behind the number: ``x`` for a ratio."""
    where: str = ""
    """The workload, where there are several."""
    fastest: float | None = None
    """For a bound that is closer than the rounds are to each other: the same figure of the fastest rounds."""

    @property
    def word(self) -> str:
        if self.measured is None:
            return "not measured"
        if self.bound is None:
            return "told"
        if self._keeps(self.measured):
            return "met"
        return "within noise" if self.fastest is not None and self._keeps(self.fastest) else "NOT MET"

    @property
    def bound_text(self) -> str:
        if self.bound is None:
            return "-"
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"

    @property
    def measured_text(self) -> str:
        if self.measured is None:
            return "-"
        fastest = "" if self.fastest is None else f" (fastest {self.fastest:.3g}{self.unit})"
        return f"{self.measured:.3g}{self.unit}{fastest}"

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        bound = "" if self.bound is None else f" {self.bound_text}"
        said = self.word if self.measured is None else f"{self.word}, {self.measured_text}"
        return f"{where}{self.goal}{bound}: {said}"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; ``table_of_goals`` takes it."""
        return {
            "topic": self.topic,
            "goal": self.goal,
            "where": self.where,
            "bound": self.bound_text,
            "measured": self.measured_text,
            "value": self.measured,
            "verdict": self.word,
        }

    def _keeps(self, figure: float) -> bool:
        if self.bound is None:
            return True
        return figure >= self.bound if self.at_least else figure <= self.bound


def table_of_goals(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The lines of one table of what `Verdict.to_dict` gave, by topic; a topic of which nothing is told says so.

    Of the same goal at the same place the first one that was measured stays.
    """
    kept: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    for row in rows:
        key = (row["topic"], row["goal"], row["where"])
        if key not in kept or (kept[key]["value"] is None and row["value"] is not None):
            kept[key] = row
    cells: list[list[str]] = []
    for topic, title in TOPICS.items():
        own = [row for row in kept.values() if row["topic"] == topic]
        cells += [
            [title, row["goal"], row["where"] or "-", row["bound"], row["measured"], row["verdict"]]
            for row in own
        ] or [[title, "-", "-", "-", "-", "not measured"]]
    return table(["", "goal", "state", "bound", "measured", "verdict"], cells)


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a Markdown table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (titles, *rows)) for i in range(len(titles))]
    ruler = [":" + "-" * (widths[0] + 1), *("-" * (width + 1) + ":" for width in widths[1:])]
    for index, row in enumerate((titles, *rows)):
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        yield "| " + " | ".join(cells) + " |"
        if index == 0:
            yield "|" + "|".join(ruler) + "|"
