"""The chunk table: where the bytes of each field's buffers lie.

A field has a list of buffers; buffer 0 is its graph (see ``serializers``), the
others hold the bytes of its arrays, tensors and pickled parts. A buffer is
inline bytes, or segments ``(chunk, offset, length)`` that follow one another,
so that gaps and overlaps cannot be expressed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ckptstore._keys import chunk_key
from ckptstore._schema import as_bytes, as_int, as_list, as_map, as_str, fail
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


@dataclass(frozen=True, slots=True)
class ChunkEntry:
    """One chunk: ``digest`` of its raw bytes, ``nonce`` of the save that stored it, codec and sizes."""

    digest: bytes
    nonce: bytes
    codec: str
    raw_bytes: int
    stored_bytes: int

    @property
    def key(self) -> str:
        return chunk_key(self.digest, self.nonce, self.codec)


@dataclass(frozen=True, slots=True)
class StoredBuffer:
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
        seen = bytearray(len(self.chunks))
        result = []
        for buffers in self.buffers:
            raw = stored = new = 0
            for buffer in buffers:
                raw += buffer.nbytes
                if buffer.inline is not None:
                    stored += buffer.nbytes
                    new += buffer.nbytes
                for chunk, _, _ in buffer.segments:
                    if not seen[chunk]:
                        seen[chunk] = 1
                        stored += self.chunks[chunk].stored_bytes
                        if self.chunks[chunk].nonce == self.nonce:
                            new += self.chunks[chunk].stored_bytes
            result.append(Cost(raw, stored, new))
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
        used = bytearray(len(chunks))
        buffers = tuple(
            tuple(
                _read_buffer(item, f"buffers[{f}][{b}]", chunks, used)
                for b, item in enumerate(as_list(field, f"buffers[{f}]"))
            )
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
    lists = [as_list(columns[name], f"chunks.{name}", count) for name in _CHUNK_KEYS[1:]]
    chunks = []
    for i, (nonce, codec, raw, stored) in enumerate(zip(*lists, strict=True)):
        path = f"chunks[{i}]"
        raw_bytes = as_int(raw, path + ".raw", 1, MAX_CHUNK_BYTES)
        chunk = ChunkEntry(
            digests[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES],
            nonces[as_int(nonce, path + ".nonce", 0, len(nonces) - 1)],
            codecs[as_int(codec, path + ".codec", 0, len(codecs) - 1)],
            raw_bytes,
            as_int(stored, path + ".stored", 1, raw_bytes),
        )
        if (chunk.codec == "raw") != (chunk.stored_bytes == raw_bytes):
            raise ManifestCorruptError(
                f"{path}: codec {chunk.codec}, but {chunk.stored_bytes} of {raw_bytes} bytes stored"
            )
        chunks.append(chunk)
    if len({chunk.digest for chunk in chunks}) != count:
        raise ManifestCorruptError("chunks: a digest occurs twice")
    return tuple(chunks)


def _read_buffer(value: Any, path: str, chunks: Sequence[ChunkEntry], used: bytearray) -> StoredBuffer:
    if type(value) is bytes:
        return StoredBuffer(len(value), value, ())
    if type(value) is not list or not value or len(value) % 3:
        fail(path, "bytes, or three numbers a segment,", value)
    segments: list[Segment] = []
    total = 0
    for i in range(0, len(value), 3):
        chunk = as_int(value[i], path, 0, len(chunks) - 1)
        raw_bytes = chunks[chunk].raw_bytes
        offset = as_int(value[i + 1], path, 0, raw_bytes - 1)
        length = as_int(value[i + 2], path, 1, raw_bytes - offset)
        used[chunk] = 1
        segments.append((chunk, offset, length))
        total += length
    return StoredBuffer(total, None, tuple(segments))
