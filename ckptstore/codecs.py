"""Chunk codecs: how the raw bytes of a chunk are stored, chosen by a sample of them.

The codec id says how to read the stored bytes; the raw length comes from the
manifest. Stored bytes are always fewer than the raw ones, except under ``raw``.
A *frame* is exactly one zstd frame (RFC 8878) that declares the size of its
content, uses no dictionary and a window of at most 64 MiB. W, the element
width, is 2, 4 or 8; n = raw length // W, which must be above 0; plane i is byte
i of each of the n elements, in order; the tail is the raw length % W bytes that
are left. Integers are little-endian.

    raw         the raw bytes
    zstd        one frame, content: the raw bytes
    shuffleW    one frame, content: plane 0 … plane W-1, tail
    planesW     W x u32      stored length of each plane
                plane 0 … plane W-1
                tail
                A plane of stored length n is raw; a shorter one is one frame
                with content size n; 0 and longer ones are invalid.

Nothing follows. Floating-point numbers have planes (exponents) that Huffman
coding shrinks and planes (mantissas) that nothing shrinks; integers have planes
that are nearly constant. The figures behind the choices are in ``docs/benchmarks.md``.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Literal

import zstandard

from ckptstore._chunking import PLANE_WIDTHS
from ckptstore.backends.base import Buffer
from ckptstore.errors import ChunkCorruptError

__all__ = ["KNOWN_CODECS", "REDUNDANT", "ChunkCoder", "decode_frame"]

KNOWN_CODECS = frozenset(
    [
        "raw",
        "zstd",
        *(f"planes{width}" for width in PLANE_WIDTHS),
        *(f"shuffle{width}" for width in PLANE_WIDTHS),
    ]
)
"""Every codec id that ``decode`` knows."""

MAX_WINDOW_BYTES = 64 * 1024 * 1024
_MAGIC = b"\x28\xb5\x2f\xfd"

_SAMPLE_BYTES = 64 * 1024
_WORTH = 0.9
"""A sample that stays above this part of its size is not worth the time."""
REDUNDANT = 0.6
"""What shrinks below this part is redundant, and suggests repetitions, which only the match finder of level 1 sees."""


class _Contexts(threading.local):
    """The zstd contexts and the scratch memory of one thread: contexts must not be shared."""

    def __init__(self) -> None:
        # Huffman only: a match finder that finds nothing in a small table costs almost nothing.
        params = zstandard.ZstdCompressionParameters(
            strategy=zstandard.STRATEGY_FAST, window_log=17, hash_log=6, chain_log=6, min_match=7
        )
        self.huffman = zstandard.ZstdCompressor(compression_params=params)
        self.matching = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor()
        self._scratch = bytearray()

    def scratch(self, nbytes: int) -> memoryview:
        """Return reused memory: fresh pages cost several times the copy into them."""
        if len(self._scratch) < nbytes:
            self._scratch = bytearray(nbytes)
        return memoryview(self._scratch)[:nbytes]


class ChunkCoder:
    """Encodes and decodes chunks; one instance serves all threads.

    ``codec``: ``raw`` stores every chunk as it is; otherwise a sample of each
    chunk decides. Decoding understands every codec either way. The heavy work releases
    the interpreter lock. numpy makes the planes fast; without it the stored
    bytes are the same.
    """

    def __init__(self, codec: Literal["auto", "planes", "raw"] = "planes") -> None:
        self._raw_only = codec == "raw"
        self._local = _Contexts()

    def encode(self, raw: memoryview, *, itemsize: int, only_redundant: bool = False) -> tuple[str, Buffer]:
        """Return the codec id and the stored bytes of a chunk.

        ``itemsize`` is the width of its elements in bytes; widths other than 2,
        4 and 8 are taken as bytes. ``only_redundant``: leave alone what a sample
        shows to be far from redundant. ``raw`` itself is returned under ``raw``.
        """
        if self._raw_only or len(raw) == 0:
            return "raw", raw
        width = itemsize if itemsize in PLANE_WIDTHS and len(raw) >= itemsize else 1
        if width == 1:
            codec_id, stored = self._encode_bytes(raw, REDUNDANT if only_redundant else _WORTH)
        else:
            codec_id, stored = self._encode_elements(raw, width, only_redundant=only_redundant)
        return ("raw", raw) if len(stored) >= len(raw) else (codec_id, stored)

    def _encode_bytes(self, raw: memoryview, worth: float) -> tuple[str, Buffer]:
        matching = self._local.matching
        if len(raw) > 2 * _SAMPLE_BYTES:
            sample = _sample(raw, _SAMPLE_BYTES)
            if len(matching.compress(sample)) > worth * len(sample):
                return "raw", raw
        return "zstd", matching.compress(raw)

    def _encode_elements(self, raw: memoryview, width: int, *, only_redundant: bool) -> tuple[str, Buffer]:
        local = self._local
        sample = _sample(raw, width * _SAMPLE_BYTES, align=width)
        n_sample = len(sample) // width
        planes = _shuffled(sample, width)
        sizes = [len(local.huffman.compress(planes[i * n_sample :][:n_sample])) for i in range(width)]
        shrinks = [size <= _WORTH * n_sample for size in sizes]
        by_planes = sum(size if small else n_sample for size, small in zip(sizes, shrinks, strict=True))
        redundant = by_planes <= REDUNDANT * len(planes)
        if redundant:
            shuffled, plain = len(local.matching.compress(planes)), len(local.matching.compress(sample))
            if shuffled <= min(plain, by_planes * _WORTH):
                return f"shuffle{width}", local.matching.compress(_shuffled(raw, width))
            if plain <= by_planes * _WORTH:
                return "zstd", local.matching.compress(raw)
        if not any(shrinks) or (only_redundant and not redundant):
            return "raw", raw
        return f"planes{width}", self._encode_planes(raw, width, shrinks)

    def _encode_planes(self, raw: memoryview, width: int, shrinks: Sequence[bool]) -> Buffer:
        n = len(raw) // width
        frames: list[bytes | None] = [None] * width
        plane = self._local.scratch(n)
        for i in range(width):
            if shrinks[i]:
                _take_plane(raw, width, i, plane)
                frame = self._local.huffman.compress(plane)
                frames[i] = frame if len(frame) < n else None
        sizes = [n if frame is None else len(frame) for frame in frames]
        # Sizes first: raw planes then go straight to their place, and nothing is joined.
        stored = _allocate(4 * width + sum(sizes) + len(raw) % width)
        struct.pack_into(f"<{width}I", stored, 0, *sizes)
        at = 4 * width
        for i, (size, known) in enumerate(zip(sizes, frames, strict=True)):
            if known is None:
                _take_plane(raw, width, i, stored[at : at + size])
            else:
                stored[at : at + size] = known
            at += size
        stored[at:] = raw[n * width :]
        return stored

    def decode(self, codec_id: str, stored: Buffer, into: memoryview) -> None:
        """Fill ``into`` with the raw bytes of a chunk.

        ``into`` is writable and exactly as long as the chunk. What is allocated
        on the way is at most as much again.

        Raises ChunkCorruptError with a short reason; ``into`` is then undefined.
        """
        stored = memoryview(stored)
        if codec_id not in KNOWN_CODECS:
            raise ChunkCorruptError(f"unknown codec {codec_id[:8]!r}")
        if codec_id == "raw":
            if len(stored) != len(into):
                raise ChunkCorruptError(f"{len(stored)} raw bytes, expected {len(into)}")
            into[:] = stored
            return
        if len(stored) >= len(into):
            raise ChunkCorruptError(f"{len(stored)} stored bytes for a chunk of {len(into)} under {codec_id}")
        if codec_id == "zstd":
            into[:] = self._frame(stored, len(into))
            return
        width = int(codec_id[-1])
        if len(into) < width:
            raise ChunkCorruptError(f"{codec_id} for a chunk of {len(into)} bytes")
        if codec_id.startswith("shuffle"):
            self._decode_shuffled(stored, into, width)
        else:
            self._decode_planes(stored, into, width)

    def _frame(self, frame: Buffer, nbytes: int) -> bytes:
        return decode_frame(frame, nbytes, self._local.decompressor)

    def _decode_shuffled(self, stored: memoryview, into: memoryview, width: int) -> None:
        content = memoryview(self._frame(stored, len(into)))
        n = len(into) // width
        for i in range(width):
            _give_plane(content[i * n : (i + 1) * n], into, width, i)
        into[n * width :] = content[n * width :]

    def _decode_planes(self, stored: memoryview, into: memoryview, width: int) -> None:
        n, tail = divmod(len(into), width)
        if len(stored) < 4 * width:
            raise ChunkCorruptError(f"{len(stored)} stored bytes, fewer than the table of planes")
        sizes = struct.unpack_from(f"<{width}I", stored)
        if not all(0 < size <= n for size in sizes):
            raise ChunkCorruptError(f"planes of {sizes} bytes, expected 1 to {n} each")
        if len(stored) != 4 * width + sum(sizes) + tail:
            raise ChunkCorruptError(f"{len(stored)} stored bytes, expected {4 * width + sum(sizes) + tail}")
        at = 4 * width
        for i, size in enumerate(sizes):
            plane: Buffer = stored[at : at + size]
            _give_plane(plane if size == n else self._frame(plane, n), into, width, i)
            at += size
        into[n * width :] = stored[at:]


def decode_frame(frame: Buffer, nbytes: int, decompressor: zstandard.ZstdDecompressor) -> bytes:
    """Return the content of exactly one frame that must hold ``nbytes`` bytes.

    A decompressor belongs to one thread. Raises ChunkCorruptError with a short reason.
    """
    # zstandard allocates what the frame declares, whatever the limit passed: look first.
    try:
        declared = zstandard.get_frame_parameters(frame)
        if bytes(frame[:4]) != _MAGIC:
            raise ChunkCorruptError("no zstd frame")
        if declared.content_size != nbytes:
            raise ChunkCorruptError(f"a zstd frame of another size than the {nbytes} bytes expected")
        if declared.window_size > MAX_WINDOW_BYTES:
            raise ChunkCorruptError(f"a zstd window of {declared.window_size} bytes")
        if declared.dict_id:
            raise ChunkCorruptError("a zstd frame that needs a dictionary")
        content = decompressor.decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise ChunkCorruptError(f"broken zstd frame: {exc}") from exc
    if len(content) != nbytes:
        raise ChunkCorruptError(f"a zstd frame of {len(content)} bytes, expected {nbytes}")
    return content


def _sample(raw: memoryview, nbytes: int, *, align: int = 1) -> memoryview:
    """Return up to ``nbytes`` bytes: half from the start, half from the middle."""
    if len(raw) <= nbytes:
        return raw
    half = nbytes // 2 // align * align
    middle = len(raw) // 2 // align * align
    return memoryview(b"".join((raw[:half], raw[middle : middle + half])))


def _numpy() -> ModuleType | None:
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def _allocate(nbytes: int) -> memoryview:
    numpy = _numpy()
    # numpy does not clear the memory, and asks for huge pages.
    return memoryview(bytearray(nbytes)) if numpy is None else memoryview(numpy.empty(nbytes, numpy.uint8))


def _take_plane(raw: memoryview, width: int, i: int, plane: memoryview) -> None:
    """Copy byte ``i`` of every element of ``raw`` to ``plane``."""
    numpy, n = _numpy(), len(plane)
    if numpy is None:
        plane[:] = raw[i : n * width : width]
    else:
        elements = numpy.frombuffer(raw, numpy.uint8, n * width).reshape(n, width)
        numpy.copyto(numpy.frombuffer(plane, numpy.uint8), elements[:, i])


def _give_plane(plane: Buffer, into: memoryview, width: int, i: int) -> None:
    """Copy ``plane`` to byte ``i`` of every element of ``into``."""
    numpy, n = _numpy(), len(plane)
    if numpy is None:
        into[i : n * width : width] = memoryview(plane)
    else:
        elements = numpy.frombuffer(into, numpy.uint8, n * width).reshape(n, width)
        numpy.copyto(elements[:, i], numpy.frombuffer(plane, numpy.uint8))


def _shuffled(raw: memoryview, width: int) -> memoryview:
    """Return all planes of ``raw``, one after the other, and its tail."""
    n = len(raw) // width
    shuffled = _allocate(len(raw))
    for i in range(width):
        _take_plane(raw, width, i, shuffled[i * n : (i + 1) * n])
    shuffled[n * width :] = raw[n * width :]
    return shuffled
