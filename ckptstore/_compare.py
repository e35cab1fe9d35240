"""Whether ranges of two checkpoints hold the same bytes: decided by digests, read where these cannot tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ckptstore._download import Download, Wanted
from ckptstore._table import ChunkTable, StoredBuffer
from ckptstore._tasks import for_each, in_worker
from ckptstore._upload import Engine
from ckptstore.checkpoint import Manifest
from ckptstore.serializers import View

__all__ = ["Question", "Settlement", "Side"]


@dataclass(slots=True)
class Question:
    """Do some ranges differ? ``n_open`` counts those that only their bytes can tell."""

    differs: bool = False
    n_open: int = 0


class Side:
    """One of the two checkpoints."""

    def __init__(self, manifest: Manifest, table: ChunkTable, download: Download) -> None:
        self.manifest = manifest
        self.table = table
        self.download = download
        self._positions = {name: i for i, name in enumerate(manifest.fields)}

    def buffers(self, field: str) -> Sequence[StoredBuffer]:
        """Return the buffers of a field."""
        return self.table.buffers[self._positions[field]]

    def parts(self, place: Wanted, start: int, nbytes: int) -> Iterator[_Part]:
        """Yield the parts that a range of a buffer is stored in."""
        buffer = self.buffers(place.field)[place.buffer]
        if buffer.inline is not None:
            yield _Part(place, buffer.inline, None, start, nbytes)
            return
        at = 0
        for chunk, offset, length in buffer.segments:
            low, high = max(at, start), min(at + length, start + nbytes)
            if low < high:
                yield _Part(place, b"", chunk, offset + low - at, high - low)
            at += length


@dataclass(frozen=True, slots=True)
class _Part:
    """``nbytes`` bytes from ``offset`` of a chunk's raw bytes, or of ``inline``; ``place`` uses them."""

    place: Wanted
    inline: bytes
    chunk: int | None
    offset: int
    nbytes: int

    def cut(self, start: int, nbytes: int) -> _Part:
        return _Part(self.place, self.inline, self.chunk, self.offset + start, nbytes)

    def of(self, raw: memoryview | None) -> memoryview:
        return (memoryview(self.inline) if raw is None else raw)[self.offset : self.offset + self.nbytes]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Two parts of equal size that must be read to be compared, ``at`` bytes into what is asked about."""

    question: Question
    at: int
    a: _Part
    b: _Part
    view: View | None

    def differs(self, raw_a: memoryview | None, raw_b: memoryview | None) -> bool:
        x, y = self.a.of(raw_a), self.b.of(raw_b)
        if bytes(x) == bytes(y):
            return False
        if self.view is None or not self.view.has_gaps:
            return True
        end = self.at + len(x)
        for start, nbytes in self.view.runs():
            low, high = max(start, self.at) - self.at, min(start + nbytes, end) - self.at
            if low < high and x[low:high] != y[low:high]:
                return True
        return False


class Settlement:
    """Collects questions, answers what the chunk tables tell, and reads for the others in one go."""

    def __init__(self, engine: Engine, a: Side, b: Side) -> None:
        self.a = a
        self.b = b
        self._engine = engine
        self._open: dict[tuple[int | None, int | None], list[_Piece]] = {}

    def ask(
        self,
        question: Question,
        in_a: tuple[Wanted, int],
        in_b: tuple[Wanted, int],
        nbytes: int,
        view: View | None = None,
    ) -> None:
        """Ask whether ``nbytes`` bytes from a place of each side differ; with a view, only those of its elements."""
        if question.differs:
            return
        at = 0
        for a, b in _aligned(self.a.parts(*in_a, nbytes), self.b.parts(*in_b, nbytes)):
            verdict = self._verdict(a, b, exact=view is None or not view.has_gaps)
            if verdict:
                question.differs = True
                return
            if verdict is None:
                question.n_open += 1
                self._open.setdefault((a.chunk, b.chunk), []).append(_Piece(question, at, a, b, view))
            at += a.nbytes

    def _verdict(self, a: _Part, b: _Part, *, exact: bool) -> bool | None:
        """Tell whether two parts differ, None where their bytes must be looked at."""
        if a.chunk is None or b.chunk is None:
            return None
        x, y = self.a.table.chunks[a.chunk], self.b.table.chunks[b.chunk]
        if x.digest == y.digest:
            return False if a.offset == b.offset else None
        whole = a.nbytes == x.raw_bytes == y.raw_bytes
        return True if whole and exact else None

    async def settle(self) -> None:
        """Answer all questions. Raises as a load does for chunks that cannot be read."""
        config = self._engine.config
        limit = max(1, min(len(self._open), config.io_concurrency))
        await for_each(list(self._open.values()), self._look, limit)
        self._open.clear()

    async def _look(self, pieces: list[_Piece]) -> None:
        if all(piece.question.differs for piece in pieces):
            return
        first = pieces[0]
        cost = self._cost(self.a, first.a) + self._cost(self.b, first.b)
        await self._engine.budget.acquire(cost)
        try:
            raw_a = await self._raw(self.a, first.a)
            raw_b = await self._raw(self.b, first.b)
            await in_worker(self._engine.workers, _compare, pieces, raw_a, raw_b)
        finally:
            self._engine.budget.release(cost)

    def _cost(self, side: Side, part: _Part) -> int:
        if part.chunk is None:
            return 0
        chunk = side.table.chunks[part.chunk]
        return chunk.raw_bytes + chunk.stored_bytes

    async def _raw(self, side: Side, part: _Part) -> memoryview | None:
        return None if part.chunk is None else await side.download.chunk(part.chunk, part.place)


def _compare(pieces: Sequence[_Piece], raw_a: memoryview | None, raw_b: memoryview | None) -> None:
    for piece in pieces:
        if not piece.question.differs and piece.differs(raw_a, raw_b):
            piece.question.differs = True


def _aligned(a: Iterator[_Part], b: Iterator[_Part]) -> Iterator[tuple[_Part, _Part]]:
    """Cut two ranges of equal size into parts of equal sizes."""
    x, y = next(a, None), next(b, None)
    while x is not None and y is not None:
        nbytes = min(x.nbytes, y.nbytes)
        yield x.cut(0, nbytes), y.cut(0, nbytes)
        x = x.cut(nbytes, x.nbytes - nbytes) if x.nbytes > nbytes else next(a, None)
        y = y.cut(nbytes, y.nbytes - nbytes) if y.nbytes > nbytes else next(b, None)
