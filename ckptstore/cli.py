"""The commands for operators. Tables for people, ``--json`` for programs.

Exit codes: 0 all is well, 1 a problem was found, 2 wrong usage, 3 the storage failed.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ckptstore import __version__
from ckptstore.doctor import Finding, examine
from ckptstore.errors import CheckpointStoreError, ConfigError

__all__ = ["command"]

_STYLES = {"ok": "green", "problem": "bold red", "unknown": "yellow"}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def command() -> None:
    """Look after checkpoint stores."""


@command.command()
@click.argument("url")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="An option of the backend.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a line.")
def doctor(url: str, options: tuple[str, ...], as_json: bool) -> None:
    """Check that the storage at URL keeps the promises a store rests on.

    Writes a few small objects, and deletes them again.
    """
    try:
        findings = asyncio.run(_gather(url, dict(map(_parsed, options))))
    except ConfigError as exc:
        _exit(2, exc)
    except CheckpointStoreError as exc:
        _exit(3, exc)
    if as_json:
        for finding in findings:
            click.echo(json.dumps(asdict(finding)))
    else:
        table = Table("check", "verdict", "what was seen")
        for finding in findings:
            style = _STYLES[finding.verdict]
            table.add_row(finding.check, f"[{style}]{finding.verdict}[/{style}]", finding.detail)
        Console().print(table)
    if any(finding.verdict == "problem" for finding in findings):
        sys.exit(1)


async def _gather(url: str, options: dict[str, Any]) -> list[Finding]:
    async with aclosing(examine(url, **options)) as findings:
        return [finding async for finding in findings]


def _parsed(option: str) -> tuple[str, Any]:
    name, equals, value = option.partition("=")
    if not equals or not name.isidentifier():
        raise click.UsageError(f"--option takes NAME=VALUE, not {option!r}")
    return name, {"true": True, "false": False}.get(value, value)


def _exit(code: int, exc: Exception) -> Any:
    click.echo(f"{type(exc).__name__}: {exc}", err=True)
    sys.exit(code)
