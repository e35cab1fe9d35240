"""Run as a script: many inputs for one target, each within a second and 256 MiB.

    python fuzzing.py TARGET N_INPUTS SEED FOUND

The corpus is tried first, then what becomes of it by random changes. An input
that raises anything but an error of ours, or takes too much, is written to the
file FOUND, and the process ends with another status than 0.
"""

from __future__ import annotations

import ast
import mmap
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

CORPUS = Path(__file__).with_name("corpus")
MAX_SECONDS = 1.0
MAX_BYTES = 256 << 20
_MAX_INPUT = 1 << 17
_INTERESTING = [0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 255]
_TOKENS = [
    *(
        b"",
        b"/",
        b"..",
        b".",
        b"~",
        b"@",
        b":",
        b"://",
        b"%",
        b"%2e%2e",
        b"%00",
        b"\x00",
        b"\n",
        b"-",
        b"+",
        b"=",
    ),
    *(
        b"(",
        b")",
        b",",
        b"|",
        b"{",
        b"}",
        b'"',
        b"[",
        b"]",
        b"1e999",
        b"-1",
        b"99999999999999999999",
        b"\xff",
    ),
    *(
        b"\x28\xb5\x2f\xfd",
        b"CKPT",
        b"s3://",
        b"file://",
        b"memory://",
        b"=e2=82=ac",
        b"\xe2\x82\xac",
        b"\xd9",
    ),
]


def corpus(target: str) -> list[bytes]:
    """The inputs that are kept for a target: files, or the lines of a file of Python literals."""
    found = [path.read_bytes() for path in sorted((CORPUS / target).glob("*")) if path.is_file()]
    lines = CORPUS / f"{target}.txt"
    if lines.exists():
        found += [ast.literal_eval(line) for line in lines.read_text().splitlines() if line]
    return found


def changed(rng: random.Random, inputs: list[bytes]) -> bytes:
    """Return one of the inputs with some random changes."""
    data = bytearray(rng.choice(inputs))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(8)
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[at % len(data)] = rng.choice(_INTERESTING)
        elif kind == 2:
            del data[at : at + rng.choice((1, 1, 2, 4, 8, 100))]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 32)))
        elif kind == 4:
            data[at:at] = rng.choice(_TOKENS)
        elif kind == 5:
            data[at:at] = data[at : at + rng.randrange(1, 64)] * rng.choice((1, 2, 50))
        elif kind == 6:
            other = rng.choice(inputs)
            data[at:] = other[rng.randrange(len(other) + 1) :]
        else:
            part = rng.choice((1, 2, 4, 8))
            data[at : at + part] = rng.choice((0, 1, 2 ** (8 * part - 1), 2 ** (8 * part) - 1)).to_bytes(
                part, rng.choice(("little", "big"))
            )
    return bytes(data[:_MAX_INPUT])


def limit_memory() -> None:
    """Let the process take no more than it has now, and the limit of one input."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(name: str, n_inputs: int, seed: int, found: str) -> None:
    from targets import BROKEN, TARGETS, refused

    target = (TARGETS | BROKEN)[name]
    kept = corpus(name) or [b"", b"some bytes"]
    rng = random.Random(seed)
    with open(found, "wb+") as file:
        # What is written there stays, however this process ends.
        file.truncate(_MAX_INPUT + 8)
        current = mmap.mmap(file.fileno(), 0)
        n_refused, slowest = 0, 0.0

        def run(data: bytes) -> None:
            nonlocal n_refused, slowest
            current[: 8 + len(data)] = len(data).to_bytes(8, "little") + data
            signal.setitimer(signal.ITIMER_VIRTUAL, 1.5 * MAX_SECONDS)  # its signal ends the process
            begun = time.process_time()
            n_refused += refused(target, data)
            took = time.process_time() - begun
            slowest = max(slowest, took)
            assert took <= MAX_SECONDS, f"took {took:.2f} s"

        for data in kept:  # once without a limit of memory: what is imported late is not the input's
            run(data)
        if sys.platform == "linux":
            limit_memory()
        for data in kept:
            run(data)
        for _ in range(n_inputs):
            run(changed(rng, kept))
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        current.close()
    os.unlink(found)
    print(f"{name}: {n_inputs} inputs, {n_refused} refused, the slowest took {slowest:.3f} s")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
