"""Sets of chunks small enough for millions: 40 bytes for each, sorted into shards by digest."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["ChunkSet", "KeyList"]

_SHARDS = 256
_DIGEST_BYTES = 32
_ENTRY_BYTES = 40
_SLACK_BYTES = 64 * 1024


class ChunkSet:
    """Which (digest, nonce) pairs are in use; adding one again costs nothing for long."""

    def __init__(self) -> None:
        self._shards = [bytearray() for _ in range(_SHARDS)]
        self._unique_bytes = [0] * _SHARDS
        self._open_shard = -1
        self._open: frozenset[bytes] = frozenset()

    def add(self, digest: bytes, nonce: bytes) -> None:
        """Add a chunk."""
        number = digest[0]
        shard = self._shards[number]
        shard += digest
        shard += nonce
        # The same chunks come with every checkpoint: what was added twice is dropped now and then.
        if len(shard) > 2 * self._unique_bytes[number] + _SLACK_BYTES:
            self._shards[number] = bytearray().join(set(_entries(shard)))
            self._unique_bytes[number] = len(self._shards[number])
        if number == self._open_shard:
            self._open_shard = -1

    def __contains__(self, chunk: tuple[bytes, bytes]) -> bool:
        """Quick when asked in the order of the digests: one shard at a time is made searchable."""
        digest, nonce = chunk
        if digest[0] != self._open_shard:
            self._open_shard = digest[0]
            self._open = frozenset(_entries(self._shards[digest[0]]))
        return digest + nonce in self._open

    def __len__(self) -> int:
        return sum(len(set(_entries(shard))) for shard in self._shards)


class KeyList:
    """Keys of one kind, in order, packed into one piece of memory."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._n = 0

    def append(self, key: str) -> None:
        """Add a key."""
        self._packed += key.encode()
        self._packed += b"\n"
        self._n += 1

    def batches(self, n_keys: int) -> Iterator[list[str]]:
        """Yield the keys in their order, at most ``n_keys`` at once."""
        batch: list[str] = []
        start = 0
        while (end := self._packed.find(b"\n", start)) >= 0:
            batch.append(self._packed[start:end].decode())
            start = end + 1
            if len(batch) == n_keys:
                yield batch
                batch = []
        if batch:
            yield batch

    def __len__(self) -> int:
        return self._n


def _entries(shard: bytearray) -> Iterator[bytes]:
    return (bytes(shard[at : at + _ENTRY_BYTES]) for at in range(0, len(shard), _ENTRY_BYTES))
