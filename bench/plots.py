"""Plots of what runs kept with ``--json``, by matplotlib where it is installed."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["plot"]

COLOR, OURS_COLOR = "#9aa5b1", "#2563eb"
OURS = ("ours", "s3-ours", "PUT ours", "GET ours", "planes")
MIB = 1 << 20

Record = Mapping[str, Any]
Bars = Sequence[tuple[str, float]]


def plot(records: Mapping[str, Record], folder: str) -> list[str]:
    """Draws what the records have to show into SVG files of `folder`; returns their names.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("svg")
    # Equal figures give equal files.
    matplotlib.rcParams |= {"svg.hashsalt": "ckptstore", "font.size": 9}
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    names: list[str] = []

    def keep(figure: Any, name: str) -> None:
        figure.tight_layout()
        figure.savefig(os.path.join(folder, name), metadata={"Date": None})
        pyplot.close(figure)
        names.append(name)

    for part, record in records.items():
        if "summary" in record:
            for workload in record["states"]:
                for kind, (title, bars, is_log) in _state_plots(record, workload).items():
                    if bars:
                        keep(_bars(pyplot, title, bars, is_log=is_log), f"{part}-{workload}-{kind}.svg")
        elif "points" in record:
            keep(_growth(pyplot, record["points"]), f"{part}.svg")
        elif "servers" in record:
            keep(_clients(pyplot, record), f"{part}.svg")
        elif "codecs" in record:
            bars = _codec_bars(record["codecs"])
            keep(_bars(pyplot, "encoding, GB/s of a core", bars, is_log=False), f"{part}.svg")
        elif "rounds" in record:
            bars = _training_bars(record["rounds"])
            title = "a step during a save, against one without"
            keep(_bars(pyplot, title, bars, is_log=False), f"{part}.svg")
    return names


def _medians(record: Record, workload: str, operation: str, figure: str) -> dict[str, float]:
    return {
        row["system"]: row["median"]
        for row in record["summary"]
        if (row["workload"], row["operation"], row["figure"]) == (workload, operation, figure)
    }


def _state_plots(record: Record, workload: str) -> dict[str, tuple[str, Bars, bool]]:
    """throughput, stall, size: title, bars and whether the axis is logarithmic."""
    nbytes = record["states"][workload]["state_bytes"]
    of_state = f"{workload}, {nbytes / MIB:.0f} MiB"
    plots: dict[str, tuple[str, Bars, bool]] = {}
    for operation in ("save", "load"):
        seconds = _medians(record, workload, operation, "wall_s")
        rates = [(name, nbytes / s / 1e9) for name, s in seconds.items() if name not in ("copy", "hash")]
        plots[f"throughput-{operation}"] = (f"{operation}, GB/s of state: {of_state}", rates, False)
    stall = [(name, s * 1e3) for name, s in _medians(record, workload, "later", "blocked_s").items()]
    plots["stall"] = (f"a later save blocks its caller, ms: {of_state}", stall, True)
    stored = _medians(record, workload, "save", "stored_bytes").items()
    size = [(name, one / nbytes) for name, one in stored if one]
    plots["size"] = (f"stored, of the state: {of_state}", size, False)
    return plots


def _bars(pyplot: Any, title: str, bars: Bars, *, is_log: bool) -> Any:
    figure, axes = pyplot.subplots(figsize=(7, 0.8 + 0.24 * len(bars)))
    labels = [label for label, _ in bars]
    colors = [OURS_COLOR if label.startswith(OURS) else COLOR for label in labels]
    drawn = axes.barh(range(len(bars)), [value for _, value in bars], color=colors)
    axes.bar_label(drawn, fmt="%.3g", padding=2, fontsize=7)
    axes.set_yticks(range(len(bars)), labels)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    if is_log:
        axes.set_xscale("log")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def _growth(pyplot: Any, points: Sequence[Record]) -> Any:
    kinds = list(dict.fromkeys(point["kind"] for point in points))
    figure, axes = pyplot.subplots(1, len(kinds), figsize=(4 * len(kinds), 3.2), squeeze=False)
    for kind, axis in zip(kinds, axes[0], strict=True):
        own = sorted((point for point in points if point["kind"] == kind), key=lambda point: point["n"])
        for operation in own[0]["results"][0]:
            seconds = [_median([one[operation]["wall_s"] for one in point["results"]]) for point in own]
            axis.loglog([point["n"] for point in own], seconds, marker="o", label=operation)
        axis.set_xlabel(kind)
        axis.set_ylabel("seconds")
        axis.legend()
    return figure


def _clients(pyplot: Any, record: Record) -> Any:
    gigabytes = record["objects"] * (8 << 20) / 1e9
    bars = [
        (f"{verb.upper()} {client}, {server}", _median([one[verb]["cpu_s"] for one in rounds]) / gigabytes)
        for server, found in record["servers"].items()
        for verb in ("put", "get")
        for client, rounds in found["costs"].items()
    ]
    return _bars(pyplot, "CPU of the client, s/GB", bars, is_log=False)


def _codec_bars(rows: Sequence[Record]) -> Bars:
    return [
        (
            f"{row['codec']}, {row['kind']}",
            _median([one["raw_bytes"] / one["encode_s"] / 1e9 for one in row["results"]]),
        )
        for row in rows
        if row["codec"] != "copy"
    ]


def _training_bars(rounds: Sequence[Record]) -> Bars:
    bars = []
    for row in rounds:
        ratios = [one["during_s"] / one["step_s"] for one in row["results"] if one["during_s"] is not None]
        if ratios:
            bars.append((f"{row['system']}, {row['threads']} threads", _median(ratios)))
    return bars
