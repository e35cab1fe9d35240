"""Writes the corpus: one valid input of each kind, and those that were worth keeping.

python make_corpus.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import forge
import numpy as np
import zstandard
from fuzzing import CORPUS
from targets import CODECS

from ckptstore._table import ChunkTable
from ckptstore.codecs import ChunkCoder
from ckptstore.manifest import encode


def manifests() -> dict[str, bytes]:
    empty = forge.draft(
        fields=[], table=ChunkTable(forge.NONCE, (), ()), metadata={}, attributes={}, parent=None
    )
    summary, body = forge.parts()
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
    return {
        "whole": forge.DATA,
        "empty": encode(empty, forge.LIMITS),
        "cut": forge.DATA[:150],
        "header": forge.DATA[:176],
        "page": b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>",
        "future": forge.assembled(summary, body, version=2),
        "flags": forge.assembled(summary, body, flags=1),
        "lengths": forge.assembled(summary, body, lengths={1: 2**32 - 1}),
        "bomb": forge.assembled(summary, body, frames={1: bomb}, lengths={3: 1 << 28}),
        "two frames": forge.assembled(summary, body, frames={0: forge.zipped(summary) * 2}),
        "other store": forge.forged(lambda s, b: s.__setitem__("store_id", forge.OTHER_STORE)),
        "deep": forge.assembled(b"\x91" * 20_000 + b"\x00", body),
        "many maps": forge.assembled(b"\xdc\xff\xff" + b"\x80" * 65_535, body),
        "signed": forge.assembled(summary, body, signature=b"\x01" * 48),
    }


def chunks() -> dict[str, bytes]:
    found = {}
    numbers = (np.random.default_rng(1).standard_normal(3000) * 0.02).astype("float32")
    samples = {"float32": (numbers, 4), "int64": (np.arange(2000), 8), "zeros": (np.zeros(5000, "uint8"), 1)}
    for name, (array, width) in samples.items():
        for kind in ("planes", "raw"):
            raw = memoryview(array.tobytes())
            codec, stored = ChunkCoder(kind).encode(raw, itemsize=width)
            head = bytes([CODECS.index(codec)]) + len(raw).to_bytes(4, "little")
            found[f"{name} {codec}"] = head + bytes(stored)[: 3000 if kind == "raw" else None]
    plain = zstandard.ZstdCompressor().compress(b"abc" * 1000)
    number = CODECS.index("zstd")
    for name, frame, nbytes in (
        ("zstd", plain, 3000),
        ("two frames", plain * 2, 3000),
        ("without size", zstandard.ZstdCompressor(write_content_size=False).compress(b"abc" * 1000), 3000),
        ("bomb", zstandard.ZstdCompressor(level=19).compress(bytes(1 << 24)), 1 << 23),
        ("skippable", b"\x50\x2a\x4d\x18\x04\x00\x00\x00abcd" + plain, 3000),
        ("huge window", b"\x28\xb5\x2f\xfd\x00\xf8" + plain[6:], 3000),
    ):
        found[name] = bytes([number]) + nbytes.to_bytes(4, "little") + frame
    return found


def frames() -> dict[str, bytes]:
    summary, body = forge.parts()
    return {
        "summary": bytes([1, 0, 0]) + summary,
        "body": bytes([1, 1, 0]) + body,
        "frame": bytes([1, 1, 1]) + forge.zipped(body),
        "spliced": bytes([1, 0, 2, 20]) + forge.zipped(summary)[20:],
        "lying": bytes([0, 1]) + b"\xff\xff\xff\x7f" + bytes([1, 0]) + body,
        "window": bytes([1, 1, 1])
        + zstandard.ZstdCompressor(
            compression_params=zstandard.ZstdCompressionParameters(window_log=27)
        ).compress(body),
    }


def main() -> None:
    structures = {f"{n:02}": bytes([n % 3, *(17 * n * k % 256 for k in range(1, 14))]) for n in range(24)}
    for target, inputs in {
        "manifest": manifests(),
        "manifest_structure": structures,
        "manifest_frames": frames(),
        "chunk": chunks(),
    }.items():
        (CORPUS / target).mkdir(parents=True, exist_ok=True)
        for name, data in inputs.items():
            (CORPUS / target / name.replace(" ", "-")).write_bytes(data)


if __name__ == "__main__":
    main()
