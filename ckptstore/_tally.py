"""Which chunks a million checkpoints need, each once, in little memory."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import groupby
from typing import NamedTuple

from ckptstore._table import ChunkEntry
from ckptstore._tasks import in_worker
from ckptstore.codecs import KNOWN_CODECS

__all__ = ["ChunkTally", "Tallied"]

# Digest, nonce, codec, raw and stored length; the owner is not part of what makes a chunk the same.
_RECORD = struct.Struct(">32s8sBII")
_OWNER = struct.Struct(">I")
_SIZE = _RECORD.size + _OWNER.size
_SHARDS = 4096
_SLACK_BYTES = 2048
_QUICK_CHUNKS = 1000
_CODECS = tuple(sorted(KNOWN_CODECS))
_NUMBERS = {codec: number for number, codec in enumerate(_CODECS)}


class Tallied(NamedTuple):
    """One chunk, and the numbers of those who need it."""

    chunk: ChunkEntry
    owners: tuple[int, ...]


class ChunkTally:
    """Chunks and who needs them: 53 bytes for each pair, at most twice that while it grows.

    An owner is a number of the caller's. Thread-safe to add to.
    """

    def __init__(self) -> None:
        self._shards = [bytearray() for _ in range(_SHARDS)]
        self._unique_bytes = [0] * _SHARDS
        self._lock = threading.Lock()

    def add(self, owner: int, chunks: Iterable[ChunkEntry]) -> None:
        """Add what ``owner`` needs; what is there already costs nothing for long."""
        tail = _OWNER.pack(owner)
        with self._lock:
            for chunk in chunks:
                number = chunk.digest[0] << 4 | chunk.digest[1] >> 4
                shard = self._shards[number]
                shard += _RECORD.pack(
                    chunk.digest, chunk.nonce, _NUMBERS[chunk.codec], chunk.raw_bytes, chunk.stored_bytes
                )
                shard += tail
                if len(shard) > 2 * self._unique_bytes[number] + _SLACK_BYTES:
                    self._shards[number] = bytearray().join(_records(shard))
                    self._unique_bytes[number] = len(self._shards[number])

    async def add_all(self, workers: Executor, owner: int, chunks: Sequence[ChunkEntry]) -> None:
        """The same from an event loop: many are added on a worker thread."""
        if len(chunks) > _QUICK_CHUNKS:
            await in_worker(workers, self.add, owner, chunks)
        else:
            self.add(owner, chunks)

    def totals(self) -> tuple[int, int]:
        """Return how many chunks there are, and their stored bytes."""
        n = nbytes = 0
        for chunk, _ in self:
            n += 1
            nbytes += chunk.stored_bytes
        return n, nbytes

    def __iter__(self) -> Iterator[Tallied]:
        """Yield each chunk once, in the order of the digests."""
        for shard in self._shards:
            for record, same in groupby(sorted(_records(shard)), key=lambda item: item[: _RECORD.size]):
                digest, nonce, codec, raw_bytes, stored_bytes = _RECORD.unpack(record)
                owners = tuple(_OWNER.unpack_from(item, _RECORD.size)[0] for item in same)
                yield Tallied(ChunkEntry(digest, nonce, _CODECS[codec], raw_bytes, stored_bytes), owners)


def _records(shard: bytearray) -> set[bytes]:
    return {bytes(shard[at : at + _SIZE]) for at in range(0, len(shard), _SIZE)}
