"""Pickle streams put together by hand, and what a load without trust makes of them."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from typing import Any

import msgpack

from ckptstore.config import Limits
from ckptstore.serializers import Allowlist, Registry, RestorePlan

P5 = b"\x80\x05"


def text(value: str) -> bytes:
    """Push a str."""
    data = value.encode()
    if len(data) < 256:
        return pickle.SHORT_BINUNICODE + bytes([len(data)]) + data
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def name(module: str, qualname: str) -> bytes:
    """Push what a name stands for, as protocol 4 and 5 write it."""
    return text(module) + text(qualname) + pickle.STACK_GLOBAL


def data(value: Any) -> bytes:
    """Push plain data."""
    # Without PROTO, FRAME and STOP; nothing in the table refers to the memo of another piece.
    stream = pickle.dumps(value, 5)
    body = stream[2:-1]
    return body[9:] if body[:1] == pickle.FRAME else body


def args(*parts: bytes) -> bytes:
    """Push a tuple of what the parts push."""
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def called(module: str, qualname: str, *parts: bytes) -> bytes:
    """Push the result of a call by REDUCE."""
    return name(module, qualname) + args(*parts) + pickle.REDUCE


def made(module: str, qualname: str, *parts: bytes) -> bytes:
    """Push an object made by NEWOBJ."""
    return name(module, qualname) + args(*parts) + pickle.NEWOBJ


def state(obj: bytes, value: bytes) -> bytes:
    """Push an object with its state, by BUILD."""
    return obj + value + pickle.BUILD


def stream(*parts: bytes) -> bytes:
    """Return a whole stream of protocol 5."""
    return P5 + b"".join(parts) + pickle.STOP


def load(
    stream: bytes,
    *,
    refs: Sequence[Any] = (),
    buffers: Sequence[bytes] = (),
    allowed: Allowlist | None = None,
    limits: Limits | None = None,
) -> Any:
    """Return what a load without trust makes of a field that is this pickle, as from a checkpoint.

    ``refs`` are nodes for its persistent ids.
    """
    limits = limits or Limits()
    blocks = [stream, *buffers]
    nodes: list[Any] = [
        [
            "pickle",
            0 if stream else b"",
            [[i + 1, 0, len(buffer), True] for i, buffer in enumerate(buffers)],
            [[i + 1] for i in range(len(refs))],
            [],
            0,
        ],
        *refs,
    ]
    plan = RestorePlan(["field"], limits=limits, registry=Registry(), allowed=allowed)
    sizes = [len(block) for block in blocks if block]
    plan.add_graph("field", msgpack.packb([[0], nodes]), sizes)
    memory = {("field", i): memoryview(bytearray(block)) for i, block in enumerate(blocks) if block}
    plan.check_pickles({key: memory[key] for key in plan.streams})
    return plan.build(memory)["field"]
