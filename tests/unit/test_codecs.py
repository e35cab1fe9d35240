from __future__ import annotations

import builtins
import pickle
import random
import struct
import threading
from unittest import mock

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore.codecs import KNOWN_CODECS, REDUNDANT, ChunkCoder
from ckptstore.errors import ChunkCorruptError

RNG = np.random.default_rng(7)
N = 400_000


def normal(dtype, n=N):
    return (RNG.standard_normal(n) * 0.02).astype(dtype)


def bf16(n=N):
    return normal(np.float32, n).view(np.uint16)[1::2].copy()


PAYLOADS = {
    "fp32": (normal(np.float32), 4),
    "fp64": (normal(np.float64), 8),
    "fp16": (normal(np.float16), 2),
    "bf16": (bf16(2 * N), 2),
    "ids": (np.minimum(RNG.zipf(1.3, N), 50_000).astype(np.int64), 8),
    "ascending": (np.arange(N, dtype=np.int64), 8),
    "zeros": (np.zeros(N, np.float32), 4),
    "sparse": (np.where(RNG.random(N) < 0.1, normal(np.float32), 0).astype(np.float32), 4),
    "random": (np.frombuffer(RNG.bytes(4 * N), np.uint32), 4),
    "random bytes": (np.frombuffer(RNG.bytes(N), np.uint8), 1),
    "pickle": (np.frombuffer(pickle.dumps([{"id": i, "x": str(i)} for i in range(9999)]), np.uint8), 1),
}


def encode(data, itemsize, codec="planes"):
    raw = memoryview(bytes(data))
    codec_id, stored = ChunkCoder(codec).encode(raw, itemsize=itemsize)
    return codec_id, bytes(stored), raw


def decode(codec_id, stored, nbytes) -> bytes:
    into = bytearray(nbytes)
    ChunkCoder().decode(codec_id, stored, memoryview(into))
    return bytes(into)


def without_numpy():
    def refusing(name, *args, **kwargs):
        if name == "numpy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    real = builtins.__import__
    return mock.patch.object(builtins, "__import__", refusing)


@pytest.mark.parametrize("name", PAYLOADS)
def test_round_trip(name):
    array, itemsize = PAYLOADS[name]
    codec_id, stored, raw = encode(array.tobytes(), itemsize)
    assert codec_id in KNOWN_CODECS
    assert decode(codec_id, stored, len(raw)) == raw
    assert len(stored) < len(raw) or codec_id == "raw"


@pytest.mark.parametrize(
    ("name", "codec_id", "ratio"),
    [
        ("fp32", "planes4", 1.19),
        ("bf16", "planes2", 1.485),
        ("fp16", "planes2", 1.15),
        ("fp64", "planes8", 1.12),
        ("ids", "planes8", 8),
        ("ascending", "shuffle8", 100),
        ("zeros", "shuffle4", 1000),
        ("sparse", "zstd", 6),
        ("pickle", "zstd", 2),
        ("random", "raw", 1),
        ("random bytes", "raw", 1),
    ],
)
def test_the_sample_finds_the_codec_that_fits(name, codec_id, ratio):
    array, itemsize = PAYLOADS[name]
    found, stored, raw = encode(array.tobytes(), itemsize)
    assert found == codec_id
    assert len(raw) / len(stored) >= ratio


@pytest.mark.parametrize("name", PAYLOADS)
def test_only_what_is_redundant_is_encoded_where_nothing_else_is_asked_for(name):
    array, itemsize = PAYLOADS[name]
    raw = memoryview(array.tobytes())
    found = ChunkCoder().encode(raw, itemsize=itemsize, only_redundant=True)
    if name in ("ids", "ascending", "zeros", "sparse", "pickle"):
        assert found == ChunkCoder().encode(raw, itemsize=itemsize)
        assert len(found[1]) <= REDUNDANT * len(raw)
    else:
        assert found == ("raw", raw)
        assert found[1] is raw


def test_raw_returns_the_buffer_itself():
    raw = memoryview(bytes(10_000))
    assert ChunkCoder("raw").encode(raw, itemsize=4) == ("raw", raw)
    assert ChunkCoder("raw").encode(raw, itemsize=4)[1] is raw
    random_bytes = memoryview(RNG.bytes(100_000))
    assert ChunkCoder().encode(random_bytes, itemsize=2)[1] is random_bytes


@pytest.mark.parametrize("nbytes", [0, 1, 2, 3, 7, 8, 9])
def test_what_does_not_shrink_is_raw(nbytes):
    for itemsize in (1, 2, 4, 8):
        codec_id, stored, raw = encode(bytes(range(nbytes)), itemsize)
        assert (codec_id, stored) == ("raw", raw)


def test_an_incompressible_start_does_not_hide_the_rest():
    codec_id, stored, raw = encode(RNG.bytes(100_000) + bytes(900_000), 1)
    assert codec_id == "zstd"
    assert len(stored) < len(raw) / 5


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["fp32", "fp64", "bf16", "ids", "ascending", "zeros", "sparse", "random"]),
    itemsize=st.sampled_from([1, 2, 3, 4, 8, 16]),
    start=st.integers(0, 1000),
    nbytes=st.one_of(st.integers(0, 200), st.integers(0, 40_000), st.integers(60_000, 400_000)),
)
def test_any_length_round_trips_and_numpy_changes_nothing(kind, itemsize, start, nbytes):
    data = memoryview(PAYLOADS[kind][0].tobytes())[start : start + nbytes]
    codec_id, stored, raw = encode(data, itemsize)
    assert decode(codec_id, stored, len(raw)) == raw
    with without_numpy():
        assert encode(data, itemsize)[:2] == (codec_id, stored)
        assert decode(codec_id, stored, len(raw)) == raw


def small_chunk(codec_id):
    kind, itemsize, tail = {
        "raw": ("random", 4, b""),
        "zstd": ("pickle", 1, b""),
        "shuffle8": ("ascending", 8, b"abc"),
        "planes2": ("bf16", 2, b"x"),
        "planes4": ("fp32", 4, b"xy"),
        "planes8": ("ids", 8, b"xyz"),
    }[codec_id]
    found, stored, raw = encode(PAYLOADS[kind][0].tobytes()[:16_000] + tail, itemsize)
    assert found == codec_id
    return stored, raw


SMALL = ["raw", "zstd", "shuffle8", "planes2", "planes4", "planes8"]


@pytest.mark.parametrize("codec_id", SMALL)
def test_a_cut_chunk_is_corrupt(codec_id):
    stored, raw = small_chunk(codec_id)
    cuts = {*range(min(64, len(stored))), len(stored) - 1, *random.Random(1).sample(range(len(stored)), 50)}
    for cut in cuts:
        with pytest.raises(ChunkCorruptError):
            decode(codec_id, stored[:cut], len(raw))


@pytest.mark.parametrize("codec_id", SMALL)
def test_bytes_after_the_end_are_corrupt(codec_id):
    stored, raw = small_chunk(codec_id)
    skippable = struct.pack("<II", 0x184D2A50, 0)
    for extra in (b"\0", b"(", stored[:4], skippable, zstandard.compress(b""), stored):
        with pytest.raises(ChunkCorruptError):
            decode(codec_id, stored + extra, len(raw))


@pytest.mark.parametrize("codec_id", SMALL)
def test_a_flipped_bit_is_corrupt_or_gives_other_bytes(codec_id):
    stored, raw = small_chunk(codec_id)
    bits = {*range(8 * 40), *random.Random(2).sample(range(8 * len(stored)), 300)}
    into = bytearray(len(raw))
    coder = ChunkCoder()
    for bit in sorted(bits):
        flipped = bytearray(stored)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            coder.decode(codec_id, flipped, memoryview(into))
        except ChunkCorruptError:
            continue
        # A few bits of a zstd frame mean nothing; the digest is what proves the bytes.
        assert len(into) == len(raw)
    coder.decode(codec_id, stored, memoryview(into))
    assert into == raw


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(KNOWN_CODECS)), st.binary(max_size=200), st.integers(0, 300))
def test_noise_is_corrupt_or_exactly_as_long(codec_id, stored, nbytes):
    into = bytearray(nbytes)
    try:
        ChunkCoder().decode(codec_id, stored, memoryview(into))
    except ChunkCorruptError:
        return
    assert codec_id == "raw"


@pytest.mark.parametrize("codec_id", SMALL)
def test_a_chunk_of_another_length_is_corrupt(codec_id):
    stored, raw = small_chunk(codec_id)
    for nbytes in (0, 1, len(raw) - 8, len(raw) - 1, len(raw) + 1, len(raw) + 8, 2 * len(raw)):
        with pytest.raises(ChunkCorruptError):
            decode(codec_id, stored, nbytes)


@pytest.mark.parametrize("codec_id", SMALL)
def test_a_chunk_under_another_codec_is_corrupt(codec_id):
    stored, raw = small_chunk(codec_id)
    for other in KNOWN_CODECS - {codec_id}:
        if {codec_id, other} <= {"zstd", "shuffle2", "shuffle4", "shuffle8"}:
            assert decode(other, stored, len(raw)) != raw  # both are one frame: the digest tells
            continue
        with pytest.raises(ChunkCorruptError):
            decode(other, stored, len(raw))


def test_an_unknown_codec_is_corrupt():
    for codec_id in ("", "lz4", "planes3", "planes16", "planes", "zstd ", "\N{BELL}" * 1000):
        with pytest.raises(ChunkCorruptError, match="unknown codec") as caught:
            decode(codec_id, b"x", 10)
        assert len(str(caught.value)) < 100


def header(content_size, *, window=None, dict_id=b""):
    """Return the header of a frame that declares an 8-byte content size."""
    descriptor = 0xC0 | (0x20 if window is None else 0) | {0: 0, 1: 1, 2: 2, 4: 3}[len(dict_id)]
    head = b"\x28\xb5\x2f\xfd" + bytes([descriptor])
    if window is not None:
        head += bytes([window])
    return head + dict_id + struct.pack("<Q", content_size)


def rle(n):
    return struct.pack("<I", 1 | 1 << 1 | n << 3)[:3] + b"\0"


def test_hostile_frames_are_refused_before_anything_is_allocated():
    n = 100_000
    honest = header(n, window=0x40) + rle(n)
    assert decode("zstd", honest, n) == bytes(n)
    hostile = {
        "bomb": header(1 << 40, window=0x40) + rle(n),
        "no size": zstandard.ZstdCompressor(write_content_size=False).compress(bytes(n)),
        "window": header(n, window=17 << 3) + rle(n),
        "dictionary": header(n, window=0x40, dict_id=b"\x07") + rle(n),
        "two frames": honest + honest,
        "short": header(n, window=0x40) + rle(n - 1),
        "long": header(n, window=0x40) + rle(n + 1),
        "skippable": struct.pack("<II", 0x184D2A50, n) + bytes(50),
        "html": b"<!DOCTYPE html><html></html>",
        "empty": b"",
    }
    for name, frame in hostile.items():
        with pytest.raises(ChunkCorruptError):
            decode("zstd", frame, n)
        table = struct.pack("<2I", n // 2, len(frame))
        with pytest.raises(ChunkCorruptError):
            decode("planes2", table + bytes(n // 2) + frame, n)
        assert name


def test_the_largest_window_allowed_decodes_and_the_next_does_not():
    n = 1000
    assert decode("zstd", header(n, window=16 << 3) + rle(n), n) == bytes(n)
    with pytest.raises(ChunkCorruptError, match="window"):
        decode("zstd", header(n, window=(16 << 3) + 1) + rle(n), n)


def test_a_table_of_planes_that_lies_is_corrupt():
    stored, raw = small_chunk("planes4")
    n = len(raw) // 4
    sizes = struct.unpack_from("<4I", stored)
    for i in range(4):
        for size in (0, n + 1, 2**32 - 1, sizes[i] - 1, sizes[i] + 1):
            lie = list(sizes)
            lie[i] = size
            with pytest.raises(ChunkCorruptError):
                decode("planes4", struct.pack("<4I", *lie) + stored[16:], len(raw))


def test_one_coder_serves_many_threads():
    coder, errors = ChunkCoder(), []

    def work(name):
        try:
            array, itemsize = PAYLOADS[name]
            raw = memoryview(array.tobytes()[:200_000])
            for _ in range(5):
                codec_id, stored = coder.encode(raw, itemsize=itemsize)
                into = bytearray(len(raw))
                coder.decode(codec_id, stored, memoryview(into))
                assert into == raw
        except Exception as exc:  # noqa: BLE001  # a thread's border
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(name,)) for name in PAYLOADS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
