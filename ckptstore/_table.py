"""The chunk table: where the bytes of each field's buffers lie.

A field has a list of buffers; buffer 0 is its graph (see ``serializers``), the
others hold the bytes of its arrays, tensors and pickled parts. A buffer is
inline bytes, or segments ``(chunk, offset, length)`` that follow one another,
so that gaps and overlaps cannot be expressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import add, le
from typing import Any, NamedTuple

from ckptstore._keys import chunk_key
from ckptstore._schema import as_bytes, as_int, as_ints, as_list, as_map, as_str, fail
from ckptstore.checkpoint import CodecUse
from ckptstore.codecs import KNOWN_CODECS
from ckptstore.config import MAX_CHUNK_BYTES, Limits
from ckptstore.errors import LimitExceededError, ManifestCorruptError, UnsupportedVersionError

__all__ = ["ChunkEntry", "ChunkTable", "Cost", "Segment", "StoredBuffer"]

Segment = tuple[int, int, int]
"""Chunk number, offset in its raw bytes, length."""

DIGEST_BYTES = 32
NONCE_BYTES = 8
_CHUNK_KEYS = ("digests", "nonces", "codecs", "raw", "stored")


class ChunkEntry(NamedTuple):
    """One chunk: ``digest`` of its raw bytes, ``nonce`` of the save that stored it, codec and sizes."""

    digest: bytes
    nonce: bytes
    codec: str
    raw_bytes: int
    stored_bytes: int

    @property
    def key(self) -> str:
        return chunk_key(self.digest, self.nonce, self.codec)


class StoredBuffer(NamedTuple):
    """One buffer of a field: ``inline`` bytes, or ``segments`` of chunks."""

    nbytes: int
    inline: bytes | None
    segments: tuple[Segment, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a field takes. A chunk is counted in the first field that uses it."""

    raw_bytes: int
    stored_bytes: int
    new_bytes: int


@dataclass(frozen=True, slots=True)
class ChunkTable:
    """All chunks of a checkpoint and the buffers of each field, in the order of the summary's fields.

    ``nonce`` is that of the save itself: chunks that carry it are new.
    """

    nonce: bytes
    chunks: tuple[ChunkEntry, ...]
    buffers: tuple[tuple[StoredBuffer, ...], ...]

    def costs(self) -> list[Cost]:
        """Return what each field takes."""
        seen: set[int] = set()
        result = []
        for buffers in self.buffers:
            raw = sum([buffer.nbytes for buffer in buffers])
            inline = sum([buffer.nbytes for buffer in buffers if buffer.inline is not None])
            used = {chunk for buffer in buffers for chunk, _, _ in buffer.segments} - seen
            seen |= used
            entries = [self.chunks[chunk] for chunk in used]
            stored = sum([entry.stored_bytes for entry in entries])
            new = sum([entry.stored_bytes for entry in entries if entry.nonce == self.nonce])
            result.append(Cost(raw, inline + stored, inline + new))
        return result

    def codec_uses(self) -> dict[str, CodecUse]:
        """Return what each codec holds, by its id in order."""
        sizes: dict[str, list[int]] = {}
        for chunk in self.chunks:
            use = sizes.setdefault(chunk.codec, [0, 0, 0])
            use[0] += chunk.raw_bytes
            use[1] += chunk.stored_bytes
            use[2] += 1
        return {codec: CodecUse(*sizes[codec]) for codec in sorted(sizes)}

    def to_msgpack(self) -> dict[str, Any]:
        nonces: dict[bytes, int] = {self.nonce: 0}
        codecs: dict[str, int] = {}
        return {
            "chunks": {
                "digests": b"".join(chunk.digest for chunk in self.chunks),
                "nonces": [nonces.setdefault(chunk.nonce, len(nonces)) for chunk in self.chunks],
                "codecs": [codecs.setdefault(chunk.codec, len(codecs)) for chunk in self.chunks],
                "raw": [chunk.raw_bytes for chunk in self.chunks],
                "stored": [chunk.stored_bytes for chunk in self.chunks],
            },
            "nonces": list(nonces),
            "codecs": list(codecs),
            "buffers": [
                [
                    [number for segment in buffer.segments for number in segment]
                    if buffer.inline is None
                    else buffer.inline
                    for buffer in buffers
                ]
                for buffers in self.buffers
            ],
        }

    @classmethod
    def from_msgpack(cls, value: dict[str, Any], limits: Limits) -> ChunkTable:
        """Return the table. Raises ManifestCorruptError, UnsupportedVersionError or LimitExceededError."""
        nonces = [
            as_bytes(nonce, f"nonces[{i}]", NONCE_BYTES)
            for i, nonce in enumerate(as_list(value["nonces"], "nonces"))
        ]
        if not nonces or len(set(nonces)) != len(nonces):
            raise ManifestCorruptError("nonces: must be distinct, the save's own first")
        codecs = [as_str(codec, f"codecs[{i}]") for i, codec in enumerate(as_list(value["codecs"], "codecs"))]
        for codec in codecs:
            if codec not in KNOWN_CODECS:
                raise UnsupportedVersionError(
                    f"codec {codec[:40]!r} is not known to this release; upgrade ckptstore to read it"
                )
        chunks = _read_chunks(value["chunks"], nonces, codecs, limits)
        sizes, used = [chunk.raw_bytes for chunk in chunks], bytearray(len(chunks))
        buffers = tuple(
            _read_buffers(as_list(field, f"buffers[{f}]"), f"buffers[{f}]", sizes, used)
            for f, field in enumerate(as_list(value["buffers"], "buffers"))
        )
        if not all(used):
            raise ManifestCorruptError(f"chunks: number {used.index(0)} is used by no buffer")
        return cls(nonces[0], chunks, buffers)


def _read_chunks(
    value: Any, nonces: Sequence[bytes], codecs: Sequence[str], limits: Limits
) -> tuple[ChunkEntry, ...]:
    columns = as_map(value, "chunks", _CHUNK_KEYS)
    digests = as_bytes(columns["digests"], "chunks.digests")
    count, rest = divmod(len(digests), DIGEST_BYTES)
    if rest:
        raise ManifestCorruptError(f"chunks.digests: {len(digests)} bytes are not whole digests")
    if count > limits.max_chunks:
        raise LimitExceededError(
            f"{count} chunks, at most {limits.max_chunks} are allowed (Limits.max_chunks)"
        )
    numbers = {name: as_list(columns[name], f"chunks.{name}", count) for name in _CHUNK_KEYS[1:]}
    places = as_ints(numbers["nonces"], "chunks[{}].nonce", 0, len(nonces) - 1)
    kinds = as_ints(numbers["codecs"], "chunks[{}].codec", 0, len(codecs) - 1)
    raw = as_ints(numbers["raw"], "chunks[{}].raw", 1, MAX_CHUNK_BYTES)
    stored = as_ints(numbers["stored"], "chunks[{}].stored", 1, MAX_CHUNK_BYTES)
    chunks = tuple(
        map(
            ChunkEntry,
            [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)],
            [nonces[place] for place in places],
            [codecs[kind] for kind in kinds],
            raw,
            stored,
        )
    )
    for i, (_, _, codec, raw_bytes, stored_bytes) in enumerate(chunks):
        if stored_bytes > raw_bytes:
            as_int(stored_bytes, f"chunks[{i}].stored", 1, raw_bytes)
        if (codec == "raw") != (stored_bytes == raw_bytes):
            raise ManifestCorruptError(
                f"chunks[{i}]: codec {codec}, but {stored_bytes} of {raw_bytes} bytes stored"
            )
    if len({chunk.digest for chunk in chunks}) != count:
        raise ManifestCorruptError("chunks: a digest occurs twice")
    return chunks


def _read_buffers(
    items: list[Any], path: str, sizes: Sequence[int], used: bytearray
) -> tuple[StoredBuffer, ...]:
    """Return the buffers of a field whose chunks have ``sizes`` raw bytes, and mark what they use."""
    lists = [item for item in items if type(item) is not bytes]
    if not _are_segments(lists, sizes):
        items = [_as_buffer(item, f"{path}[{i}]", sizes) for i, item in enumerate(items)]
    for item in lists:
        used[item[0]] = 1
        for chunk in item[3::3]:
            used[chunk] = 1
    return tuple([_buffer(item) for item in items])


def _buffer(item: Any) -> StoredBuffer:
    if type(item) is bytes:
        return StoredBuffer(len(item), item, ())
    if len(item) == 3:  # nearly all
        return StoredBuffer(item[2], None, (tuple(item),))
    return StoredBuffer(sum(item[2::3]), None, tuple(zip(item[::3], item[1::3], item[2::3], strict=True)))


def _are_segments(lists: Sequence[Any], sizes: Sequence[int]) -> bool:
    """Tell whether all are lists of segments within their chunks; there may be a hundred thousand."""
    if set(map(type, lists)) - {list} or not all(lists) or {len(item) % 3 for item in lists} - {0}:
        return False
    numbers = list(chain.from_iterable(lists))
    if set(map(type, numbers)) - {int}:
        return False
    chunks, offsets, lengths = numbers[::3], numbers[1::3], numbers[2::3]
    return not lists or (
        min(chunks) >= 0
        and max(chunks) < len(sizes)
        and min(offsets) >= 0
        and min(lengths) > 0
        and all(map(le, map(add, offsets, lengths), map(sizes.__getitem__, chunks)))
    )


def _as_buffer(value: Any, path: str, sizes: Sequence[int]) -> Any:
    """Return a buffer. Raises ManifestCorruptError for what is none, and says which number of it is wrong."""
    if type(value) is bytes:
        return value
    if type(value) is not list or not value or len(value) % 3:
        fail(path, "bytes, or three numbers a segment,", value)
    for chunk, offset, length in zip(value[::3], value[1::3], value[2::3], strict=True):
        size = sizes[as_int(chunk, path, 0, len(sizes) - 1)]
        as_int(offset, path, 0, size - 1)
        as_int(length, path, 1, size - offset)
    return value
