"""What the commands show of checkpoints: one row for people, one object for programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from ckptstore._fetch import kind_of
from ckptstore._listing import Entry
from ckptstore._summaries import read_summary_of
from ckptstore._tasks import for_each
from ckptstore.checkpoint import Checkpoint, FieldInfo
from ckptstore.cli.addresses import source_of, text_of
from ckptstore.cli.output import cell, nbytes, table, when
from ckptstore.errors import CheckpointNotFoundError, CheckpointStoreError
from ckptstore.store import AsyncCheckpointStore

__all__ = ["Row", "as_table", "checkpoint_json", "field_json", "read_rows"]


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint of a listing; ``checkpoint`` None: its manifest cannot be read, ``problem`` says why."""

    entry: Entry
    checkpoint: Checkpoint | None
    problem: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            **checkpoint_json(self.entry, self.checkpoint),
            "pinned": self.entry.pinned,
            "deleted": self.entry.tombstone is not None,
            "problem": self.problem,
        }


def checkpoint_json(entry: Entry, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """Return what a checkpoint's name says, and what its manifest does; null what could not be read."""
    sizes = None if checkpoint is None else checkpoint.sizes
    return {
        "checkpoint": f"{entry.collection}@{entry.text}",
        "collection": entry.collection,
        "name": entry.text,
        "id": entry.name.id,
        "label": entry.name.label,
        "run": entry.name.run,
        "epoch": entry.name.epoch,
        "seq": entry.name.seq,
        "created": None if checkpoint is None else checkpoint.created.isoformat(),
        "raw_bytes": None if sizes is None else sizes.raw_bytes,
        "stored_bytes": None if sizes is None else sizes.stored_bytes,
        "new_bytes": None if sizes is None else sizes.new_bytes,
        "n_chunks": None if sizes is None else sizes.n_chunks,
        "fields": None if checkpoint is None else list(checkpoint.fields),
    }


def field_json(field: FieldInfo) -> dict[str, Any]:
    return {
        "name": field.name,
        "type": field.type_name,
        "kind": field.kind,
        "raw_bytes": field.raw_bytes,
        "stored_bytes": field.stored_bytes,
        "new_bytes": field.new_bytes,
        "globals": list(field.globals),
        "untrusted": list(field.untrusted),
        "arrays": [
            {
                "path": leaf.path,
                "kind": leaf.kind,
                "dtype": leaf.dtype,
                "shape": list(leaf.shape),
                "nbytes": leaf.nbytes,
            }
            for leaf in field.leaves
        ],
    }


async def read_rows(store: AsyncCheckpointStore, entries: Sequence[Entry]) -> list[Row]:
    """Read the summaries of listed checkpoints, several at once; those that are gone meanwhile are left out."""
    found: dict[int, Row] = {}

    async def read(item: tuple[int, Entry]) -> None:
        number, entry = item
        try:
            manifest = await read_summary_of(store._engine, source_of(store, entry))
        except CheckpointNotFoundError:
            return
        except CheckpointStoreError as exc:
            if kind_of(exc) is None:
                raise
            found[number] = Row(entry, None, str(exc))
        else:
            found[number] = Row(entry, manifest.checkpoint)

    await for_each(list(enumerate(entries)), read, store._engine.config.io_concurrency)
    return [found[number] for number in sorted(found)]


def as_table(rows: Sequence[Row]) -> Table:
    """Return the checkpoints for people."""
    numbers = ("raw", "stored", "new")
    made = table("checkpoint", "label", "run", "created (UTC)", *numbers, "", right=numbers)
    for row in rows:
        entry, checkpoint = row.entry, row.checkpoint
        states = [
            *(["pinned"] if entry.pinned else []),
            *(["deleted"] if entry.tombstone is not None else []),
            *(["damaged"] if row.problem is not None else []),
        ]
        sizes = ("", "", "")
        if checkpoint is not None:
            told = checkpoint.sizes
            sizes = (nbytes(told.raw_bytes), nbytes(told.stored_bytes), nbytes(told.new_bytes))
        made.add_row(
            cell(text_of(entry)),
            cell(entry.name.label),
            cell(entry.name.run),
            cell(None if checkpoint is None else when(checkpoint.created_ns)),
            *map(cell, sizes),
            cell(", ".join(states), "bold red" if row.problem is not None else ""),
        )
    return made
