"""The commands that only look: ``ls``, ``inspect``, ``diff``, ``du``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from ckptstore._listing import collections
from ckptstore._summaries import read_with_codecs
from ckptstore._usage import Usage, measure
from ckptstore.checkpoint import CodecUse, Manifest
from ckptstore.cli.addresses import Address, find, list_entries, manifest_of, source_of
from ckptstore.cli.app import JSON, PROBLEM, Where, note, on_store, run
from ckptstore.cli.output import cell, nbytes, put_json, put_table, safe, table, when
from ckptstore.cli.rows import Row, as_table, checkpoint_json, field_json, read_rows
from ckptstore.diff import Diff, FieldDiff
from ckptstore.errors import CheckpointNotFoundError, ConfigError
from ckptstore.store import AsyncCheckpointStore

__all__ = ["diff", "du", "inspect", "ls"]

_MAX_ARRAYS = 20


@click.command(short_help="List collections, or the checkpoints of one.")
@on_store("[COLLECTION]")
@click.option("--label", help="Only checkpoints with this label.")
@click.option("--run", "run_name", metavar="RUN", help="Only checkpoints that this run has saved.")
@click.option("--deleted", is_flag=True, help="Deleted ones too, that can still be brought back.")
@click.option("-n", "limit", type=click.IntRange(1), help="Only the newest so many.")
@JSON
def ls(
    where: Where,
    addresses: tuple[str, ...],
    label: str | None,
    run_name: str | None,
    deleted: bool,
    limit: int | None,
    as_json: bool,
) -> None:
    """List the collections of a store, or the checkpoints of one, newest first.

    A COLLECTION that ends in '/' lists the collections whose names start so.
    Damaged manifests are listed as such, with exit code 1.
    """

    async def main(store: AsyncCheckpointStore) -> int:
        start = addresses[0] if addresses else ""
        if start and not start.endswith("/"):
            address = Address.parse(start)
            if address.which is not None:
                raise ConfigError(f"ls takes the name of a collection; ckptstore inspect shows {start}")
            fit = [
                entry
                for entry in await list_entries(store, address.collection)
                if entry.matches(label, run_name) and (deleted or entry.tombstone is None)
            ]
            rows = await read_rows(store, fit[:limit])
            if as_json:
                for row in rows:
                    put_json(row.as_json())
            else:
                put_table(as_table(rows))
            return _tell_problems(rows)
        if label is not None or run_name is not None or deleted or limit is not None:
            raise ConfigError("--label, --run, --deleted and -n go with the name of a collection")
        return await _list_collections(store, start, as_json=as_json)

    run(where, main)


async def _list_collections(store: AsyncCheckpointStore, start: str, *, as_json: bool) -> int:
    made = table("collection", "checkpoints", "newest (UTC)", "label", "raw", right=("checkpoints", "raw"))
    newest: list[Row] = []
    async for name in collections(store._engine.backend):
        if not name.startswith(start):
            continue
        try:
            listed = await list_entries(store, name)
        except CheckpointNotFoundError:
            continue
        live = [entry for entry in listed if entry.tombstone is None]
        rows = await read_rows(store, live[:1])
        newest += rows
        if as_json:
            put_json(
                {
                    "collection": name,
                    "n_checkpoints": len(live),
                    "n_deleted": len(listed) - len(live),
                    "n_pinned": sum(entry.pinned for entry in live),
                    "newest": rows[0].as_json() if rows else None,
                }
            )
        else:
            checkpoint = rows[0].checkpoint if rows else None
            made.add_row(
                cell(name),
                cell(len(live)),
                cell(when(checkpoint.created_ns) if checkpoint else "damaged" if rows else None),
                cell(rows[0].entry.name.label if rows else None),
                cell(nbytes(checkpoint.sizes.raw_bytes) if checkpoint else None),
            )
    if not as_json:
        put_table(made)
    return _tell_problems(newest)


def _tell_problems(rows: list[Row]) -> int:
    problems = [row.problem for row in rows if row.problem is not None]
    for problem in problems:
        note(problem)
    return PROBLEM if problems else 0


@click.command(short_help="Show what a checkpoint says of itself.")
@on_store("CHECKPOINT", least=1)
@click.option("--arrays", is_flag=True, help="All arrays and tensors, however many.")
@JSON
def inspect(where: Where, addresses: tuple[str, ...], arrays: bool, as_json: bool) -> None:
    """Show what a checkpoint says of itself: fields, types, sizes, metadata, lineage. No data is read."""

    async def main(store: AsyncCheckpointStore) -> None:
        entry = await find(store, Address.parse(addresses[0]))
        manifest = await read_with_codecs(store._engine, source_of(store, entry))
        checkpoint, codecs = manifest.checkpoint, manifest.codecs or {}
        if as_json:
            put_json(
                {
                    **Row(entry, checkpoint).as_json(),
                    "digest": checkpoint.ref.digest,
                    "store_id": checkpoint.ref.store_id,
                    "signed_by": manifest.signed_by,
                    "parent": None if checkpoint.parent is None else checkpoint.parent.to_dict(),
                    "metadata": checkpoint.metadata,
                    "attributes": checkpoint.attributes,
                    "fields": [field_json(field) for field in manifest.fields.values()],
                    "codecs": [{"codec": codec, **asdict(use)} for codec, use in codecs.items()],
                }
            )
        else:
            _show(manifest, pinned=entry.pinned, all_arrays=arrays)

    run(where, main)


def _show(manifest: Manifest, *, pinned: bool, all_arrays: bool) -> None:
    checkpoint = manifest.checkpoint
    sizes = checkpoint.sizes
    facts: list[tuple[str, object]] = [
        ("checkpoint", checkpoint.ref),
        ("label", checkpoint.label),
        ("run", checkpoint.run),
        ("created", f"{when(checkpoint.created_ns)} UTC"),
        ("parent", checkpoint.parent),
        ("pinned", "yes" if pinned else None),
        ("signed by", manifest.signed_by),
        ("raw", nbytes(sizes.raw_bytes)),
        ("stored", f"{nbytes(sizes.stored_bytes)}, {nbytes(sizes.new_bytes)} of them new"),
        ("chunks", sizes.n_chunks),
        *((f"codec {codec}", _codec_text(use)) for codec, use in (manifest.codecs or {}).items()),
        *((f"metadata {name}", repr(value)) for name, value in checkpoint.metadata.items()),
        *((f"attribute {name}", repr(value)) for name, value in checkpoint.attributes.items()),
    ]
    made = table("", "")
    made.show_header = False
    for name, value in facts:
        if value is not None:
            made.add_row(cell(name, "bold"), cell(value))
    put_table(made)
    click.echo()
    made = table("field", "type", "shape", "raw", "stored", "", right=("raw", "stored"))
    for field in manifest.fields.values():
        lacking = f"needs trust: {', '.join(field.untrusted)}" if field.needs_trust else None
        made.add_row(
            cell(field.name, "bold"),
            cell(field.type_name),
            None,
            cell(nbytes(field.raw_bytes)),
            cell(nbytes(field.stored_bytes)),
            cell(lacking, "yellow"),
        )
        shown = field.leaves if all_arrays else field.leaves[:_MAX_ARRAYS]
        for leaf in shown:
            made.add_row(
                cell(f"  {leaf.path}"), cell(leaf.dtype), cell(leaf.shape), cell(nbytes(leaf.nbytes))
            )
        if len(field.leaves) > len(shown):
            made.add_row(cell(f"  and {len(field.leaves) - len(shown)} more (--arrays)"))
    put_table(made)


def _codec_text(use: CodecUse) -> str:
    return f"{nbytes(use.raw_bytes)} stored as {nbytes(use.stored_bytes)}, chunks: {use.n_chunks}"


@click.command(short_help="Show what changed between two checkpoints.")
@on_store("OLDER [NEWER]", least=1, most=2)
@JSON
def diff(where: Where, addresses: tuple[str, ...], as_json: bool) -> None:
    """Show what changed from one checkpoint to another; given one, from the one before it to that.

    Data is read only where digests cannot tell; nothing of a pickle runs.
    """

    async def main(store: AsyncCheckpointStore) -> None:
        second = await find(store, Address.parse(addresses[-1]))
        if len(addresses) == 2:
            first = await find(store, Address.parse(addresses[0]))
        else:
            listed = await list_entries(store, second.collection)
            older = [entry for entry in listed if entry.tombstone is None and entry.text > second.text]
            if not older:
                raise CheckpointNotFoundError(f"there is no checkpoint before {addresses[0]}: name two")
            first = older[0]
        before, after = [(await manifest_of(store, entry)).checkpoint for entry in (first, second)]
        found = await store.diff(before, after)
        if as_json:
            put_json(
                {
                    "before": checkpoint_json(first, before),
                    "after": checkpoint_json(second, after),
                    **_diff_json(found),
                }
            )
        else:
            click.echo(safe(str(found)))

    run(where, main)


def _diff_json(found: Diff) -> dict[str, Any]:
    return {
        "same": found.same,
        "fields": [_field_diff_json(field) for field in found.fields.values()],
        "metadata": [
            {"name": one.name, "state": one.state, "before": one.before, "after": one.after}
            for one in found.metadata.values()
        ],
        "shared_bytes": found.shared_bytes,
    }


def _field_diff_json(field: FieldDiff) -> dict[str, Any]:
    return {
        "name": field.name,
        "state": field.state,
        "before_bytes": None if field.before is None else field.before.raw_bytes,
        "after_bytes": None if field.after is None else field.after.raw_bytes,
        "arrays": [{"path": leaf.path, "state": leaf.state} for leaf in field.leaves if leaf.state != "same"],
    }


@click.command(short_help="Show what collections take, and what deleting them would free.")
@on_store("[COLLECTION]")
@JSON
def du(where: Where, addresses: tuple[str, ...], as_json: bool) -> None:
    """Show what each collection takes: values, stored bytes, and what deleting it would free.

    Every manifest of the store is read. What was deleted and not yet collected
    is left out: 'ckptstore gc --dry-run' shows that.
    """

    async def main(store: AsyncCheckpointStore) -> int:
        wanted = Address.parse(addresses[0]).collection if addresses else None
        found, total, unread = await measure(store._engine, store.store_id)
        shown = [usage for usage in found if wanted in (None, usage.collection)]
        if wanted is not None and not shown:
            raise CheckpointNotFoundError(f"collection {wanted!r} of {store.url} has no checkpoint")
        if wanted is None:
            shown.append(total)
        numbers = ("checkpoints", "raw", "stored", "unique", "ratio")
        made = table("collection", *numbers, right=numbers)
        for usage in shown:
            if as_json:
                put_json(_usage_json(usage))
            else:
                made.add_row(
                    cell(usage.collection) if usage.collection else cell("all", "bold"),
                    cell(usage.n_checkpoints),
                    cell(nbytes(usage.raw_bytes)),
                    cell(nbytes(usage.stored_bytes)),
                    cell(nbytes(usage.unique_bytes)),
                    cell(None if usage.ratio is None else f"{usage.ratio:.2f}"),
                )
        if not as_json:
            put_table(made)
        for problem in unread:
            note(problem)
        return PROBLEM if unread else 0

    run(where, main)


def _usage_json(usage: Usage) -> dict[str, Any]:
    return {
        "collection": usage.collection or None,
        "n_checkpoints": usage.n_checkpoints,
        "raw_bytes": usage.raw_bytes,
        "stored_bytes": usage.stored_bytes,
        "unique_bytes": usage.unique_bytes,
        "ratio": usage.ratio,
    }
