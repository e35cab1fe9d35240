"""How the buffers of a checkpoint are cut and packed into chunks, and what a chunk is called.

Two aims: a buffer that did not change between two checkpoints keeps its chunks
(they are found by digest and not stored again), and there are few of them,
because each costs a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from blake3 import blake3

__all__ = ["BlockSize", "Layout", "Piece", "PlannedChunk", "digest", "plan_layout"]

PLANE_WIDTHS = (2, 4, 8)
"""Element widths in bytes that are worth splitting into byte planes; all others count as bytes."""

PACK_MIN_BYTES = 256 * 1024
"""A pack or block this large shares no chunk with another field: one that changes leaves the other's alone."""


class BlockSize(NamedTuple):
    """The size of one buffer, the width of its elements in bytes, and the index of its field."""

    nbytes: int
    itemsize: int
    group: int


class Piece(NamedTuple):
    """``nbytes`` bytes of a block, from ``start`` on."""

    block: int
    start: int
    nbytes: int


class PlannedChunk(NamedTuple):
    """The pieces of a chunk in order, their total size, and their common element width (1, 2, 4 or 8)."""

    pieces: tuple[Piece, ...]
    nbytes: int
    itemsize: int


@dataclass(frozen=True, slots=True)
class Layout:
    """Which blocks travel inside the manifest, and the chunks that hold all others."""

    inline: tuple[int, ...]
    chunks: tuple[PlannedChunk, ...]


@dataclass(slots=True)
class _Pack:
    """An unfinished chunk of small blocks of one element width."""

    group: int = -1
    nbytes: int = 0
    pieces: list[Piece] = field(default_factory=list)


def plan_layout(
    blocks: Sequence[BlockSize], *, chunk_bytes: int, inline_bytes: int, inline_total_bytes: int
) -> Layout:
    """Return the chunks for ``blocks``. Pure, and the same for the same sizes.

    Empty blocks are inline, and so are blocks of up to ``inline_bytes`` bytes
    while all of them together stay within ``inline_total_bytes``. A block of at
    least an eighth of ``chunk_bytes`` has chunks of its own, cut every
    ``chunk_bytes`` from its start (rounded down to a whole number of elements).
    The rest are packed in order, several to a chunk of at most ``chunk_bytes``,
    only with others of the same element width.
    """
    inline: list[int] = []
    chunks: list[PlannedChunk] = []
    packs = {width: _Pack() for width in (1, *PLANE_WIDTHS)}
    inline_total = 0
    for index, block in enumerate(blocks):
        width = block.itemsize if block.itemsize in PLANE_WIDTHS else 1
        small = block.nbytes <= inline_bytes and inline_total + block.nbytes <= inline_total_bytes
        if block.nbytes == 0 or small:
            inline.append(index)
            inline_total += block.nbytes
        elif block.nbytes >= chunk_bytes // 8:
            chunks.extend(_cut(index, block, width=width, chunk_bytes=chunk_bytes))
        else:
            pack = packs[width]
            full = pack.nbytes + block.nbytes > chunk_bytes
            large = max(pack.nbytes, block.nbytes) >= PACK_MIN_BYTES
            if pack.pieces and (full or (large and pack.group != block.group)):
                chunks.append(_close(pack, width))
                pack = packs[width] = _Pack()
            pack.group = block.group
            pack.pieces.append(Piece(index, 0, block.nbytes))
            pack.nbytes += block.nbytes
    chunks.extend(_close(pack, width) for width, pack in packs.items() if pack.pieces)
    return Layout(tuple(inline), tuple(chunks))


def _cut(index: int, block: BlockSize, *, width: int, chunk_bytes: int) -> list[PlannedChunk]:
    step = chunk_bytes
    if 0 < block.itemsize <= chunk_bytes:
        step -= chunk_bytes % block.itemsize
    cut = []
    for start in range(0, block.nbytes, step):
        nbytes = min(step, block.nbytes - start)
        cut.append(PlannedChunk((Piece(index, start, nbytes),), nbytes, width))
    return cut


def _close(pack: _Pack, width: int) -> PlannedChunk:
    return PlannedChunk(tuple(pack.pieces), pack.nbytes, width)


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Return the 32-byte BLAKE3 digest of ``data``; releases the interpreter lock, starts no thread."""
    return blake3(data).digest()
