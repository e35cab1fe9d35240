"""Chunks by the million in little memory: those in use, and those that are not."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ckptstore._keys import chunk_key

__all__ = ["ChunkSet", "Garbage", "GarbageChunk"]

_SHARDS = 256
_ENTRY_BYTES = 40
_SLACK_BYTES = 64 * 1024
_GARBAGE = struct.Struct("<32s8sQB")


class ChunkSet:
    """Which (digest, nonce) pairs are in use: 40 bytes for each, sorted into shards by digest.

    Thread-safe to add to; what is looked up while others add may be missed.
    """

    def __init__(self) -> None:
        self._shards = [bytearray() for _ in range(_SHARDS)]
        self._unique_bytes = [0] * _SHARDS
        self._open_shard = -1
        self._open: frozenset[bytes] = frozenset()
        self._lock = threading.Lock()

    def update(self, chunks: Iterable[tuple[bytes, bytes]]) -> None:
        """Add chunks; those that are there already cost nothing for long."""
        with self._lock:
            for digest, nonce in chunks:
                number = digest[0]
                shard = self._shards[number]
                shard += digest
                shard += nonce
                # The same chunks come with every checkpoint: what was added twice is dropped now and then.
                if len(shard) > 2 * self._unique_bytes[number] + _SLACK_BYTES:
                    self._shards[number] = bytearray().join(set(_entries(shard)))
                    self._unique_bytes[number] = len(self._shards[number])
            self._open_shard = -1

    def __contains__(self, chunk: tuple[bytes, bytes]) -> bool:
        """Quick when asked in the order of the digests: one shard at a time is made searchable."""
        digest, nonce = chunk
        if digest[0] != self._open_shard:
            self._open_shard = digest[0]
            self._open = frozenset(_entries(self._shards[digest[0]]))
        return digest + nonce in self._open


class GarbageChunk(NamedTuple):
    """One chunk that nobody needs."""

    digest: bytes
    nonce: bytes
    codec: str
    nbytes: int

    @property
    def key(self) -> str:
        return chunk_key(self.digest, self.nonce, self.codec)


class Garbage:
    """Chunks that nobody needs, in the order of their keys: about 55 bytes for each."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self.n_chunks = 0
        self.n_bytes = 0

    def add(self, digest: bytes, nonce: bytes, codec: str, nbytes: int) -> None:
        """Add a chunk that takes ``nbytes`` as stored."""
        text = codec.encode()
        self._packed += _GARBAGE.pack(digest, nonce, nbytes, len(text))
        self._packed += text
        self.n_chunks += 1
        self.n_bytes += nbytes

    def batches(self, n_chunks: int) -> Iterator[list[GarbageChunk]]:
        """Yield the chunks in their order, at most ``n_chunks`` at once."""
        batch: list[GarbageChunk] = []
        at = 0
        while at < len(self._packed):
            digest, nonce, nbytes, n_codec = _GARBAGE.unpack_from(self._packed, at)
            at += _GARBAGE.size
            batch.append(GarbageChunk(digest, nonce, self._packed[at : at + n_codec].decode(), nbytes))
            at += n_codec
            if len(batch) == n_chunks:
                yield batch
                batch = []
        if batch:
            yield batch


def _entries(shard: bytearray) -> Iterator[bytes]:
    return (bytes(shard[at : at + _ENTRY_BYTES]) for at in range(0, len(shard), _ENTRY_BYTES))
