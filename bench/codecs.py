"""``python -m bench.codecs``: what encoding a chunk gives and costs, beside other ways, on one core.

Chunks of 8 MiB of each kind of data are encoded and decoded by one thread, the
kinds and the ways in a new order every round. A rate is raw bytes by CPU time:
what one core does. What comes back is compared. zipnn is skipped where it is
not installed, and on what it is not made for.
"""

from __future__ import annotations

import argparse
import importlib
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import zstandard

from bench.harness import is_installed
from bench.machine import describe_machine
from bench.records import keep
from bench.verdicts import Verdict, table
from bench.workloads import build, raw_buffers
from ckptstore.codecs import ChunkCoder

__all__ = ["CODECS", "KINDS", "judge", "main", "measure"]

CHUNK_BYTES = 8 << 20
OURS, COPY = "planes", "copy"
LEAST_GB_S = 0.9
ADAM = "fp32 + Adam"
"""Weights and both moments together, as a checkpoint has them."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of data."""

    itemsize: int
    dtype: str
    make: Callable[[int], bytes]
    """At least so many bytes of it."""
    needs: tuple[str, ...] = ()


def _joined(values: Any) -> bytes:
    return b"".join(raw_buffers(values))


def _adam(leaf: str) -> Callable[[int], bytes]:
    def make(nbytes: int) -> bytes:
        state = build("arrays", 3 * nbytes + CHUNK_BYTES // 4, seed=0)["optimizer"]["state"]
        return _joined({index: moments[leaf] for index, moments in state.items()})

    return make


KINDS: Mapping[str, Kind] = {
    "fp32 weights": Kind(
        4, "float32", lambda n: _joined(build("arrays", 3 * n + CHUNK_BYTES // 4, seed=0)["model"])
    ),
    "Adam exp_avg": Kind(4, "float32", _adam("exp_avg")),
    "Adam exp_avg_sq": Kind(4, "float32", _adam("exp_avg_sq")),
    "bf16 weights": Kind(
        2,
        "bfloat16",
        lambda n: _joined(build("bf16", n + CHUNK_BYTES // 4, seed=0)["model"]),
        needs=("torch",),
    ),
    "token ids": Kind(8, "int64", lambda n: _joined(build("tokens", n, seed=0)["tokens"])),
    "random": Kind(4, "uint32", lambda n: _joined(build("random", n + CHUNK_BYTES // 4, seed=0)["data"])),
}
_PARTS_OF_ADAM = ("fp32 weights", "Adam exp_avg", "Adam exp_avg_sq")

Stored = Any
Encode = Callable[[bytearray], Stored]
Decode = Callable[[Stored, bytearray], bytes | bytearray]
"""Into the bytearray, or into what it returns."""


@dataclass(frozen=True, slots=True)
class Codec:
    """One way to encode: `make` gets the kind."""

    make: Callable[[Kind], tuple[Encode, Decode]]
    stored_bytes: Callable[[Stored], int] = len
    needs: tuple[str, ...] = ()
    dtypes: tuple[str, ...] | None = None
    """None: any."""


def _planes(kind: Kind) -> tuple[Encode, Decode]:
    coder = ChunkCoder("planes")

    def decode(stored: Stored, into: bytearray) -> bytearray:
        coder.decode(stored[0], stored[1], memoryview(into))
        return into

    return lambda chunk: coder.encode(memoryview(chunk), itemsize=kind.itemsize), decode


def _zstd(level: int) -> Callable[[Kind], tuple[Encode, Decode]]:
    def make(kind: Kind) -> tuple[Encode, Decode]:
        compressor, decompressor = zstandard.ZstdCompressor(level=level), zstandard.ZstdDecompressor()
        return compressor.compress, lambda stored, into: decompressor.decompress(stored)

    return make


def _copy(kind: Kind) -> tuple[Encode, Decode]:
    room = bytearray(CHUNK_BYTES)

    def encode(chunk: bytearray) -> bytearray:
        room[:] = chunk
        return room

    def decode(stored: Stored, into: bytearray) -> bytearray:
        into[:] = stored
        return into

    return encode, decode


def _zipnn(kind: Kind) -> tuple[Encode, Decode]:
    made = importlib.import_module("zipnn").ZipNN(bytearray_dtype=kind.dtype, input_format="byte", threads=1)
    return made.compress, lambda stored, into: made.decompress(stored)


CODECS: Mapping[str, Codec] = {
    OURS: Codec(_planes, stored_bytes=lambda stored: len(stored[1])),
    "zstd 1": Codec(_zstd(1)),
    "zstd 3": Codec(_zstd(3)),
    "zipnn": Codec(_zipnn, needs=("zipnn",), dtypes=("float32", "bfloat16")),
    COPY: Codec(_copy),
}


class ChunkDiffersError(Exception):
    """A codec gave back something else than it was given."""


def measure(
    codec: str, kind: str, chunks: Sequence[bytes], *, clock: Callable[[], float] = time.process_time
) -> dict[str, float]:
    """What all chunks together take: raw_bytes, stored_bytes, encode_s, decode_s of CPU.

    Raises:
        ChunkDiffersError: what was decoded is not what was encoded.
    """
    row = CODECS[codec]
    encode, decode = row.make(KINDS[kind])
    into = bytearray(CHUNK_BYTES)
    decode(encode(bytearray(chunks[0])), into)  # contexts and scratch memory are there in a save, too
    figures = {"raw_bytes": 0.0, "stored_bytes": 0.0, "encode_s": 0.0, "decode_s": 0.0}
    for chunk in chunks:
        mine = bytearray(chunk)  # some change what they are given
        start = clock()
        stored = encode(mine)
        encoded = clock()
        figures["stored_bytes"] += row.stored_bytes(stored)
        between = clock()
        back = decode(stored, into)
        figures["decode_s"] += clock() - between
        figures["encode_s"] += encoded - start
        figures["raw_bytes"] += len(chunk)
        if back != chunk:
            raise ChunkDiffersError(f"{codec} decoded something else than it encoded of {kind}")
    return figures


Rounds = Mapping[tuple[str, str], Sequence[Mapping[str, float]]]
"""(kind, codec) -> a round each"""


def _with_adam(rounds: Rounds) -> Rounds:
    """And the three parts of a model with its optimizer as one."""
    joined = dict(rounds)
    for codec in CODECS:
        parts = [rounds.get((kind, codec), ()) for kind in _PARTS_OF_ADAM]
        if all(parts):
            joined[ADAM, codec] = [
                {figure: sum(one[figure] for one in same_round) for figure in same_round[0]}
                for same_round in zip(*parts, strict=True)
            ]
    return joined


def _rates(results: Sequence[Mapping[str, float]], figure: str) -> list[float]:
    return [one["raw_bytes"] / max(one[figure], 1e-9) / 1e9 for one in results]


def render(rounds: Rounds) -> str:
    """The table, and the verdicts."""
    rows = []
    joined = _with_adam(rounds)
    for kind in (ADAM, *KINDS):
        for codec in CODECS:
            if results := joined.get((kind, codec)):
                row = [kind, codec, f"{results[0]['raw_bytes'] / results[0]['stored_bytes']:.2f}"]
                for figure in ("encode_s", "decode_s"):
                    rates = _rates(results, figure)
                    row.append(f"{statistics.median(rates):.2f} ({min(rates):.2f}-{max(rates):.2f})")
                rows.append(row)
    titles = ["data", "codec", "raw ÷ stored", "encode GB/s a core", "decode GB/s a core"]
    return "\n".join([*table(titles, rows), "", *(f"- {verdict}" for verdict in judge(rounds))])


def judge(rounds: Rounds) -> Iterator[Verdict]:
    """What encodes has to be fast enough; what random data costs is told as time of a core per GB."""
    joined = _with_adam(rounds)
    for kind in (ADAM, "bf16 weights"):
        if results := joined.get((kind, OURS)):
            rate = statistics.median(_rates(results, "encode_s"))
            yield Verdict("size", f"encoding {kind}, a core", rate, LEAST_GB_S, True, " GB/s")
    if results := joined.get(("random", OURS)):
        seconds = 1 / statistics.median(_rates(results, "encode_s"))
        yield Verdict("size", "finding out that random data is, a core", seconds, None, unit=" s/GB")


def _chunks(kind: Kind, n: int) -> list[bytes]:
    made = memoryview(kind.make(n * CHUNK_BYTES))
    if len(made) < n * CHUNK_BYTES:
        raise AssertionError(f"{len(made)} bytes for {n} chunks")
    return [bytes(made[start : start + CHUNK_BYTES]) for start in range(0, n * CHUNK_BYTES, CHUNK_BYTES)]


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m bench.codecs", description=__doc__)
    parser.add_argument("--chunks", type=int, default=4, help="chunks of 8 MiB of each kind (4)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--json", metavar="FILE", help="keep every figure there")
    options = parser.parse_args(given)
    machine = describe_machine(".")
    kinds = {name: kind for name, kind in KINDS.items() if all(map(is_installed, kind.needs))}
    data = {name: _chunks(kind, options.chunks) for name, kind in kinds.items()}
    rounds: dict[tuple[str, str], list[dict[str, float]]] = {
        (kind, name): []
        for kind, row in kinds.items()
        for name, codec in CODECS.items()
        if all(map(is_installed, codec.needs)) and (codec.dtypes is None or row.dtype in codec.dtypes)
    }
    order = random.Random(options.seed)
    for _ in range(options.rounds):
        for kind, name in order.sample(list(rounds), len(rounds)):
            rounds[kind, name].append(measure(name, kind, data[kind]))
    print(render(rounds))
    skipped = [name for name, codec in CODECS.items() if not all(map(is_installed, codec.needs))]
    print("".join(f"- {name} skipped: it is not installed\n" for name in skipped), end="")
    if options.json:
        keep(
            options.json,
            "bench.codecs",
            given,
            judge(rounds),
            machine=machine,
            seed=options.seed,
            codecs=[
                {"kind": kind, "codec": name, "results": results} for (kind, name), results in rounds.items()
            ],
            skipped=skipped,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
