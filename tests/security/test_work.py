"""What is small in a stream and asked for again and again: refused by a count of steps, not by a clock."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from streams import P5, args, called, data, load, name, state, stream, text

from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError, ManifestCorruptError
from ckptstore.serializers import Allowlist, _safe_numpy, _safe_stdlib, _safe_torch
from ckptstore.serializers._rules import Work, weigh

LONG = pickle.LONG4 + (40_000).to_bytes(4, "little") + b"\x07" * 40_000
SEED = called(
    "numpy.random.bit_generator",
    "__pyx_unpickle_SeedSequence",
    name("numpy.random.bit_generator", "SeedSequence"),
    data(1),
    data(None),
)


def unmemoized(value: Any) -> bytes:
    """Push data without a place in the memo."""
    pickler = pickle._Pickler  # type: ignore[attr-defined]
    pieces: list[bytes] = []
    one = type("One", (pickler,), {"memoize": lambda self, obj: None})

    class File:
        def write(self, piece: bytes) -> None:
            pieces.append(bytes(piece))

    one(File(), 5).dump(value)
    body = b"".join(pieces)[2:-1]
    return body[9:] if body[:1] == pickle.FRAME else body


def again(callee: bytes, arguments: bytes, n: int) -> bytes:
    """A stream that calls with the same arguments n times."""
    return stream(callee, b"\x940", args(arguments), b"\x940", b"h\x00h\x01R0" * n, b"N")


PATH = text("a/" * 20_000)
CALLS: dict[str, bytes] = {
    "a fraction of long numbers": again(name("fractions", "Fraction"), LONG + LONG[:-1] + b"\x05", 5000),
    "a fraction of long texts": again(
        name("fractions", "Fraction"), text("1" * 4000 + "/" + "7" * 4000), 20_000
    ),
    "a decimal of many digits": again(name("decimal", "Decimal"), text("1" * 90_000), 3000),
    "a path of many parts": again(name("pathlib", "PurePosixPath"), PATH, 10_000),
    "a generator": again(name("random", "Random"), b"", 20_000),
    "a zone from its file": again(
        called("builtins", "getattr", name("zoneinfo", "ZoneInfo"), text("_unpickle")),
        text("Europe/Berlin") + data(False),
        20_000,
    ),
    "a state of a generator": stream(
        called("random", "Random"),
        unmemoized(random.Random(1).__reduce__()[2]),
        b"\x940",
        b"h\x00b" * 40_000,
    ),
    "a seed of a large pool": stream(
        unmemoized(np.random.SeedSequence(2**65_000, pool_size=256).__reduce__()[2]),
        b"\x940",
        (SEED + b"h\x00b0") * 20,
        b"N",
    ),
}
CALLS["a fraction of long numbers"] = stream(
    name("fractions", "Fraction"),
    b"\x940",
    b"(" + LONG + LONG[:-1] + b"\x05t\x940",
    b"h\x00h\x01R0" * 9000,
    b"N",
)


@pytest.mark.parametrize("what", CALLS)
def test_a_small_stream_does_not_take_long(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[int] = []
    spend = Work.spend

    def count(self: Work, steps: int) -> None:
        spent.append(steps)
        spend(self, steps)

    monkeypatch.setattr(Work, "spend", count)
    with pytest.raises(LimitExceededError, match="again and again"):
        load(CALLS[what])
    allowed = 80_000_000 + 4 * len(CALLS[what])
    assert sum(spent) - spent[-1] <= allowed < sum(spent)


def test_long_numbers_count_as_bytes() -> None:
    assert weigh((2**8000, "x")) == 1001
    ranges = stream(
        name("builtins", "range"),
        b"\x940",
        args(data(0) + LONG + data(1)),
        b"\x940",
        b"h\x00h\x01R0" * 100,
        b"N",
    )
    with pytest.raises(LimitExceededError, match="max_pickle_memory_bytes"):
        load(ranges, limits=Limits(max_pickle_memory_bytes=1_000_000))


@pytest.mark.parametrize(
    "value",
    [
        [random.Random(i) for i in range(5)],
        [__import__("fractions").Fraction(i, 7) for i in range(2000)],
        [__import__("decimal").Decimal(i) / 7 for i in range(2000)],
        [__import__("pathlib").PurePosixPath(f"a/b/{i}") for i in range(2000)],
    ],
    ids=["generators", "fractions", "decimals", "paths"],
)
def test_honest_values_take_next_to_none(value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Work.__init__, "__defaults__", (50_000,))
    loaded = load(pickle.dumps(value, 5))
    assert len(loaded) == len(value)


def rules_with_work() -> dict[str, Callable[[Any], int]]:
    pytest.importorskip("torch")
    found: dict[str, Callable[[Any], int]] = {}
    for module, qualname in Allowlist.names():
        if module in ("fractions", "decimal", "pathlib", "random", "torch.optim.adam", "torch._utils"):
            rule = Allowlist().find(module, qualname)
            if rule is not None and rule.work is not None:
                found[f"{module}.{qualname}"] = rule.work
    return found


def test_work_is_told_for_whatever_arguments_come() -> None:
    found = rules_with_work()
    assert {
        "fractions.Fraction",
        "decimal.Decimal",
        "random.Random",
        "torch._utils._rebuild_sparse_tensor",
    } <= set(found)
    odd: list[Any] = [(), (1, "x", b"y"), ({},), ([1, {}],), (None, (1, None)), (np.zeros(2),)]
    for work in [*found.values(), _safe_numpy._seed_work, _safe_torch._state_work]:
        for arguments in odd:
            assert work(arguments) >= 0
    assert _safe_numpy._seed_work((1, 0, None, 4, ())) > 0
    assert _safe_numpy._seed_work(([1, 2**40_000], 0, None, 2**70, (None,))) > 2**21
    assert _safe_stdlib._letters(("abc", 1)) == 3


def test_a_state_counts_what_lies_in_it() -> None:
    plain = _safe_torch._state_work({"training": True})
    many = {"_parameters": dict.fromkeys(range(1000)), "param_groups": [{"params": [None] * 500}, None]}
    assert _safe_torch._state_work(many) - plain == 20 * 1502
    assert _safe_torch._state_work(None) == plain


def test_an_argument_that_is_cut_is_damage_wherever_it_is_cut() -> None:
    whole = pickle.dumps([1, 300, 70_000, 1.5, "ab", "x" * 300, b"y", 2**70, -1, {"k": ()}, [None]], 5)
    plain = P5 + whole[11:]
    for end in range(len(plain)):
        with pytest.raises(ManifestCorruptError):
            load(plain[:end])


def test_a_finished_object_is_taken_from_the_memo_beyond_255() -> None:
    number = stream(
        b"N" + b"\x94" * 300 + b"0",
        state(name("uuid", "UUID") + b")\x81\x94", data({"int": 1})),
        b"j\x2c\x01\x00\x00\x86",
    )
    one, other = load(number)
    assert one is other
