from __future__ import annotations

import enum
import math
import os
import struct
import subprocess
import sys
from collections import OrderedDict
from typing import Any

import pytest
from trip import dumped, planned, trip, trip_one

from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError


class Colour(enum.IntEnum):
    RED = 1


class Word(str):
    __slots__ = ()


class Items(list[Any]):
    pass


ATOMS = [
    None, True, False, 0, 1, -1, 2**63, 2**64 - 1, -(2**63), 2**64, -(2**63) - 1, 3**5000, -(3**5000),
    0.0, -0.0, 1.5, math.inf, -math.inf, 5e-324, "", "a", "ü€😀", "\ud800", "a\udfffb", "\0", "x" * 256, "x" * 257,
    "\ud800" * 300, "ü" * 10_000, b"", b"\0\xff", b"b" * 256, b"b" * 257, bytearray(b""), bytearray(b"abc"),
    bytearray(5000), 1 + 2j, complex(-0.0, math.inf), (), [], {}, set(), frozenset(), ((),), [[]], (None,),
    {"a": 1, 2: "b", None: None, (1, ("x", 2)): [], 1.5: {}, True: 0, b"k": 0, frozenset({1, 2}): 3},
    {1, "a", None, (1, 2), frozenset({3}), 2**70, "long" * 100}, frozenset({1.5, "x"}),
    OrderedDict([("b", 1), ("a", OrderedDict())]),
]  # fmt: skip


def same(left: Any, right: Any) -> bool:
    """Equality that also looks at types, the sign of zero and the order of dicts."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, complex):
        return same(left.real, right.real) and same(left.imag, right.imag)
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, b) and same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)


def name_of(value: object) -> str:
    # The order of a set is another one in each process, and the names of tests must not be.
    shown = len(value) if isinstance(value, (set, frozenset)) else repr(value)[:20]
    return f"{type(value).__name__}-{shown!a}"


@pytest.mark.parametrize("value", ATOMS, ids=name_of)
def test_plain_values_come_back_equal_and_of_their_type(value: Any) -> None:
    assert same(trip_one(value), value)
    assert same(trip_one([value, {"k": value}])[1]["k"], value)
    assert dumped({"value": value})["value"].kind == "tree"


def test_nan_comes_back_with_its_bits() -> None:
    nan = struct.unpack("<d", struct.pack("<Q", 0xFFF8000000000123))[0]
    assert struct.pack("<d", trip_one([nan])[0]) == struct.pack("<d", nan)


@pytest.mark.parametrize("value", [Colour.RED, Word("w"), Items([1]), range(3), slice(1, 2), ...])
def test_subclasses_and_other_builtins_keep_their_type_through_pickle(value: Any) -> None:
    back = trip_one(value)
    assert back == value
    assert type(back) is type(value)
    assert dumped({"value": value})["value"].kind == "pickle"


def test_an_ordered_dict_keeps_its_attributes() -> None:
    state: Any = OrderedDict(a=1)
    state._metadata = {"version": 2, "self": state}
    back = trip_one(state)
    assert back == state
    assert back._metadata["version"] == 2
    assert back._metadata["self"] is back


@pytest.mark.parametrize("name", ["n" * 300, "\ud800", Word("word")])
def test_an_ordered_dict_with_attributes_of_odd_names_comes_back(name: str) -> None:
    state: Any = OrderedDict(a=[1])
    vars(state)[name] = 5
    back = trip_one([state, state])
    assert back[0] is back[1]
    assert back[0] == state
    assert vars(back[0]) == {name: 5}


def test_a_container_that_stands_in_two_places_is_one_again() -> None:
    inner = [1]
    pair = (inner, 2)
    back = trip({"a": [inner, inner, {"k": inner}], "b": inner, "c": [pair, pair], "d": {"s": inner}})
    assert back["a"][0] is back["a"][1] is back["a"][2]["k"] is back["b"] is back["c"][0][0] is back["d"]["s"]
    assert back["c"][0] is back["c"][1]


def test_cycles_through_lists_dicts_and_tuples_close_again() -> None:
    ring: list[Any] = []
    ring.append(ring)
    pair: Any = ([], {})
    pair[0].append(pair)
    pair[1]["pair"] = pair
    pair[1]["both"] = [(pair, pair[1])]
    back = trip({"ring": ring, "pair": pair})
    assert back["ring"][0] is back["ring"]
    tied = back["pair"]
    assert tied[0][0] is tied
    assert tied[1]["pair"] is tied
    assert tied[1]["both"][0][0] is tied
    assert tied[1]["both"][0][1] is tied[1]


def test_a_tuple_reached_first_through_its_own_list_is_whole() -> None:
    shared: list[Any] = []
    outer = (shared, (shared, "x"))
    shared.append(outer)
    shared.append(outer[1])
    back = trip_one([shared, outer])
    assert back[0][0] is back[1]
    assert back[0][1] is back[1][1]
    assert back[1][1] == (back[0], "x")


def test_nesting_of_any_depth_is_saved_and_restored_without_recursion() -> None:
    deep: list[Any] = []
    at = deep
    for depth in range(100_000):
        inner: Any = [] if depth % 3 else {}
        if isinstance(at, dict):
            at["k"] = inner
        else:
            at.append(inner)
        at = inner
    back = trip_one(deep)
    for _ in range(100_000):
        back = back["k"] if isinstance(back, dict) else back[0]
    assert not back


def test_a_million_small_values_are_one_node() -> None:
    many = list(range(1_000_000))
    field = dumped({"many": many})["many"]
    assert field.blocks == []
    assert trip({"many": many})["many"] == many


def test_long_texts_are_blocks_of_their_own_that_nobody_else_can_change() -> None:
    text, data = "ü" * 5000, b"x" * 5000
    field = dumped({"v": [text, data, text]})["v"]
    assert [block.view.nbytes for block in field.blocks] == [10_000, 5000]
    assert all(block.private and block.view.format == "B" and block.view.ndim == 1 for block in field.blocks)
    assert len(field.graph) < 100


def test_a_bytearray_stays_resizable_while_its_dump_lives() -> None:
    data = bytearray(5000)
    field = dumped({"v": data})["v"]
    data.extend(b"x")
    assert field.blocks[0].view.nbytes == 5000


def test_the_same_values_give_the_same_bytes() -> None:
    values = {"a": [1, {"x": {3, 1, 2}}, "y" * 1000], "b": ({"k": 2**80},)}
    one, two = dumped(values), dumped(values)
    for name in values:
        assert one[name].graph == two[name].graph
        assert [bytes(b.view) for b in one[name].blocks] == [bytes(b.view) for b in two[name].blocks]


def test_an_unchanged_field_keeps_its_bytes_when_others_change() -> None:
    inner = {"w": [1, 2, "z" * 500]}
    one = dumped({"first": [1], "kept": inner})["kept"]
    two = dumped({"first": [2, {"more": 3}, "t" * 999], "new": {"a": {}}, "kept": inner})["kept"]
    assert one.graph == two.graph


def test_sets_are_written_in_the_same_order_in_every_process() -> None:
    code = (
        "from ckptstore.serializers import *; from ckptstore.config import Limits\n"
        "v = {'v': [{'a', 'b', 'c', ('d', 1), ('d', ('e', 2)), frozenset({'f', 'g'}), 1, None, 'h' * 300, 2**70},"
        " frozenset('xyz')]}\n"
        "f, = dump(v, limits=Limits(), registry=Registry())\n"
        "print(f.graph.hex(), [bytes(b.view).hex() for b in f.blocks])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(outputs) == 1


def test_loading_one_field_brings_what_it_shares_and_nothing_else() -> None:
    shared = ["s"]
    values = {"big": {"shared": shared, "rest": ["r" * 1000]}, "small": [shared]}
    fields = dumped(values)
    plan = planned(fields, ["small"])
    assert plan.blocks == []
    assert trip(values, roots=["small"]) == {"small": [["s"]]}
    alone = dumped({"big": {"rest": []}, "small": [shared]})
    assert len(planned(alone, ["small"])._graphs) == 1


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_of_nodes_holds_on_the_way_in_and_out(extra: int) -> None:
    limits = Limits(max_nodes=10)
    nodes: list[Any] = [[] for _ in range(9 + extra)]
    fields = dumped({"v": nodes})
    if not extra:
        dumped({"v": nodes}, limits=limits)
        planned(fields, ["v"], limits=limits)
        return
    with pytest.raises(LimitExceededError, match="max_nodes"):
        dumped({"v": nodes}, limits=limits)
    with pytest.raises(LimitExceededError, match="max_nodes"):
        planned(fields, ["v"], limits=limits)


@pytest.mark.parametrize(
    "value", [list(range(11)), dict.fromkeys(range(11)), list(range(1000)), set(range(11))]
)
def test_the_limit_of_elements_holds_on_the_way_in_and_out(value: Any) -> None:
    limits = Limits(max_nodes=10)
    fields = dumped({"v": value})
    with pytest.raises(LimitExceededError, match="max_nodes"):
        dumped({"v": value}, limits=limits)
    with pytest.raises(LimitExceededError, match="max_nodes"):
        planned(fields, ["v"], limits=limits)


def test_the_garbage_collector_is_left_as_it_was() -> None:
    import gc

    gc.disable()
    try:
        dumped({"v": [1]})
        assert not gc.isenabled()
    finally:
        gc.enable()
    dumped({"v": [1]})
    assert gc.isenabled()


def test_numpy_and_torch_are_not_imported_for_plain_values() -> None:
    code = (
        "import sys\nfrom ckptstore.serializers import *; from ckptstore.config import Limits\n"
        "f, = dump({'v': [1, {2: (3,)}, b'x' * 999, object]}, limits=Limits(), registry=Registry())\n"
        "p = RestorePlan(['v'], limits=Limits(), registry=Registry())\n"
        "p.add_graph('v', f.graph, [len(b.view) for b in f.blocks])\n"
        "p.build({k: memoryview(bytearray(f.blocks[k[1]].view)) for k in p.blocks})\n"
        "assert not {'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
