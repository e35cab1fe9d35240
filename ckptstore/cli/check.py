"""The commands that find out whether all is well: ``verify`` and ``doctor``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from dataclasses import asdict
from typing import Any

import click

from ckptstore import _verify
from ckptstore.cli.addresses import Address, find, source_of
from ckptstore.cli.app import JSON, PROBLEM, Where, checked_errors, note, on_store, run
from ckptstore.cli.output import cell, nbytes, progress_bar, put_json, put_table, table
from ckptstore.doctor import Finding, examine
from ckptstore.errors import ConfigError
from ckptstore.manifest import ManifestSource
from ckptstore.store import AsyncCheckpointStore
from ckptstore.verify import VerifyReport

__all__ = ["doctor", "verify"]

_STYLES = {"ok": "green", "problem": "bold red", "unknown": "yellow"}


@click.command(short_help="Read what is stored and compare it with its digests.")
@on_store("[COLLECTION|CHECKPOINT]")
@click.option(
    "--sample",
    type=click.FloatRange(0, 1, min_open=True),
    help="Only this share of the data, drawn at random.",
)
@click.option("--seed", type=int, help="Draw what was drawn with this seed before.")
@JSON
def verify(
    where: Where, addresses: tuple[str, ...], sample: float | None, seed: int | None, as_json: bool
) -> None:
    """Read what is stored and compare it with its digests: the whole store, a collection, or one checkpoint.

    Every manifest is read, and every piece of data once. Exit code 1 if
    something is damaged: it is told which checkpoints that touches, and which
    older ones are whole.
    """

    async def main(store: AsyncCheckpointStore) -> int:
        what: ManifestSource | str | None = None
        if addresses:
            address = Address.parse(addresses[0])
            what = address.collection
            if address.which is not None:
                what = source_of(store, await find(store, address))
        with progress_bar("verify") as progress:
            report = await _verify.verify(
                store._engine, store.store_id, what, sample=sample, seed=seed, progress=progress
            )
        if as_json:
            put_json({"ok": report.ok, **asdict(report)})
        else:
            _show(report)
        return 0 if report.ok else PROBLEM

    run(where, main)


def _show(report: VerifyReport) -> None:
    if report.problems:
        made = table("object", "problem", "what was found", "checkpoints")
        for problem in report.problems:
            found = (
                problem.detail
                if problem.copy is None
                else f"{problem.detail}; a copy is whole: {problem.copy}"
            )
            made.add_row(
                cell(problem.key), cell(problem.kind, "bold red"), cell(found), cell(len(problem.checkpoints))
            )
        put_table(made)
        click.echo()
        made = table("checkpoint", "can be loaded", "before it, whole")
        for damaged in report.damaged:
            heals = cell("from copies", "yellow") if damaged.heals else cell("no", "bold red")
            made.add_row(cell(damaged.checkpoint), heals, cell(damaged.older or "none"))
        put_table(made)
        click.echo()
    sample = "" if report.sample is None else f" (a sample, --sample {report.sample:g} --seed {report.seed})"
    click.echo(
        f"{report.n_checkpoints} checkpoints, {report.n_checked} of {report.n_chunks} chunks read"
        f"{sample}, {nbytes(report.checked_bytes)}: "
        f"{len(report.problems) or 'no'} problem{'' if len(report.problems) == 1 else 's'}"
    )


@click.command(short_help="Check that a storage is fit for a store.")
@on_store("")
@JSON
def doctor(where: Where, addresses: tuple[str, ...], as_json: bool) -> None:
    """Check that the storage at URL keeps the promises a store rests on.

    Writes a few small objects, and deletes them again.
    """
    with checked_errors():
        url, options = where.opening()
        if not isinstance(url, str):
            raise ConfigError(
                "doctor examines storage that has a URL; Metaflow's own code reaches this datastore"
            )
        findings = asyncio.run(_gather(url, options))
    if as_json:
        for finding in findings:
            put_json(asdict(finding))
    else:
        made = table("check", "verdict", "what was seen")
        for finding in findings:
            made.add_row(
                cell(finding.check), cell(finding.verdict, _STYLES[finding.verdict]), cell(finding.detail)
            )
        put_table(made)
    if any(finding.verdict == "problem" for finding in findings):
        note("this storage is not safe for checkpoints")
        sys.exit(PROBLEM)


async def _gather(url: str, options: dict[str, Any]) -> list[Finding]:
    async with aclosing(examine(url, **options)) as findings:
        return [finding async for finding in findings]
