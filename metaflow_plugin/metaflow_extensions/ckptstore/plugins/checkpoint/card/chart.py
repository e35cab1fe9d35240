"""Drawings of the page: a line chart of a metadata value, and the timeline of saves.

The shapes are SVG that stretches to the page's width, all writing is HTML beside
it, so that neither a narrow nor a wide page has text of another size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from .facts import SavedFact
from .text import clipped, duration, number

__all__ = ["line_chart", "timeline"]

MAX_POINTS = 300
MAX_DOTS = 60
PLOT_PX = 112
LANE_PX = 18
WIDTH = 1000

Point = tuple[int, float]


def line_chart(points: Sequence[tuple[int, object]], n_checkpoints: int) -> str:
    """Return the chart of a value over checkpoints, given as (1 for the first, value).

    What is not finite leaves a gap and is counted below. Of many points each
    stretch keeps its lowest and its highest.
    """
    finite = [(at, y) for at, value in points if (y := _finite(value)) is not None]
    note = "" if len(finite) == len(points) else f"; {len(points) - len(finite):,} not finite, left out"
    x_marks = _x_marks([(0.0, "1"), (1.0, f"{n_checkpoints:,}")] if n_checkpoints > 1 else [(0.5, "1")])
    if not finite:
        return f'<p class="soft">No finite value{note}.</p>'
    ticks = _ticks(min(y for _, y in finite), max(y for _, y in finite))
    low, high = ticks[0], ticks[-1]

    def place(at: int, y: float) -> str:
        x = 0.5 if n_checkpoints == 1 else (at - 1) / (n_checkpoints - 1)
        # Halves first: the span of two floats may be no float.
        height = (y / 2 - low / 2) / (high / 2 - low / 2)
        return f"{x * WIDTH:.1f} {(1 - height) * PLOT_PX:.1f}"

    runs = _runs(_thinned(points))
    curve = "".join("M" + "L".join(place(*point) for point in run) for run in runs if len(run) > 1)
    # A run of one point has no line; in a short chart every checkpoint is a dot.
    lone = [run[0] for run in runs if len(run) == 1][-MAX_DOTS:]
    dotted = finite if len(finite) <= MAX_DOTS else [*lone, finite[-1]]
    dots = "".join(f"M{place(*point)}h0" for point in dotted)
    grid = "".join(
        f'<line class="grid" x1="0" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
        for y in (PLOT_PX * step / (len(ticks) - 1) for step in range(len(ticks)))
    )
    # The writing of n lines is spread like the lines themselves, and stands out by half its height.
    gap = (PLOT_PX - 14 * (len(ticks) - 1)) / (len(ticks) - 1)
    labels = "".join(
        f'<span style="margin-top:{-7 if i == 0 else gap:.1f}px">{number(tick)}</span>'
        for i, tick in enumerate(reversed(ticks))
    )
    return (
        f'<div class="plot"><div class="marks y">{labels}</div>'
        f'<svg class="line" height="{PLOT_PX}" viewBox="0 0 {WIDTH} {PLOT_PX}" preserveAspectRatio="none" '
        f'role="img" aria-label="last value {number(finite[-1][1])}">{grid}'
        f'<path class="curve" d="{curve}"/><path class="dot" d="{dots}"/></svg>{x_marks}</div>'
        + (f'<p class="soft">{note[2:]}</p>' if note else "")
    )


def timeline(saves: Sequence[SavedFact], *, begin_s: float, elapsed_s: float) -> str:
    """Return when the saves of this attempt held the step up, and when they ran beside it.

    The time shown goes from ``begin_s`` to ``elapsed_s`` after the attempt's start.
    """
    timed = [save for save in saves if save.started_s is not None]
    if not timed:
        return '<p class="soft">Nothing was saved in this attempt yet.</p>'
    begin, end = begin_s, max(elapsed_s, begin_s + 1e-3)

    def bar(kind: str, lane: int, from_s: float, to_s: float, title: str) -> str:
        x = max(0.0, min((from_s - begin) / (end - begin), 1.0)) * WIDTH
        # Two thousandths of the width can still be seen.
        wide = max((min(to_s, end) - from_s) / (end - begin) * WIDTH, 2.0)
        x = min(x, WIDTH - 2.0)
        return (
            f'<rect class="{kind}" x="{x:.1f}" y="{4 + lane * (LANE_PX + 6)}" width="{min(wide, WIDTH - x):.1f}" '
            f'height="{LANE_PX}"><title>{title}</title></rect>'
        )

    bars = []
    for save in timed:
        started = save.started_s or 0.0
        returned = end if save.blocked_s is None else started + save.blocked_s
        name = clipped(save.name)
        blocked = f"{name}: {duration(save.blocked_s)} blocked"
        bars.append(bar("bad" if save.state == "failed" else "blocked", 0, started, returned, blocked))
        if save.blocked_s is not None and (save.background_s or save.state == "saving"):
            until = end if save.background_s is None else returned + save.background_s
            beside = f"{name}: {duration(save.background_s)} in the background"
            bars.append(bar("bad" if save.state == "failed" else "background", 1, returned, until, beside))
    height = 2 * LANE_PX + 14
    lanes = "".join(
        f'<rect class="lane" x="0" y="{4 + lane * (LANE_PX + 6)}" width="{WIDTH}" height="{LANE_PX}"/>'
        for lane in (0, 1)
    )
    marks = [((at - begin) / (end - begin), duration(at) if at else "0") for at in _time_ticks(begin, end)]
    failed = '<span class="key-bad">failed</span>' if any(s.state == "failed" for s in timed) else ""
    return (
        '<div class="plot"><div class="marks y"></div>'
        f'<svg class="timeline" height="{height}" viewBox="0 0 {WIDTH} {height}" preserveAspectRatio="none" '
        f'role="img" aria-label="timeline of saves">{lanes}{"".join(bars)}</svg>{_x_marks(marks)}</div>'
        '<div class="key"><span>blocked</span><span class="key-background">background</span>'
        f"{failed}</div>"
    )


def _finite(value: object) -> float | None:
    try:
        y = float(value)  # type: ignore[arg-type]  # what is no number is told by the error
    except (OverflowError, TypeError, ValueError):
        return None
    return y if math.isfinite(y) else None


def _thinned(points: Sequence[tuple[int, object]]) -> list[tuple[int, float | None]]:
    """Return the points, or the lowest and highest of each of few stretches; None where none is finite."""
    values = [(at, _finite(value)) for at, value in points]
    if len(values) <= MAX_POINTS:
        return values
    per_stretch = math.ceil(len(values) * 2 / MAX_POINTS)
    kept: list[tuple[int, float | None]] = []
    for begin in range(0, len(values), per_stretch):
        stretch = [(y, at) for at, y in values[begin : begin + per_stretch] if y is not None]
        kept += (
            sorted({(at, y) for y, at in (min(stretch), max(stretch))})
            if stretch
            else [(values[begin][0], None)]
        )
    return kept


def _runs(points: Sequence[tuple[int, float | None]]) -> list[list[Point]]:
    """Return the finite points, parted where one between them is not finite."""
    runs = groupby(points, key=lambda point: point[1] is not None)
    return [[(at, y) for at, y in run if y is not None] for is_finite, run in runs if is_finite]


def _ticks(low: float, high: float) -> list[float]:
    """Return three to five round values that hold all between low and high."""
    if low == high:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (-1.0, 1.0)
    step = _round_up((high / 3) - (low / 3))
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [at * step for at in range(first, last + 1)]
    return ticks if len(ticks) > 1 and all(map(math.isfinite, ticks)) else [low, high]


def _round_up(value: float) -> float:
    if value <= 0 or not math.isfinite(value):
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    if power == 0:
        return value
    return next((factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= value * 0.999), value)


def _time_ticks(begin: float, end: float) -> list[float]:
    steps = (
        1e-3,
        2e-3,
        5e-3,
        0.01,
        0.02,
        0.05,
        0.1,
        0.2,
        0.5,
        1,
        2,
        5,
        10,
        15,
        30,
        60,
        120,
        300,
        600,
        900,
        1800,
    )
    hours = (3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000, 8640000)
    step = next((s for s in (*steps, *hours) if (end - begin) / s <= 6), end - begin)
    first = math.ceil(begin / step)
    return [at * step for at in range(first, math.floor(end / step) + 1)]


def _x_marks(marks: Sequence[tuple[float, str]]) -> str:
    """Return writing below a plot at shares of its width, none of it outside the plot."""
    spans = []
    for share, text in marks:
        side = ' class="first"' if share < 0.03 else ' class="last"' if share > 0.97 else ""
        spans.append(f'<span{side} style="left:{share * 100:.2f}%">{text}</span>')
    return f'<div class="marks x">{"".join(spans)}</div>'
