"""What is on the allowlist comes back without trust, as it was."""

from __future__ import annotations

import argparse
import array
import datetime
import decimal
import fractions
import pathlib
import random
import types
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
from round_trip import trip

ZONE = zoneinfo.ZoneInfo("Europe/Berlin")


def _odict() -> Any:
    made = OrderedDict(a=[1])
    made.note = "attributes are kept"  # type: ignore[attr-defined]
    return [made, deque()]


EQUAL: dict[str, Any] = {
    "deque": deque([1, "x", None]),
    "deque with a length": deque([1, 2], 3),
    "defaultdict": defaultdict(list, {1: [2]}),
    "defaultdict without a default": defaultdict(None, {1: 2}),
    "defaultdict of defaultdicts": defaultdict(defaultdict, {1: defaultdict(int, {2: 3})}),
    "Counter": Counter("abracadabra"),
    "OrderedDict in a deque": deque([OrderedDict(b=1, a=2)]),
    "date": datetime.date(2024, 2, 29),
    "datetime": datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, fold=1),
    "datetime in UTC": datetime.datetime(2024, 2, 29, tzinfo=datetime.timezone.utc),
    "datetime in a zone": datetime.datetime(2024, 2, 29, tzinfo=ZONE),
    "time": datetime.time(1, 2, 3, tzinfo=datetime.timezone.utc),
    "time without a zone": datetime.time(1, 2, 3),
    "timedelta": datetime.timedelta(-3, 7, 9),
    "timezone": datetime.timezone(datetime.timedelta(hours=-2), "somewhere"),
    "timezone without a name": datetime.timezone(datetime.timedelta(minutes=3)),
    "zone": ZONE,
    "Decimal": decimal.Decimal("-1.50E+7"),
    "Fraction": fractions.Fraction(-1, 3),
    "UUID": uuid.UUID(int=2**127 + 5),
    "path": pathlib.PurePosixPath("/a/b"),
    "Windows path": pathlib.PureWindowsPath("c:/a/b"),
    "path of this system": pathlib.Path("a/b"),
    "range": range(1, 10**30, 7),
    "slice": deque([slice(None, 3, -1)]),
    "array": array.array("d", [1.5, -2.5]),
    "array of bytes": array.array("b", []),
    "Namespace": argparse.Namespace(lr=0.1, layers=[1, 2], nested=argparse.Namespace(x=None)),
    "SimpleNamespace": types.SimpleNamespace(a={"b": (1, 2)}),
    "Ellipsis": ...,
    "NotImplemented": NotImplemented,
    "a class of the core": [list, dict, type(None), object, array.array],
    "a class of numpy": [np.float32, np.ndarray],
    "numbers": deque([0, 255, 256, 65535, 65536, -1, -(2**31), 2**31, 2**70, -(2**5000), 1.5, 1j, True]),
    "texts": deque(["", "x" * 300, "ä" * 300, "\ud800", "\U0001f600", "x" * 70_000]),
    "bytes": deque([b"", b"x" * 300, b"y" * 70_000]),
    "containers": deque(
        [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1], {}, {1: 2}, {1: 2, 3: 4}, set(), {1, 2}]
    ),
    "frozensets": deque([frozenset(), frozenset({1, (2, 3)})]),
    "one long list": deque([list(range(3000)), dict.fromkeys(range(3000)), set(range(3000))]),
    "keys of every kind": deque(
        [{1: 0, "a": 0, (1, ("b", 2**80)): 0, frozenset({1}): 0, None: 0, 1.5: 0, -(2**90): 0}]
    ),
    "dtypes": deque(
        map(
            np.dtype, ["f8", ">i4", "|b1", "U", "U3", ">U5", "S4", "V3", "M8", "M8[25s]", "m8[ns]", "O", "c8"]
        )
    ),
    "scalars": deque(
        [np.float32(1), np.str_("a"), np.bytes_(b"ab"), np.bool_(True), np.datetime64("2020"), np.int64(-4)]
    ),
    "empty scalars": deque([np.str_(""), np.bytes_(b""), np.void(b"ab")]),
}


@pytest.mark.parametrize("what", EQUAL)
def test_a_value_comes_back_equal_without_trust(what: str) -> None:
    value = EQUAL[what]
    back = trip(value)
    assert type(back) is type(value)
    assert back == value
    if isinstance(value, deque):
        assert list(map(type, back)) == list(map(type, value))
        assert back.maxlen == value.maxlen


def test_an_ordered_dict_keeps_its_attributes() -> None:
    pair = _odict()
    pair[1].append(pair[0])
    assert vars(trip(pair[1])[0]) == {"note": "attributes are kept"}


def test_shared_objects_stay_shared_and_cycles_close() -> None:
    inner: Any = argparse.Namespace(name="inner")
    outer = argparse.Namespace(first=inner, second=[inner], me=None)
    outer.me = outer
    back = trip(outer)
    assert back.first is back.second[0]
    assert back.me is back
    ring: deque[Any] = deque()
    ring.append((ring,))
    assert trip(ring)[0][0].__class__ is deque


def test_a_uuid_keeps_what_it_knows_of_its_safety() -> None:
    value = uuid.UUID(int=3, is_safe=uuid.SafeUUID.safe)
    assert trip(value).is_safe is uuid.SafeUUID.safe


def test_a_zone_without_the_cache_is_another_object() -> None:
    value = zoneinfo.ZoneInfo.no_cache("Europe/Berlin")
    back = trip(value)
    assert back.key == "Europe/Berlin"
    assert back is not ZONE


def test_a_random_generator_goes_on_where_it_was() -> None:
    value = random.Random(5)
    value.gauss(0, 1)
    back = trip(value)
    assert back.getstate() == value.getstate()
    assert back.gauss(0, 1) == value.gauss(0, 1)


@pytest.mark.parametrize("kind", ["MT19937", "PCG64", "PCG64DXSM", "Philox", "SFC64"])
def test_a_numpy_generator_goes_on_where_it_was(kind: str) -> None:
    value = np.random.Generator(getattr(np.random, kind)(7))
    value.integers(9, dtype=np.int32)
    back = trip(value)
    assert back.random(5).tolist() == value.random(5).tolist()
    assert back.spawn(1)[0].random() == value.spawn(1)[0].random()
    bits = getattr(np.random, kind)(7)
    assert trip(bits).random_raw(3).tolist() == bits.random_raw(3).tolist()


def test_a_legacy_numpy_generator_goes_on_where_it_was() -> None:
    value = np.random.RandomState(3)
    value.normal()
    assert trip(value).normal(size=3).tolist() == value.normal(size=3).tolist()


@pytest.mark.parametrize("entropy", [5, 2**130, [1, 2, 3]])
def test_a_seed_comes_back_and_spawns_alike(entropy: Any) -> None:
    value = np.random.SeedSequence(entropy, spawn_key=(4,), pool_size=8)
    value.spawn(2)
    back = trip(value)
    assert back.generate_state(4).tolist() == value.generate_state(4).tolist()
    assert back.spawn(1)[0].spawn_key == value.spawn(1)[0].spawn_key


@pytest.mark.parametrize(
    "value",
    [
        np.array(["a", None, [1], (2,), np.zeros(2), np.array(7)], dtype=object),
        np.array([["a", 1], [2.5, b"x"]], dtype=object, order="F"),
        np.array(None, dtype=object),
        np.empty((0, 3), dtype=object),
        np.array([[[1, "x"]] * 2] * 3, dtype=object, order="F"),
    ],
    ids=lambda value: str(value.shape),
)
def test_an_array_of_objects_comes_back(value: Any) -> None:
    back = trip(value)
    assert (back.shape, back.dtype) == (value.shape, value.dtype)
    assert back.flags.f_contiguous == value.flags.f_contiguous
    for one, other in zip(back.flat, value.flat, strict=True):
        assert type(one) is type(other)
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other
