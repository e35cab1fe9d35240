"""``ckptstore copy``: checkpoints from one store to another."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import click

from ckptstore._copy import Copying, Step
from ckptstore._fetch import kind_of
from ckptstore._listing import Entry, collections
from ckptstore._manifests import live_entries
from ckptstore.cli.addresses import Address, find, list_entries, text_of
from ckptstore.cli.app import DRY_RUN, JSON, PROBLEM, Where, checked_errors, note
from ckptstore.cli.output import nbytes, progress_bar, put_json, safe
from ckptstore.errors import CheckpointStoreError, ConfigError, StoreNotFoundError
from ckptstore.store import AsyncCheckpointStore

__all__ = ["copy"]

_WORDS = {
    "copied": "copied",
    "due": "would be copied",
    "there": "is there already",
    "older": "left out",
    "failed": "cannot be copied",
}


@click.command(short_help="Copy checkpoints to another store.")
@click.argument("words", nargs=-1, metavar="FROM TO [COLLECTION|CHECKPOINT]...")
@click.option(
    "--from-datastore", is_flag=True, help="Instead of FROM: the datastore Metaflow is configured for."
)
@click.option("--to-datastore", is_flag=True, help="Instead of TO: the datastore Metaflow is configured for.")
@click.option("--from-option", multiple=True, metavar="NAME=VALUE", help="An option of the backend of FROM.")
@click.option("--to-option", multiple=True, metavar="NAME=VALUE", help="An option of the backend of TO.")
@click.option(
    "--from-signing-key", metavar="FILE", help="The keys that manifests of FROM must be signed with."
)
@click.option("--to-signing-key", metavar="FILE", help="The key to sign the copies with.")
@click.option("--from-exclusive", is_flag=True, help="No other process uses FROM: for stores made so.")
@click.option("--to-exclusive", is_flag=True, help="No other process uses TO: for stores made so.")
@click.option(
    "--on-top",
    is_flag=True,
    help="Also what is left out because it would become the newest of TO.",
)
@DRY_RUN
@JSON
def copy(
    words: tuple[str, ...],
    from_datastore: bool,
    to_datastore: bool,
    from_option: tuple[str, ...],
    to_option: tuple[str, ...],
    from_signing_key: str | None,
    to_signing_key: str | None,
    from_exclusive: bool,
    to_exclusive: bool,
    on_top: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Copy checkpoints to another store: the whole store, collections, or single checkpoints.

    Oldest first, each all or nothing: its data is read and compared with its
    digests, and the manifest is written last. What is there already is not
    copied again, so a copy that was interrupted goes on. Label, run, metadata
    and time of creation stay; the parent too, if it was copied before. A copy
    sorts above all that TO has in the collection: so what is older than its
    newest is left out, unless --on-top says that it may become the newest.
    """
    given = list(words)
    if len(given) < 2 - from_datastore - to_datastore:
        raise click.UsageError("It takes FROM and TO, or --from-datastore or --to-datastore in their place.")
    source = Where(None if from_datastore else given.pop(0), from_option, from_signing_key, from_exclusive)
    target = Where(None if to_datastore else given.pop(0), to_option, to_signing_key, to_exclusive)
    with checked_errors():
        openings = source.opening(), target.opening()
        code = asyncio.run(_copy(openings, given, on_top=on_top, dry_run=dry_run, as_json=as_json))
    sys.exit(code)


async def _copy(
    openings: Sequence[tuple[Any, dict[str, Any]]],
    texts: Sequence[str],
    *,
    on_top: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    async with AsyncExitStack() as stack:

        async def opened(opening: tuple[Any, dict[str, Any]], *, create: bool) -> AsyncCheckpointStore:
            url, options = opening
            return await stack.enter_async_context(
                await AsyncCheckpointStore.open(url, create=create, **options)
            )

        source = await opened(openings[0], create=False)
        wanted = await _wanted(source, texts)
        target: AsyncCheckpointStore | None
        try:
            target = await opened(openings[1], create=not dry_run)
        except StoreNotFoundError:
            target = None
        if target is not None and target.store_id == source.store_id:
            raise ConfigError("FROM and TO are the same store")
        with progress_bar("copy") as progress:
            return await _copy_all(
                source, target, wanted, _Bar(progress), on_top=on_top, dry_run=dry_run, as_json=as_json
            )


async def _wanted(source: AsyncCheckpointStore, texts: Sequence[str]) -> dict[str, list[Entry]]:
    """Return what is to be copied, by collection."""
    if not texts:
        names = [name async for name in collections(source._engine.backend)]
        return {name: await live_entries(source._engine, name) for name in names}
    found: dict[str, dict[str, Entry]] = {}
    for address in map(Address.parse, texts):
        if address.which is None:
            listed = await list_entries(source, address.collection)
            fit = [entry for entry in listed if entry.tombstone is None]
        else:
            fit = [await find(source, address)]
        found.setdefault(address.collection, {}).update((entry.text, entry) for entry in fit)
    return {name: list(by_text.values()) for name, by_text in found.items()}


class _Bar:
    """Adds up what each checkpoint copies."""

    def __init__(self, show: Any) -> None:
        self._show = show
        self._done = self._total = 0

    def expect(self, nbytes: int) -> None:
        self._total += nbytes

    def add(self, nbytes: int) -> None:
        self._done += nbytes
        self._show(self._done, self._total)


async def _copy_all(
    source: AsyncCheckpointStore,
    target: AsyncCheckpointStore | None,
    wanted: dict[str, list[Entry]],
    bar: _Bar,
    *,
    on_top: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    copying = Copying(source, target, progress=bar.add)
    plans = [await copying.plan(entries, on_top=on_top) for entries in wanted.values()]
    for step in (step for plan in plans for step in plan if step.checkpoint and step.state == "due"):
        bar.expect(step.checkpoint.sizes.stored_bytes if step.checkpoint else 0)
    n_copied = n_sent = n_bad = n_older = 0
    for step in (step for plan in plans for step in plan):
        state: str = "failed" if step.state == "unreadable" else step.state
        sent = None
        if step.state == "due" and not dry_run:
            try:
                _, sent = await copying.copy(step)
                state = "copied"
                n_copied, n_sent = n_copied + 1, n_sent + sent
            except CheckpointStoreError as exc:
                if kind_of(exc) is None:
                    raise
                state, step.detail = "failed", str(exc)
        n_bad += state == "failed"
        n_older += state == "older"
        _tell(step, state, sent, as_json=as_json)
    if n_older:
        note(
            f"{n_older} left out: older than the newest of their collection in the target, or of another line, "
            "and a copy becomes the newest (--on-top copies them)"
        )
    if not as_json and not dry_run:
        click.echo(f"{n_copied} copied, {nbytes(n_sent)} sent")
    return PROBLEM if n_bad else 0


def _tell(step: Step, state: str, sent: int | None, *, as_json: bool) -> None:
    if as_json:
        put_json(
            {
                "checkpoint": f"{step.entry.collection}@{step.entry.text}",
                "state": state,
                "copy": None if step.copy is None else str(step.copy.ref),
                "sent_bytes": sent,
                "problem": step.detail,
            }
        )
    else:
        size = "" if sent is None else f", {nbytes(sent)} sent"
        click.echo(
            safe(f"{text_of(step.entry)}  {_WORDS[state]}{size}{f': {step.detail}' if step.detail else ''}")
        )
