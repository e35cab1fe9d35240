"""Graphs that nobody dumped."""

from __future__ import annotations

import random
from collections import OrderedDict
from typing import Any

import msgpack
import numpy as np
import pytest
from trip import LIMITS, dumped, loaded, planned

from ckptstore.config import Limits
from ckptstore.errors import CheckpointStoreError, FormatError, LimitExceededError, ManifestCorruptError
from ckptstore.serializers import Registry, RestorePlan

OTHER = "other"


def plan(root: Any, nodes: Any, sizes: tuple[int, ...] = (), *, limits: Limits = LIMITS) -> RestorePlan:
    """Return a plan of one field with this graph."""
    made = RestorePlan(["f"], limits=limits, registry=Registry())
    made.add_graph("f", msgpack.packb([root, nodes]), sizes)
    return made


def build(root: Any, nodes: Any, sizes: tuple[int, ...] = ()) -> Any:
    """Return the value of a graph, with zeros for its blocks."""
    made = plan(root, nodes, sizes)
    return made.build({("f", at): memoryview(bytearray(size)) for at, size in enumerate(sizes)})["f"]


def test_the_specified_graph_is_read_as_specified() -> None:
    nodes = [
        ["dict", ["a", [1], "b", [2]]],
        ["list", [1, None, [3]]],
        ["array", "<f8", [2], None, 0, 0, True],
        ["tuple", [[1], -1.5]],
    ]
    back = build([0], nodes, (16,))
    assert back["a"][2][0] is back["a"]
    assert back["b"].tolist() == [0.0, 0.0]


ARRAY = ["array", "<f8", [2], None, 0, 0, True]
TENSOR = ["tensor", "float32", [2], None, 0, 0, "cpu", 0]
PICKLE = ["pickle", b"N.", [], [], [], 0]


def changed(node: list[Any], **parts: Any) -> list[Any]:
    """Return a node with some parts replaced, by position."""
    return [parts.get(f"p{at}", part) for at, part in enumerate(node)]


BAD = {
    "root is a map": ({}, []),
    "root refers to nothing": ([0], []),
    "root refers beyond": ([1], [["list", []]]),
    "root refers below": ([-1], [["list", []]]),
    "root refers by a float": ([0.0], [["list", []]]),
    "root refers by a bool": ([False], [["list", []]]),
    "root refers by nothing": ([], [["list", []]]),
    "root names its own field": (["f", 0], [["list", []]]),
    "reference of three": (["g", 0, 1], []),
    "node without a tag": ([0], [[]]),
    "node that is no list": ([0], [1]),
    "unknown tag": ([0], [["object", []]]),
    "tag of bytes": ([0], [[b"list", []]]),
    "too many parts": ([0], [["list", [], 1]]),
    "too few parts": ([0], [["array"]]),
    "unused node": ([0], [["list", []], ["list", []]]),
    "unused cycle": (None, [["list", [[0]]]]),
    "map as a value": ([0], [["list", [{}]]]),
    "list that is no list": ([0], [["list", 3]]),
    "dict of odd length": ([0], [["dict", [1]]]),
    "dict with a list as key": ([0], [["dict", [[1], 2]], ["list", []]]),
    "set of lists": ([0], [["set", [[1]]], ["list", []]]),
    "frozenset of itself": ([0], [["frozenset", [[0]]]]),
    "tuple of itself": ([0], [["tuple", [[0]]]]),
    "tuples of one another": ([0], [["tuple", [[1]]], ["tuple", [[0]]]]),
    "tuple of itself below a list": ([0], [["list", [[1]]], ["tuple", [[1]]]]),
    "custom of itself": ([0], [["custom", "n", [0]]]),
    "pickle of itself": ([0], [["pickle", b"N.", [], [[0]], [], 0]]),
    "odict with a number as attribute": ([0], [["odict", [], [1, 2]]]),
    "long text inline": ("x" * 257, []),
    "long bytes inline": ([0], [["list", [b"x" * 257]]]),
    "int of a str": ([0], [["int", "x"]]),
    "complex of ints": ([0], [["complex", 1, 2]]),
    "payload out of range": ([0], [["bytes", 0]]),
    "payload below": ([0], [["bytes", -1]]),
    "bad UTF-8": ([0], [["str", b"\xff"]]),
    "unused block": (1, [], (8,)),
    "block out of range": ([0], [changed(ARRAY, p4=1)], (16,)),
    "block of another field by its own name": ([0], [changed(ARRAY, p4=["f", 0])], (16,)),
    "array beyond its block": ([0], [ARRAY], (15,)),
    "array beyond by its offset": ([0], [changed(ARRAY, p5=1)], (16,)),
    "array before by its stride": ([0], [changed(ARRAY, p3=[-8])], (16,)),
    "array beyond by its stride": ([0], [changed(ARRAY, p3=[16])], (16,)),
    "huge strides": ([0], [changed(ARRAY, p3=[2**63])], (16,)),
    "huge offset": ([0], [changed(ARRAY, p5=2**63)], (16,)),
    "negative offset": ([0], [changed(ARRAY, p5=-8)], (16,)),
    "huge shape": ([0], [changed(ARRAY, p2=[2**40, 2**40])], (16,)),
    "huge shape with a zero": ([0], [changed(ARRAY, p2=[2**40, 2**40, 0], p4=None)]),
    "overflowing shape": ([0], [changed(ARRAY, p2=[2**61])], (16,)),
    "negative shape": ([0], [changed(ARRAY, p2=[-1])], (16,)),
    "shape of floats": ([0], [changed(ARRAY, p2=[2.0])], (16,)),
    "shape of bools": ([0], [changed(ARRAY, p2=[True])], (16,)),
    "65 dimensions": ([0], [changed(ARRAY, p2=[1] * 65)], (16,)),
    "strides of another rank": ([0], [changed(ARRAY, p3=[8, 8])], (16,)),
    "elements without a block": ([0], [changed(ARRAY, p4=None)]),
    "block for no elements": ([0], [changed(ARRAY, p2=[0])], (16,)),
    "flag that is a number": ([0], [changed(ARRAY, p6=1)], (16,)),
    **{
        f"dtype {dtype!r}": ([0], [changed(ARRAY, p1=dtype)], (16,))
        for dtype in (
            "O", "|O", "|O8", "object", "f8", "=f8", "<f8,<f8", "<f3", "|V0", "<U0", "<U99999999999", "(2,)<f8",
            "<M8[x]", "<T16", "", None, 8, [], ["sub"], ["sub", "<f8", []], ["sub", "<f8", [0]], ["sub", "O", [1]],
            ["sub", "<f8", [2**40]], ["struct", [], [], [], [], 0, False],
            ["struct", ["a"], ["O"], [0], [None], 8, False],
            ["struct", ["a"], ["<f8"], [1], [None], 8, False], ["struct", ["a"], ["<f8"], [-1], [None], 8, False],
            ["struct", ["a", "a"], ["|i1", "|i1"], [0, 1], [None, None], 8, False],
            ["struct", ["a", "b"], ["|i1", "|i1"], [0, 1], [None, "a"], 8, False],
            ["struct", [1], ["|i1"], [0], [None], 8, False], ["struct", ["a"], ["|i1"], [0], [None], 8, 0],
            ["struct", ["a"], ["<f8"], [1], [None], 16, True],
        )
    },
    "scalar of another size": ([0], [["scalar", "<f8", b"1234567"]]),
    "scalar text of bytes": ([0], [["scalar", "U", b"x"]]),
    "tensor of an unknown dtype": ([0], [changed(TENSOR, p1="float33")], (8,)),
    "tensor of a name of torch": ([0], [changed(TENSOR, p1="load")], (8,)),
    "tensor beyond its block": ([0], [TENSOR], (7,)),
    "tensor with a negative stride": ([0], [changed(TENSOR, p3=[-1], p5=4)], (8,)),
    "tensor with unknown flags": ([0], [changed(TENSOR, p7=16)], (8,)),
    "tensor with a bool as flags": ([0], [changed(TENSOR, p7=True)], (8,)),
    "conjugate real tensor": ([0], [changed(TENSOR, p7=4)], (8,)),
    "tensor without a block": ([0], [changed(TENSOR, p4=None)]),
    "tensor without a device": ([0], [changed(TENSOR, p6=None)], (8,)),
    "storage beyond its block": ([0], [["storage", None, 9, 0, 0, "cpu"]], (8,)),
    "storage without a block": ([0], [["storage", None, 9, None, 0, "cpu"]]),
    "size of a str": ([0], [["torch.Size", ["x"]]]),
    "dtype of torch that is none": ([0], [["torch.dtype", "nn"]]),
    "pickle whose references are values": ([0], [["pickle", b"N.", [], [1], [], 0]]),
    "pickle with a buffer beyond its block": ([0], [["pickle", b"N.", [[0, 1, 8, True]], [], [], 0]], (8,)),
    "pickle with a buffer without a block": ([0], [["pickle", b"N.", [[None, 0, 8, True]], [], [], 0]]),
    "pickle with a name that is a number": ([0], [["pickle", b"N.", [], [], [1], 0]]),
    "pickle of fewer objects": ([0], [["member", [1], 0], ["pickle", b"N.", [], [], [], 1]]),
    "member beyond its pickle": ([0], [["member", [1], 1], ["pickle", b"N\x85.", [], [], [], 1]]),
    "member of a list": ([0], [["member", [1], 0], ["list", [1]]]),
    "member of itself": ([0], [["member", [0], 0]]),
    "member of a single pickle": ([0], [["member", [1], 0], PICKLE]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_graph_is_refused_with_the_fields_name(name: str) -> None:
    with pytest.raises(ManifestCorruptError, match="'f'"):
        build(*BAD[name])


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xc1", b"\x90", b"\x91\xc0", b"\x93\xc0\x90\xc0", b"\x92\xc0\x80", b"\x92\xc0\x90\x00", b"<html>",
        b"\x92\xc0\xdd\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\x92\xd6\xff\0\0\0\0\x90", b"\x92\xd4\x01\0\x90",
        b"\x91" * 10_000, b"\x92\xc0\xdf\xff\xff\xff\xff", b"\x92\xdb\xff\xff\xff\xff",
    ],
)  # fmt: skip
def test_bytes_that_are_no_graph_are_refused(data: bytes) -> None:
    plan = RestorePlan(["f"], limits=LIMITS, registry=Registry())
    with pytest.raises(ManifestCorruptError, match="'f'"):
        plan.add_graph("f", data, ())


def test_a_claim_of_many_elements_allocates_nothing() -> None:
    import tracemalloc

    claims = b"\x92\xc0" + b"\xdd\x00\x1e\x84\x80" * 500
    tracemalloc.start()
    try:
        plan = RestorePlan(["f"], limits=LIMITS, registry=Registry())
        with pytest.raises(FormatError):
            plan.add_graph("f", claims, ())
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_references_to_other_fields_are_checked_when_those_are_there() -> None:
    for root, nodes in [
        ([OTHER, 1], []),
        ([0], [changed(ARRAY, p4=[OTHER, 1])]),
        ([0], [changed(ARRAY, p4=[OTHER, 0], p2=[3])]),
    ]:
        made = plan(root, nodes)
        assert made.wanted == {OTHER}
        with pytest.raises(ManifestCorruptError, match="'other'"):
            made.add_graph(OTHER, msgpack.packb([[0], [["bytes", 0]]]), (16,))


def test_the_order_in_which_graphs_are_added_does_not_matter() -> None:
    shared = np.arange(3)
    fields = dumped({"a": [shared], "b": [shared, shared[1:]]})
    for order in ("ab", "ba"):
        made = RestorePlan(["a", "b"], limits=LIMITS, registry=Registry())
        for name in order:
            made.add_graph(name, fields[name].graph, [block.view.nbytes for block in fields[name].blocks])
        back = made.build(loaded(fields, made))
        assert back["a"][0] is back["b"][0]


def test_more_dimensions_than_the_limit_are_refused() -> None:
    nodes = [changed(ARRAY, p2=[1, 1, 2])]
    plan([0], nodes, (16,), limits=Limits(max_dims=3))
    with pytest.raises(ManifestCorruptError, match="3 dimensions"):
        plan([0], nodes, (16,), limits=Limits(max_dims=2))


@pytest.mark.parametrize("n", [11, 500])
def test_more_nodes_or_elements_than_the_limit_are_refused(n: int) -> None:
    limits = Limits(max_nodes=10)
    with pytest.raises(LimitExceededError, match="max_nodes"):
        plan([0], [["list", [[at + 1] for at in range(n)]], *([["list", []]] * n)], limits=limits)
    with pytest.raises(LimitExceededError, match="max_nodes"):
        plan([0], [["list", [0] * n]], limits=limits)


def test_missing_and_short_blocks_are_refused() -> None:
    made = plan([0], [ARRAY], (16,))
    for blocks in ({}, {("f", 0): memoryview(bytearray(15))}):
        with pytest.raises(ManifestCorruptError, match="block 0 of field 'f'"):
            made.build(blocks)


def test_building_before_all_graphs_are_there_is_refused() -> None:
    made = plan([OTHER, 0], [])
    with pytest.raises(ManifestCorruptError, match="other"):
        made.build({})


def test_a_pickle_that_refers_beyond_its_nodes_is_refused() -> None:
    for stream in (
        b"\x80\x05K\x07Q.",
        b"\x80\x05\x8c\x01xQ.",
        b"\x80\x05J\xff\xff\xff\xffQ.",
        b"\x80\x05\x97.",
    ):
        with pytest.raises(CheckpointStoreError, match="'f'"):
            build([0], [["pickle", stream, [], [], [], 0]])


def test_nothing_of_a_pickle_runs_before_the_build() -> None:
    made = plan([0], [["pickle", b"cbuiltins\nprint\n(Vran\ntR.", [], [], ["builtins.print"], 0]])
    assert made.pickled == {"f": ["builtins.print"]}


def test_every_cut_and_every_flipped_bit_is_refused_or_gives_some_value() -> None:
    values = {
        "f": [{"a": np.arange(4), "b": OrderedDict(x=(1, "y", b"z", 2.5))}, np.zeros((2, 2))[::-1], {1, 2}]
    }
    field = dumped(values)["f"]
    sizes = [block.view.nbytes for block in field.blocks]
    rng = random.Random(7)

    def attempt(graph: bytes) -> None:
        made = RestorePlan(["f"], limits=LIMITS, registry=Registry())
        try:
            made.add_graph("f", graph, sizes)
            made.build({key: memoryview(bytearray(sizes[key[1]])) for key in made.blocks})
        except CheckpointStoreError:
            pass

    for end in range(len(field.graph)):
        attempt(field.graph[:end])
    for at in range(len(field.graph)):
        for bit in range(8):
            attempt(field.graph[:at] + bytes([field.graph[at] ^ (1 << bit)]) + field.graph[at + 1 :])
    for _ in range(500):
        attempt(bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60))))
        attempt(b"\x92\x91\x00\x91" + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60))))


def test_a_dump_that_was_not_changed_passes_every_check() -> None:
    fields = dumped({"f": [np.arange(3), {"k": (1,)}]})
    assert planned(fields, ["f"]).wanted == frozenset()
