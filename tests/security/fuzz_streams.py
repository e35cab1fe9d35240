"""Streams that hypothesis makes: mutated ones of real objects, and sequences of opcodes."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import pickle
import random
import resource
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from streams import P5, data, load, name, text

from ckptstore.errors import FormatError, UntrustedPickleError
from ckptstore.serializers import Allowlist

_OBJECTS: list[Any] = [
    collections.OrderedDict(a=1, b=[2]),
    collections.defaultdict(list, {1: [2, (3, None)]}),
    collections.deque([1, "x", b"y", 2.5], 7),
    collections.Counter("abracadabra"),
    datetime.datetime(2024, 2, 29, 1, 2, 3, tzinfo=datetime.timezone.utc),
    decimal.Decimal("1.50"),
    uuid.UUID(int=7),
    random.Random(1),
    argparse.Namespace(x=[1, {2: 3}], y="z"),
    np.random.default_rng(1),
    np.array(["a", None, [1]], dtype=object),
    collections.deque(
        [np.float32(2), np.dtype("M8[ns]"), frozenset({1, 2}), {1, 2}, 10**40, bytearray(b"q")]
    ),
]
SEEDS = [pickle.dumps(value, 5) for value in _OBJECTS]

_NAMES = sorted(Allowlist.names())
_PUSHES = st.one_of(
    st.sampled_from(_NAMES).map(lambda pair: name(*pair)),
    st.sampled_from([("os", "system"), ("builtins", "eval"), ("collections", "OrderedDict.__init__")]).map(
        lambda pair: name(*pair)
    ),
    st.sampled_from(
        [None, True, 0, 1, -1, 3, 624, 2**70, 1.5, "", "x", "f8", "O8", "a/b", b"", b"b", (), (0,)]
    ).map(data),
    st.sampled_from([[], {}, set(), {"int": 1}, {"a": 1}, [1, 2], (3, "<", None, None, None, -1, -1, 0)]).map(
        data
    ),
    st.text(max_size=5).map(text),
)
_OPCODES = st.sampled_from(
    [
        bytes([code])
        for code in b"(.012NRabdeloQst}])u\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98"
    ]
    + [b"h" + bytes([i]) for i in range(8)]
)
_RAW = st.binary(min_size=1, max_size=3)
sequences = st.lists(st.one_of(_PUSHES, _PUSHES, _OPCODES, _OPCODES, _OPCODES, _RAW), max_size=40).map(
    lambda parts: P5 + b"".join(parts) + b"."
)


@st.composite
def mutants(draw: st.DrawFn) -> bytes:
    """A real stream with some bytes replaced, taken out, doubled or moved in from another."""
    stream = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(stream)))
        length = draw(st.integers(0, 8))
        piece = draw(
            st.one_of(st.binary(max_size=4), _OPCODES, _PUSHES, st.just(bytes(stream[at : at + length])))
        )
        stream[at : at + length] = piece
    return bytes(stream)


def fuzz(n_examples: int, number: int, armed: Callable[[], AbstractContextManager[list[str]]]) -> None:
    """Load that many streams of each kind; raise for anything but a value or an error of ours."""

    def check(stream: bytes) -> None:
        begin = time.perf_counter()
        with armed() as events:
            with suppress(FormatError, UntrustedPickleError):
                load(stream, refs=[["list", [1]], ["dict", []]], buffers=[b"buffer"])
            assert not events, events
        assert time.perf_counter() - begin < 1

    common = settings(
        max_examples=n_examples, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for strategy in (mutants(), sequences, st.binary(max_size=60).map(lambda raw: P5 + raw)):
        seed(number)(common(given(strategy)(check)))()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 256 * 1024, f"{grown} KiB more at the peak"
