"""User metadata: plain data comes back as it went in, anything else is refused by its place."""

from __future__ import annotations

import collections
import copy
import datetime
import decimal
import enum
import math
import types
from typing import Any

import numpy as np
import pytest
from forge import frugal
from hypothesis import given
from hypothesis import strategies as st

from ckptstore import Limits
from ckptstore._metadata import check_stored_metadata, plain_metadata
from ckptstore._msgpack import pack, unpack
from ckptstore.errors import ConfigError, LimitExceededError, ManifestCorruptError

LIMITS = Limits()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | TEXT
    | st.binary(max_size=10)
)
PLAIN = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


def plain(value: object, limits: Limits = LIMITS) -> Any:
    return plain_metadata("metadata", {"x": value}, limits)["x"]


def read_back(metadata: dict[str, Any]) -> dict[str, Any]:
    tree = unpack(pack(metadata), what="metadata", max_items=10**6)
    return check_stored_metadata(tree, "metadata", LIMITS)


def torch() -> Any:
    return pytest.importorskip("torch")


@given(st.dictionaries(TEXT, PLAIN, max_size=4))
def test_plain_data_comes_back_as_it_went_in(metadata: dict[str, Any]) -> None:
    before = copy.deepcopy(metadata)
    found = read_back(plain_metadata("metadata", metadata, LIMITS))
    assert found == metadata == before
    assert repr(found) == repr(metadata)


def test_none_is_no_metadata() -> None:
    assert plain_metadata("metadata", None, LIMITS) == {}
    assert plain_metadata("metadata", {}, LIMITS) == {}


def test_nothing_is_shared_with_the_users_object() -> None:
    given = {"a": {"b": [1, {"c": 2}]}}
    found = plain_metadata("metadata", given, LIMITS)
    assert found == given
    given["a"]["b"].append(3)
    given["a"]["b"][1]["c"] = 4  # type: ignore[index]
    assert found == {"a": {"b": [1, {"c": 2}]}}


def test_mappings_and_tuples_become_plain() -> None:
    found = plain(types.MappingProxyType({"t": (1, (2,)), "d": collections.OrderedDict(z=1, a=2)}))
    assert found == {"t": [1, [2]], "d": {"z": 1, "a": 2}}
    assert type(found) is type(found["d"]) is dict
    assert list(found["d"]) == ["z", "a"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1.7976931348623157e308])
def test_every_float_keeps_its_bits(value: float) -> None:
    found = read_back({"x": plain(value)})["x"]
    assert pack(found) == pack(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.5), 0.5),
        (np.float32(0.5), 0.5),
        (np.float16(0.5), 0.5),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.bytes_(b"bytes"), b"bytes"),
        (np.array(0.5), 0.5),
        (np.array([7]), 7),
    ],
)
def test_single_numbers_of_numpy_become_plain(value: Any, expected: Any) -> None:
    before = copy.deepcopy(value)
    found = plain(value)
    assert type(found) is type(expected)
    assert found == expected
    assert value == before
    assert type(value) is type(before)


def test_nan_of_numpy_is_nan() -> None:
    assert math.isnan(plain(np.float32("nan")))


@pytest.mark.torch
def test_single_numbers_of_torch_become_plain() -> None:
    t = torch()
    for value, expected in [
        (t.tensor(0.5), 0.5),
        (t.tensor([0.5], requires_grad=True), 0.5),
        (t.nn.Parameter(t.tensor(0.5)), 0.5),
        (t.tensor(0.5, dtype=t.bfloat16), 0.5),
        (t.tensor(3), 3),
        (t.tensor(True), True),
    ]:
        found = plain(value)
        assert type(found) is type(expected)
        assert found == expected


@pytest.mark.torch
def test_a_tensor_that_is_no_single_number_is_refused() -> None:
    t = torch()
    for value in (t.zeros(2), t.zeros(1, 1), t.zeros(0), t.tensor(1j), t.empty((), device="meta"), t.float32):
        with pytest.raises(ConfigError, match=r"metadata\['x'\] is a torch"):
            plain(value)


class Color(enum.Enum):
    RED = 1


class Whole(enum.IntEnum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [
        object(), {1, 2}, frozenset(), bytearray(b"x"), memoryview(b"x"), 1j, range(3), iter([]), print, int, Color.RED,
        Whole.ONE, datetime.datetime(2024, 1, 1), decimal.Decimal(1), Exception("x"), np.zeros(2), np.zeros((1, 1)),
        np.zeros(0), np.complex64(1), np.longdouble(1), np.datetime64(1, "ns"), np.timedelta64(1, "ns"),
        np.datetime64("2024-01-01"), np.array([object()]), np.array(None), np.dtype("f4"), np.float32, np,
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_would_not_come_back_is_refused_by_its_place(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^metadata\['x'\] is a .*metadata holds"):
        plain(value)
    with pytest.raises(ConfigError, match=r"^metadata\['x'\]\['deep'\]\[1\] is a "):
        plain({"deep": [0, value]})


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 10**400])
def test_an_integer_beyond_64_bits_is_refused_by_its_place(value: int) -> None:
    with pytest.raises(ConfigError, match=r"metadata\['x'\]\[0\] is an integer beyond 64 bits"):
        plain([value])


@pytest.mark.parametrize("value", ["\ud800", "a\udfffb", np.str_("\ud800"), {"\ud800": 1}])
def test_text_that_is_no_unicode_is_refused_by_its_place(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"metadata\['x'\] holds text that is not valid Unicode"):
        plain(value)


@pytest.mark.parametrize("key", [1, None, 1.5, b"x", True, ("a",), math.nan, np.str_("x"), Color.RED])
def test_a_key_that_is_no_string_is_refused(key: Any) -> None:
    with pytest.raises(ConfigError, match=r"^metadata has a key that is not a string"):
        plain_metadata("metadata", {key: 1}, LIMITS)
    with pytest.raises(ConfigError, match=r"^metadata\['x'\] has a key that is not a string"):
        plain({key: 1})


@pytest.mark.parametrize("value", [[], "x", 1, [("a", 1)], object()])
def test_what_is_no_mapping_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"^attributes must be a mapping"):
        plain_metadata("attributes", value, LIMITS)


@pytest.mark.parametrize(
    "value", [b"x" * 10**7, "x" * 10**7, ["x" * 10**6] * 10, list(range(10**7)), {"x" * 10**7: 1}]
)
def test_ten_megabytes_are_refused_and_not_copied(value: Any) -> None:
    with (
        frugal(max_mib=16, max_s=2),
        pytest.raises(ConfigError, match=r"^metadata .*save large values as a field"),
    ):
        plain(value)


def test_the_limit_of_bytes_holds_to_the_byte() -> None:
    size = len(pack({"x": b"y" * 300}))
    assert plain(b"y" * 300, Limits(max_metadata_bytes=size)) == b"y" * 300
    with pytest.raises(ConfigError, match=f"takes {size} bytes"):
        plain(b"y" * 300, Limits(max_metadata_bytes=size - 1))


def test_the_limit_of_depth_holds_to_the_one() -> None:
    assert plain([[1]], Limits(max_depth=3)) == [[1]]
    with pytest.raises(ConfigError, match=r"nested too deeply .*max_depth"):
        plain([[1]], Limits(max_depth=2))


@pytest.mark.parametrize(
    "wrap", [lambda v: [v], lambda v: (v,), lambda v: {"a": v}], ids=["list", "tuple", "dict"]
)
def test_depth_10_000_is_refused(wrap: Any) -> None:
    value: Any = 1
    for _ in range(10_000):
        value = wrap(value)
    with frugal(max_mib=4), pytest.raises(ConfigError, match="nested too deeply"):
        plain(value)


def test_the_deepest_that_can_be_configured_is_stored_and_read() -> None:
    limits = Limits(max_depth=256)
    value: Any = 1
    for _ in range(255):
        value = [value]
    found = plain_metadata("metadata", {"x": value}, limits)
    tree = unpack(pack(found), what="metadata", max_items=1000)
    assert check_stored_metadata(tree, "metadata", limits) == found


def test_what_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ConfigError, match="nested too deeply"):
        plain(loop)


def test_a_list_that_stands_in_another_a_thousand_times_is_refused_at_once() -> None:
    value: Any = [1]
    for _ in range(20):
        value = [value] * 1000
    with frugal(max_mib=4), pytest.raises(ConfigError, match="takes more"):
        plain(value, Limits(max_metadata_bytes=10_000))


def test_stored_metadata_obeys_the_limits_of_the_reader() -> None:
    stored = {"a": [[1]], "b": "x" * 50}
    size = len(pack(stored))
    assert check_stored_metadata(stored, "metadata", Limits(max_depth=3, max_metadata_bytes=size)) == stored
    for limits in (Limits(max_depth=2), Limits(max_metadata_bytes=size - 1)):
        with pytest.raises(LimitExceededError, match="metadata"):
            check_stored_metadata(stored, "metadata", limits)


@pytest.mark.parametrize("value", [object(), (1,), {1: 2}, {"a": {2: 3}}, [1j], bytearray(b"x")])
def test_stored_metadata_that_is_not_plain_is_refused(value: Any) -> None:
    with pytest.raises(ManifestCorruptError, match="metadata"):
        check_stored_metadata({"x": value}, "metadata", LIMITS)
    with pytest.raises(ManifestCorruptError, match="metadata"):
        check_stored_metadata([value], "metadata", LIMITS)
