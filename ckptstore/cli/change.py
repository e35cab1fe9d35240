"""The commands that change a store: ``rm``, ``undelete``, ``pin``, ``unpin``, ``gc``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

import click

from ckptstore import _edit
from ckptstore._listing import Entry
from ckptstore.cli.addresses import Address, find, list_entries, source_of, text_of
from ckptstore.cli.app import DRY_RUN, JSON, PROBLEM, YES, Where, ask, note, on_store, run
from ckptstore.cli.output import cell, nbytes, put_json, put_table, safe, table
from ckptstore.cli.rows import as_table, read_rows
from ckptstore.errors import CheckpointNotFoundError, ConfigError
from ckptstore.garbage import GCReport
from ckptstore.store import AsyncCheckpointStore

__all__ = ["gc", "pin", "rm", "undelete", "unpin"]


@click.command(short_help="Delete checkpoints.")
@on_store("CHECKPOINT...", least=1, most=None)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="All checkpoints of the collections that are named, but pinned ones.",
)
@DRY_RUN
@YES
@JSON
def rm(
    where: Where, addresses: tuple[str, ...], everything: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Delete checkpoints. They are invisible at once; for half the store's grace 'undelete' brings them back.

    A collection's name alone is refused: exp/run1@ is its newest checkpoint,
    --all stands for all of them. Damaged ones can be deleted too. What is
    pinned is not deleted: unpin it first.
    """

    async def main(store: AsyncCheckpointStore) -> None:
        chosen = await _chosen(store, addresses, everything=everything)
        if not as_json:
            put_table(as_table(await read_rows(store, chosen)))
        if chosen and not dry_run:
            ask(f"Delete {len(chosen)} checkpoint{'' if len(chosen) == 1 else 's'}?", yes=yes)
        for entry in chosen:
            if not dry_run:
                source = source_of(store, entry)
                store._saves.forget(source)
                await _edit.delete(store._engine.backend, source)
            if as_json:
                put_json({"checkpoint": f"{entry.collection}@{entry.text}", "deleted": not dry_run})
        if not as_json and chosen:
            hours = store._marker.grace_s / 2 / 3600
            note(
                "would be deleted"
                if dry_run
                else f"deleted; within {hours:g} h this brings them back: ckptstore undelete {where.words} "
                + " ".join(text_of(entry) for entry in chosen[:3])
                + (" ..." if len(chosen) > 3 else "")
            )

    run(where, main)


async def _chosen(store: AsyncCheckpointStore, texts: Sequence[str], *, everything: bool) -> list[Entry]:
    """Return what is to be deleted, each once: all is found before anything is deleted."""
    found: dict[str, Entry] = {}
    for text in texts:
        address = Address.parse(text)
        if everything:
            if address.which is not None:
                raise ConfigError(f"--all takes names of collections, not {text}")
            live = [
                entry for entry in await list_entries(store, address.collection) if entry.tombstone is None
            ]
            if not live:
                raise CheckpointNotFoundError(f"collection {text!r} of {store.url} has no checkpoint")
            pinned = [entry for entry in live if entry.pinned]
            if pinned:
                note(f"{len(pinned)} of {text} stay: they are pinned")
            fit = [entry for entry in live if not entry.pinned]
        else:
            if address.which is None:
                raise ConfigError(
                    f"{text} is a collection: {text}@ is its newest checkpoint, and --all stands for all of them"
                )
            fit = [await find(store, address)]
            if fit[0].pinned:
                raise ConfigError(f"{text} is pinned: unpin it before you delete it")
        found.update((f"{entry.collection}@{entry.text}", entry) for entry in fit)
    return list(found.values())


Change = Callable[[AsyncCheckpointStore, Entry], Awaitable[None]]


def _change_each(
    where: Where, texts: Sequence[str], change: Change, word: str, *, deleted: bool, as_json: bool
) -> None:
    async def main(store: AsyncCheckpointStore) -> None:
        for text in texts:
            address = Address.parse(text)
            if address.which is None:
                raise ConfigError(f"{text} is a collection: {text}@ is its newest checkpoint")
            entry = await find(store, address, deleted=deleted)
            await change(store, entry)
            if as_json:
                put_json({"checkpoint": f"{entry.collection}@{entry.text}", word: True})
            else:
                click.echo(safe(f"{word} {text_of(entry)}"))

    run(where, main)


@click.command(short_help="Bring deleted checkpoints back.")
@on_store("CHECKPOINT...", least=1, most=None)
@JSON
def undelete(where: Where, addresses: tuple[str, ...], as_json: bool) -> None:
    """Bring deleted checkpoints back, within half the store's grace of their deletion ('ls --deleted' shows them)."""

    async def change(store: AsyncCheckpointStore, entry: Entry) -> None:
        source = source_of(store, entry)
        await _edit.undelete(store._engine.backend, source, store._marker.grace_s, store._clock)

    _change_each(where, addresses, change, "undeleted", deleted=True, as_json=as_json)


@click.command(short_help="Keep checkpoints from retention and rm.")
@on_store("CHECKPOINT...", least=1, most=None)
@JSON
def pin(where: Where, addresses: tuple[str, ...], as_json: bool) -> None:
    """Keep checkpoints from retention and rm."""

    async def change(store: AsyncCheckpointStore, entry: Entry) -> None:
        await _edit.pin(store._engine.backend, source_of(store, entry))

    _change_each(where, addresses, change, "pinned", deleted=False, as_json=as_json)


@click.command(short_help="Take pins away.")
@on_store("CHECKPOINT...", least=1, most=None)
@JSON
def unpin(where: Where, addresses: tuple[str, ...], as_json: bool) -> None:
    """Take pins away."""

    async def change(store: AsyncCheckpointStore, entry: Entry) -> None:
        await _edit.unpin(store._engine.backend, source_of(store, entry))

    _change_each(where, addresses, change, "unpinned", deleted=False, as_json=as_json)


@click.command(short_help="Delete for good what no checkpoint needs any more.")
@on_store("")
@click.option("--force", is_flag=True, help="Also where more than half of all data would go.")
@DRY_RUN
@YES
@JSON
def gc(
    where: Where, addresses: tuple[str, ...], force: bool, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Delete for good what no checkpoint needs any more and is older than the store's grace.

    Safe beside running jobs. Without --yes it looks first, shows what would go,
    and asks.
    """

    async def main(store: AsyncCheckpointStore) -> int:
        report: GCReport | None = None
        if dry_run or not yes:
            report = await store.collect_garbage(dry_run=True, force=force)
            if not dry_run and not as_json:
                _show(report)
        if not dry_run:
            if report is None or report.n_purged or report.n_garbage or report.n_unfinished:
                freed = "" if report is None else f" {nbytes(report.freed_bytes)}"
                ask(f"Delete{freed} for good?", yes=yes)
            report = await store.collect_garbage(force=force)
        assert report is not None
        if as_json:
            put_json({**asdict(report), "freed_bytes": report.freed_bytes})
        else:
            _show(report)
        for key, why in report.failed.items():
            note(f"{key} could not be deleted: {why}")
        return PROBLEM if report.n_failed else 0

    run(where, main)


def _show(report: GCReport) -> None:
    made = table("", "number", "stored", right=("number", "stored"))
    would = "would be " if report.dry_run else ""
    for name, number, size in (
        ("checkpoints kept", report.n_checkpoints, None),
        ("data found", report.n_chunks, report.chunk_bytes),
        (f"data {would}deleted", report.n_garbage, report.garbage_bytes),
        (f"deleted checkpoints {would}purged", report.n_purged, report.purged_bytes),
        (f"unfinished files {would}removed", report.n_unfinished, report.unfinished_bytes),
        ("objects that are not the store's", report.n_foreign, None),
    ):
        made.add_row(cell(name), cell(number), cell(None if size is None else nbytes(size)))
    made.add_row(cell(f"{would}freed", "bold"), None, cell(nbytes(report.freed_bytes), "bold"))
    put_table(made)
