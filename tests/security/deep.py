"""Loads values of many levels, in a process of its own: ``python deep.py KIND``. Says what became of it.

The interpreter would free or hash such values by recursion in C, and end without a word.
"""

from __future__ import annotations

import sys

from streams import data, load, name, state, stream

from ckptstore.config import Limits
from ckptstore.errors import FormatError

N = 150_000


def chain(kind: str) -> bytes:
    """Return the stream of a value of that kind with N levels."""
    if kind == "tuple as key":
        return stream(b"})", b"\x85" * N, b"Ns")
    if kind == "defaultdict":
        return stream(name("collections", "defaultdict"), b"\x940", b"h\x00)RN" * N, b"N", b"s" * N)
    if kind == "array":
        dtype = state(
            name("numpy", "dtype") + data(("O8", False, True)) + b"R",
            data((3, "|", None, None, None, -1, -1, 63)),
        )
        arguments = b"(" + name("numpy", "ndarray") + b"K\x00\x85C\x01bt"
        begin = name("numpy._core.multiarray", "_reconstruct") + b"\x940" + arguments + b"\x940K\x01\x85\x940"
        # The pieces above take 0 to 2 of the memo; those of the dtype come after.
        at = bytes([3 + dtype.count(b"\x94")])
        return stream(
            begin, dtype, b"\x940", (b"h\x00h\x01R(K\x01h\x02h" + at + b"\x89]") * N, b"N", b"atb" * N
        )
    deques = name("collections", "deque") + b"\x940" + b"h\x00)R\x94" + b"h\x00)R" * N
    if kind == "deque":
        return stream(deques, b"a" * N)
    if kind == "cycle of deques":
        return stream(deques, b"h\x01a" + b"a" * N)
    assert kind == "deque in a pickle that fails"
    return stream(deques, b"a" * N, b"h\x7f")


if __name__ == "__main__":
    try:
        load(chain(sys.argv[1]), limits=Limits(max_pickle_memory_bytes=2**31))
    except FormatError as exc:
        print(f"refused: {exc}")
