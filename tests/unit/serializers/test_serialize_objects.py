from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import functools
import itertools
import pathlib
import random
from typing import Any

import numpy as np
import pytest
from trip import data_bytes, dumped, loaded, planned, trip, trip_one

from ckptstore.errors import CheckpointStoreError


class Thing:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("a", "b")


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: Any = None


class Counted:
    """Counts how often it is pickled."""

    pickled = 0

    def __init__(self, payload: Any = None) -> None:
        self.payload = payload

    def __getstate__(self) -> dict[str, Any]:
        type(self).pickled += 1
        return {"payload": self.payload}


class Changing:
    """Changes whenever it is pickled."""

    def __init__(self) -> None:
        self.times = 0

    def __getstate__(self) -> dict[str, Any]:
        self.times += 1
        return {"times": self.times}


class OutOfBand:
    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        import pickle

        return OutOfBand, (pickle.PickleBuffer(self.data),)


@pytest.mark.parametrize(
    "value",
    [
        Point(1, [2]), datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc), decimal.Decimal("1.50"),
        collections.defaultdict(list, {"a": [1]}), collections.Counter("aab"), collections.deque([1, 2], 3),
        pathlib.PurePosixPath("/a"), Thing, len, functools.partial(int, base=2),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_what_pickle_can_save_comes_back(value: Any) -> None:
    back = trip_one(value)
    assert type(back) is type(value)
    assert back == value or isinstance(value, functools.partial)


def test_random_generators_go_on_where_they_were() -> None:
    generator = random.Random(5)
    back = trip_one(generator)
    assert back.random() == generator.random()


def test_an_object_shared_by_two_fields_is_one_again() -> None:
    config = Thing(depth=3, data=np.arange(4))
    values = {
        "model": Thing(config=config, w=np.zeros(1000)),
        "config": config,
        "other": [Thing(config=config)],
    }
    back = trip(values)
    assert back["model"].config is back["config"] is back["other"][0].config


def test_loading_a_shared_object_alone_does_not_bring_its_owner() -> None:
    config = Thing(depth=3, data=np.arange(4))
    fields = dumped({"model": Thing(config=config, w=np.zeros(1000)), "config": config})
    plan = planned(fields, ["config"])
    assert sum(fields[name].blocks[at].view.nbytes for name, at in plan.blocks) == 32
    assert plan.build(loaded(fields, plan))["config"].depth == 3


def test_an_object_shared_deep_inside_two_others_is_one_again() -> None:
    leaf = Thing(name="leaf")
    middle = Thing(leaf=leaf, items=[leaf])
    values = {
        "a": Thing(x=[{"m": middle}]),
        "b": Thing(y=middle, z=leaf),
        "c": Thing(only=middle.items),
        "d": leaf,
    }
    back = trip(values)
    tied = back["a"].x[0]["m"]
    assert back["b"].y is tied
    assert back["b"].z is tied.leaf is tied.items[0] is back["d"]
    assert back["c"].only is tied.items


def test_every_order_of_fields_keeps_what_they_share() -> None:
    a, b, c = Thing(), Thing(), Thing()
    a.b, b.c, c.data = b, c, [1]
    a.deep = {"c": c}
    values = {"a": a, "b": b, "c": c, "data": c.data}
    for order in itertools.permutations(values):
        back = trip({name: values[name] for name in order})
        assert back["a"].b is back["b"]
        assert back["b"].c is back["c"] is back["a"].deep["c"]
        assert back["c"].data is back["data"]


def test_plain_containers_inside_objects_are_shared_with_fields() -> None:
    settings: dict[str, Any] = {"lr": 0.1}
    back = trip({"object": Thing(settings=settings), "settings": settings})
    assert back["object"].settings is back["settings"]
    assert dumped({"object": Thing(settings=settings), "settings": settings})["settings"].kind == "tree"


def test_cycles_through_objects_close_again() -> None:
    parent, child = Thing(name="p"), Thing(name="c")
    parent.children, child.parent = [child], parent
    back = trip({"child": child, "parent": parent, "children": parent.children})
    assert back["child"].parent is back["parent"]
    assert back["parent"].children is back["children"]
    assert back["children"][0] is back["child"]
    alone = trip({"child": child, "parent": parent}, roots=["parent"])["parent"]
    assert alone.children[0].parent is alone


def test_a_cycle_keeps_what_lies_outside_it_out_of_the_pickle() -> None:
    data = np.zeros(1000)
    outside = {"data": data, "list": [1]}
    node = Thing(outside=outside)
    ring = [node]
    node.ring = ring
    fields = dumped({"ring": ring, "outside": outside})
    assert len(fields["ring"].graph) < 500
    back = trip({"ring": ring, "outside": outside})
    assert back["ring"][0].ring is back["ring"]
    assert back["ring"][0].outside is back["outside"]


def test_a_tuple_inside_its_own_object_comes_back() -> None:
    thing = Thing()
    pair = ([thing], thing)
    thing.pair = pair
    back = trip_one(pair)
    assert back[1].pair is back
    assert back[0][0] is back[1]


def test_many_objects_that_refer_to_one_another_need_no_deep_recursion() -> None:
    things = [Thing(i=i) for i in range(3000)]
    for one, two in itertools.pairwise(things):
        one.next = two
    back = trip_one(things)
    assert all(one.next is two for one, two in itertools.pairwise(back))


def test_many_objects_that_share_one_are_pickled_about_once() -> None:
    Counted.pickled = 0
    shared = Thing(x=1)
    things = [Counted(shared) for _ in range(200)]
    back = trip_one(things)
    assert len({id(thing.payload) for thing in back}) == 1
    assert Counted.pickled <= 210


def test_unshared_objects_are_pickled_exactly_once() -> None:
    Counted.pickled = 0
    trip({"a": Counted([1]), "b": [Counted({"k": Counted()})]})
    assert Counted.pickled == 3


def test_slots_sets_and_object_keys_come_back() -> None:
    slotted = Slotted()
    slotted.a = np.arange(3)
    slotted.b = slotted
    key = Thing(k=1)
    back = trip({"slotted": slotted, "keys": {key: 1}, "set": {key}, "key": key})
    assert back["slotted"].b is back["slotted"]
    assert back["slotted"].a.tolist() == [0, 1, 2]
    assert next(iter(back["keys"])) is back["key"]
    assert back["set"] == {back["key"]}


def test_an_object_that_changes_when_pickled_still_comes_back() -> None:
    thing = Changing()
    back = trip({"a": thing, "b": [thing], "c": Thing(thing=thing)})
    assert back["a"] is back["b"][0] is back["c"].thing
    assert back["a"].times >= 1


@pytest.mark.parametrize("data", [b"abc" * 100, bytearray(b"abc" * 100), b"", np.arange(10)], ids=type)
def test_out_of_band_buffers_travel_as_blocks(data: Any) -> None:
    field = dumped({"v": OutOfBand(data)})["v"]
    assert len(field.graph) < 200
    back = trip_one(OutOfBand(data))
    assert bytes(back.data) == bytes(data)
    assert memoryview(back.data).readonly == memoryview(data).readonly


def test_arrays_inside_objects_are_nodes_and_leaves() -> None:
    array = np.arange(1000.0)
    thing = Thing(x={"y": [array]}, view=array[10:20])
    field = dumped({"v": thing})["v"]
    assert data_bytes(field) == 8000
    assert [(leaf.path, leaf.nbytes, leaf.block) for leaf in field.leaves] == [
        (".view", 80, 0),
        (".x['y'][0]", 8000, 0),
    ]
    back = trip_one(thing)
    back.view[0] = -1
    assert back.x["y"][0][10] == -1


def test_object_arrays_share_their_elements() -> None:
    inner = [1]
    cells = np.empty(2, object)
    cells[0] = inner
    cells[1] = np.arange(1000)
    field = dumped({"cells": cells, "inner": inner})["cells"]
    assert len(field.graph) < 400
    back = trip({"cells": cells, "inner": inner})
    assert back["cells"][0] is back["inner"]


def test_the_fields_that_run_code_when_loaded_are_named_before_anything_runs() -> None:
    fields = dumped({"plain": [1], "thing": [Thing(x=1)], "uses": {"k": 1}})
    assert [field.kind for field in fields.values()] == ["tree", "pickle", "tree"]
    assert fields["thing"].globals == [f"{__name__}.Thing"]
    assert planned(fields, ["plain", "uses"]).pickled == {}
    assert planned(fields, ["plain", "thing"]).pickled == {"thing": [f"{__name__}.Thing"]}


def test_a_field_that_only_refers_to_a_pickled_part_is_pickled_too() -> None:
    thing = Thing(x=1)
    fields = dumped({"first": thing, "second": [thing]})
    assert fields["second"].kind == "pickle"
    assert fields["second"].globals == [f"{__name__}.Thing"]
    assert list(planned(fields, ["second"]).pickled) == ["first"]


def test_a_class_that_is_gone_is_named() -> None:
    global Gone

    class Gone:  # type: ignore[no-redef]
        pass

    Gone.__qualname__ = "Gone"
    fields = dumped({"v": {"k": Gone()}})
    plan = planned(fields, ["v"])
    del globals()["Gone"]
    with pytest.raises(CheckpointStoreError, match=rf"field 'v' needs {__name__}.Gone"):
        plan.build(loaded(fields, plan))


class Refuses:
    def __setstate__(self, state: Any) -> None:
        raise ZeroDivisionError("not today")

    def __getstate__(self) -> int:
        return 1


def test_an_error_while_restoring_names_the_field_and_keeps_its_cause() -> None:
    with pytest.raises(CheckpointStoreError, match=r"field 'value'.*ZeroDivisionError: not today") as caught:
        trip_one(Refuses())
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_the_same_objects_give_the_same_bytes() -> None:
    shared = Thing(x=1)
    values = {"a": Thing(s=shared, w=np.arange(3)), "b": [shared, Thing(r=shared)]}
    one, two = dumped(values), dumped(values)
    for name in values:
        assert one[name].graph == two[name].graph


def test_a_long_chain_that_is_also_listed_keeps_its_links() -> None:
    chain = [Thing(i=i) for i in range(60)]
    for one, two in itertools.pairwise(chain):
        one.next = two
    for order in (["all", "first"], ["first", "all"], ["last", "all", "first"]):
        values = {"all": Thing(items=tuple(chain)), "first": Thing(x=chain[0]), "last": chain[-1]}
        back = trip({name: values[name] for name in order})
        items = back["all"].items
        assert back["first"].x is items[0]
        assert all(one.next is two for one, two in itertools.pairwise(items))
        assert items[-1] is back.get("last", items[-1])


class Fickle:
    """Hands out other parts of itself whenever it is pickled."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.pool: list[Any] = []

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.rng.sample(self.pool, 2)}


def test_objects_that_share_other_things_each_time_come_back_whole() -> None:
    for seed in range(60):
        rng = random.Random(seed)
        fickle = [Fickle(rng) for _ in range(rng.randrange(2, 12))]
        pool = [*fickle, *(Thing(i=i) for i in range(6))]
        for one in fickle:
            one.pool = [rng.choice(pool) for _ in range(4)]
        back = trip({str(i): one for i, one in enumerate(fickle)})
        assert all(len(one.parts) == 2 for one in back.values())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    fields = dumped({"v": [np.arange(3)]})
    plan = planned(fields, ["v"])
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(CheckpointStoreError, match="field 'v' holds data of kind 'array', and numpy"):
        plan.build(loaded(fields, plan))


class Key:
    def __init__(self, fails: bool) -> None:
        self.fails = fails

    def __hash__(self) -> int:
        return {False: 1}[self.fails]


def test_an_element_whose_hash_fails_is_an_error_of_ours() -> None:
    key = Key(False)
    value = {key}
    key.fails = True
    with pytest.raises(CheckpointStoreError, match=r"field 'value'.*KeyError"):
        trip_one(value)
