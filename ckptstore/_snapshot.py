"""From the caller's values to bytes nobody else can change, laid out in chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from ckptstore._chunking import BlockSize, Layout, PlannedChunk, plan_layout
from ckptstore._copying import copy_all
from ckptstore._memory import Arena
from ckptstore._pause import collector_paused
from ckptstore.config import Limits, StoreConfig
from ckptstore.errors import LimitExceededError
from ckptstore.serializers import Block, DumpedField, Registry, dump

__all__ = ["Snapshot", "take_snapshot"]

_INLINE_TOTAL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The fields of one save and the buffers that hold their bytes.

    ``buffers`` are those of all fields, one after another: for each field its
    graph first, then its blocks. ``layout`` says which of them travel inline
    and how the others are cut into chunks.
    """

    fields: tuple[DumpedField, ...]
    buffers: tuple[Block, ...]
    layout: Layout

    @property
    def raw_bytes(self) -> int:
        return sum(len(buffer.view) for buffer in self.buffers)

    def pieces(self, chunk: PlannedChunk) -> list[memoryview]:
        """Return the parts of buffers that make up a chunk."""
        return [
            self.buffers[piece.block].view[piece.start : piece.start + piece.nbytes] for piece in chunk.pieces
        ]

    def is_private(self, chunk: PlannedChunk) -> bool:
        """True if nobody else can change the chunk's bytes."""
        return all(self.buffers[piece.block].private for piece in chunk.pieces)


def take_snapshot(
    values: Mapping[str, object],
    *,
    config: StoreConfig,
    registry: Registry,
    arena: Arena | None,
    workers: Executor,
) -> Snapshot:
    """Serialize the values; with an arena, also copy what the caller could change afterwards.

    Those of ``workers`` that are free help to copy; the caller may be one of them.

    Without one the snapshot reads the caller's memory, which must not change
    until the save is over; a chunk is then copied before it is digested, so
    that a value that changes all the same is torn but never unreadable.

    Raises UnserializableError and LimitExceededError. Nothing is changed or uploaded.
    """
    with collector_paused():
        fields, buffers, layout = _planned(values, config, registry)
    if arena is not None:
        buffers = _captured(buffers, arena, workers, config.encode_workers)
    return Snapshot(fields, tuple(buffers), layout)


def _planned(
    values: Mapping[str, object], config: StoreConfig, registry: Registry
) -> tuple[tuple[DumpedField, ...], list[Block], Layout]:
    fields = tuple(dump(values, limits=config.limits, registry=registry))
    buffers: list[Block] = []
    sizes: list[BlockSize] = []
    for group, field in enumerate(fields):
        for block in (Block(memoryview(field.graph), 1, True), *field.blocks):
            buffers.append(block)
            sizes.append(BlockSize(len(block.view), block.itemsize, group))
    _check_total(sizes, config.limits)
    layout = plan_layout(
        sizes,
        chunk_bytes=config.chunk_bytes,
        inline_bytes=config.inline_bytes,
        inline_total_bytes=_INLINE_TOTAL_BYTES,
    )
    return fields, buffers, layout


def _captured(blocks: Sequence[Block], arena: Arena, workers: Executor, n_threads: int) -> list[Block]:
    captured = [
        block if block.private else Block(arena.take(len(block.view)), block.itemsize, True)
        for block in blocks
    ]
    pairs = zip(captured, blocks, strict=True)
    copy_all(
        ((copied.view, block.view) for copied, block in pairs if copied is not block), workers, n_threads
    )
    return captured


def _check_total(sizes: Sequence[BlockSize], limits: Limits) -> None:
    total = sum(size.nbytes for size in sizes)
    if total > limits.max_total_bytes:
        raise LimitExceededError(
            f"the values take {total} bytes, at most {limits.max_total_bytes} are allowed (Limits.max_total_bytes)"
        )
