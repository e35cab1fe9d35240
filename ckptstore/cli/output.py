"""What people and programs get to see: tables, plain values, bars, and nothing that a terminal would obey."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

__all__ = ["cell", "nbytes", "plain", "progress_bar", "put_json", "put_table", "safe", "table", "when"]

_PIPED_WIDTH = 10_000
"""Nobody has to read a line in one piece there, and programs should."""


def safe(text: str) -> str:
    """Return the text with everything escaped that does not print: what a store holds is anybody's."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def cell(value: object, style: str = "") -> Text:
    """Return a cell of a table; None is an empty one."""
    return Text("" if value is None else safe(str(value)).replace("\n", "\\n"), style)


def table(*headers: str, right: tuple[str, ...] = ()) -> Table:
    """Return an empty table; the columns named in ``right`` hold numbers."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        made.add_column(
            header, justify="right" if header in right else "left", no_wrap=header in right, overflow="fold"
        )
    return made


def put_table(made: Table) -> None:
    """Print a table: as wide as it is where nobody looks, in colour on a terminal alone."""
    Console(width=None if sys.stdout.isatty() else _PIPED_WIDTH, highlight=False).print(made)


def put_json(value: Mapping[str, Any]) -> None:
    """Print one object in one line."""
    click.echo(json.dumps(plain(value), allow_nan=False))


def plain(value: Any) -> Any:
    """Return what JSON can hold: bytes as ``{"hex": …}``, a number that is not finite as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return {"hex": value.hex()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def nbytes(n: int) -> str:
    """Return a number of bytes for people."""
    size, unit = float(n), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{n} B" if unit == "B" else f"{size:.1f} {unit}"


def when(created_ns: int) -> str:
    """Return a time for people, in UTC."""
    return f"{datetime.fromtimestamp(created_ns / 1e9, tz=timezone.utc):%Y-%m-%d %H:%M:%S}"


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Lend a function that takes the bytes done and in all: a bar on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
