"""Small objects of one type share a pickle, and nobody can tell when they come back."""

from __future__ import annotations

import copyreg
import gc
import itertools
import pickle
import random
import threading
import weakref
from datetime import datetime, timedelta
from typing import Any

import msgpack
import numpy as np
import pytest
from trip import data_bytes, dumped, loaded, planned, trip, trip_one

from ckptstore.errors import UnserializableError
from ckptstore.serializers import DumpedField, Registry


class Thing:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Other(Thing):
    pass


class Late:
    pass


class Buffer:
    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: Any) -> Any:
        return Buffer, (pickle.PickleBuffer(self.data),)


def pickles(field: DumpedField) -> int:
    """How many pickles a field has."""
    return sum(node[0] == "pickle" for node in msgpack.unpackb(field.graph)[1])


def test_small_objects_of_one_type_share_a_pickle() -> None:
    field = dumped({"v": [Thing(i=i) for i in range(500)]})["v"]
    assert pickles(field) == 1
    assert [thing.i for thing in trip_one([Thing(i=i) for i in range(500)])] == list(range(500))


def test_objects_in_containers_of_their_own_share_a_pickle_too() -> None:
    values = [{"at": (datetime(2026, 1, 1) + timedelta(hours=i), i)} for i in range(300)]
    assert pickles(dumped({"v": values})["v"]) == 1
    assert trip_one(values) == values


def test_a_long_row_is_cut_into_pieces_of_bounded_size() -> None:
    values = [Thing(text=f"{i:2000}", i=i) for i in range(1000)]
    field = dumped({"v": values})["v"]
    sizes = [block.view.nbytes for block in field.blocks]
    assert 8 <= len(sizes) <= 12
    assert max(sizes) < 300_000
    assert [thing.i for thing in trip_one(values)] == list(range(1000))


def test_a_field_does_not_bring_the_neighbours_of_what_it_shares() -> None:
    things = [Thing(i=i, w=np.full(5, i)) for i in range(50)]
    fields = dumped({"all": things, "best": [things[7]]})
    plan = planned(fields, ["best"])
    assert sum(fields[name].blocks[at].view.nbytes for name, at in plan.blocks) == 40
    both = trip({"all": things, "best": [things[7]]})
    assert both["best"][0] is both["all"][7]


def test_objects_with_large_arrays_stay_apart() -> None:
    things = [Thing(w=np.zeros(100_000)) for _ in range(4)]
    field = dumped({"v": things})["v"]
    assert pickles(field) == 4
    assert data_bytes(field) == 3_200_000


@pytest.mark.parametrize("place", [0, 1, 5, 9])
def test_large_objects_among_small_ones_come_back(place: int) -> None:
    def make() -> list[Any]:
        things = [Thing(i=i, note="n" * 20, out=Buffer(b"b" * 100)) for i in range(10)]
        things[place].large = ["y" * 300_000, bytes(70_000), [0.5] * 20_000]
        things[place].array = np.arange(3)
        return things

    field = dumped({"v": make()})["v"]
    assert pickles(field) == (2 if place in (0, 9) else 3)
    back = trip_one(make())
    assert [thing.i for thing in back] == list(range(10))
    assert [bytes(thing.out.data) for thing in back] == [b"b" * 100] * 10
    assert back[place].large[0] == "y" * 300_000
    assert back[place].array.tolist() == [0, 1, 2]


def test_every_order_of_large_and_small_keeps_what_they_share() -> None:
    for sizes in itertools.product([1, 70_000, 300_000], repeat=3):
        shared = Other(x=[1])
        inner: list[Any] = []
        things = [Thing(text=f"{i:{size}}", shared=shared, inner=inner, i=i) for i, size in enumerate(sizes)]
        back = trip({"v": things, "inner": inner})
        assert [(thing.i, len(thing.text)) for thing in back["v"]] == list(enumerate(sizes))
        assert all(thing.shared is back["v"][0].shared for thing in back["v"])
        assert all(thing.inner is back["inner"] for thing in back["v"])


def test_what_objects_of_different_rows_share_is_one_again() -> None:
    parts = [Other(n=i) for i in range(40)]
    values = {
        "a": [Thing(part=part) for part in parts],
        "b": [Thing(part=part, text=f"{part.n:20000}") for part in reversed(parts)],
        "parts": parts,
    }
    back = trip(values)
    for i, part in enumerate(back["parts"]):
        assert back["a"][i].part is part
        assert back["b"][39 - i].part is part


def test_objects_that_lead_to_one_another_keep_their_links() -> None:
    for order in ("next", "previous", "random"):
        things = [Thing(i=i) for i in range(400)]
        for i, thing in enumerate(things[:-1]):
            thing.next = things[i + 1]
        if order == "previous":
            things.reverse()
        if order == "random":
            random.Random(1).shuffle(things)
        back = trip_one(things)
        by_number = {thing.i: thing for thing in back}
        assert all(by_number[i].next is by_number[i + 1] for i in range(399))


def test_what_only_looks_like_a_cycle_is_none() -> None:
    # a leads by a plain list to b, and both could stand in one row.
    a, b, c = Thing(n="a"), Thing(n="b"), Other(n="c")
    between = [b]
    a.between = between
    c.a = a
    fields = dumped({"things": [b, a], "between": between, "c": [c, Other()]})
    assert [fields[name].kind for name in fields] == ["pickle"] * 3
    assert [node[0] for node in msgpack.unpackb(fields["things"].graph)[1]].count("list") == 2
    back = trip({"things": [b, a], "between": between, "c": [c, Other()]})
    assert back["things"][1].between is back["between"]
    assert back["between"][0] is back["things"][0]
    assert back["c"][0].a is back["things"][1]


def test_a_registered_type_between_two_objects_is_no_cycle() -> None:
    registry = Registry()
    registry.register(Other, "other", dump=lambda other: vars(other), restore=lambda state: Other(**state))
    inner = Thing(n=1)
    back = trip({"v": [inner, Thing(n=2, other=Other(inner=inner))]}, registry=registry)
    assert back["v"][1].other.inner is back["v"][0]


def test_cycles_inside_a_row_close_again() -> None:
    things = [Thing(i=i) for i in range(30)]
    things[3].next, things[4].next = things[4], things[3]
    things[9].all = things
    back = trip({"v": things, "w": (things[3], things[20])})
    assert back["v"][3].next is back["v"][4]
    assert back["v"][4].next is back["v"][3] is back["w"][0]
    assert back["v"][9].all is back["v"]
    assert back["v"][20] is back["w"][1]


def test_random_graphs_of_objects_come_back_the_same() -> None:
    def shape(values: Any) -> list[Any]:
        """The graph as a list that is equal for equal graphs."""
        seen: dict[int, int] = {}
        found: list[Any] = []
        todo = [values]
        while todo:
            value = todo.pop()
            if isinstance(value, (int, str)):
                found.append(value)
                continue
            new = id(value) not in seen
            found.append((type(value).__name__, seen.setdefault(id(value), len(seen))))
            if new:
                parts = (
                    value
                    if isinstance(value, (list, tuple))
                    else [vars(value)[k] for k in sorted(vars(value))]
                )
                todo.extend(value.values() if isinstance(value, dict) else parts)
        return found

    for seed in range(40):
        rng = random.Random(seed)
        nodes: list[Any] = [rng.choice([Thing, Other, Thing])(i=i) for i in range(25)]
        nodes += [[] for _ in range(8)]
        for node in nodes:
            for name in "abc"[: rng.randrange(4)]:
                target = rng.choice(nodes)
                if isinstance(node, list):
                    node.append(target)
                else:
                    setattr(node, name, target)
        values = [rng.sample(nodes, 15), tuple(rng.sample(nodes, 10)), rng.choice(nodes)]
        fields = {f"f{at}": value for at, value in enumerate(values)}
        back = trip(fields)
        assert shape([back[name] for name in fields]) == shape([fields[name] for name in fields]), seed


def test_tied_memory_stays_tied_across_a_row() -> None:
    base = np.arange(100.0)
    things = [Thing(view=base[i : i + 10]) for i in range(20)]
    assert len({leaf.block for leaf in dumped({"v": things, "base": base})["v"].leaves}) == 1
    back = trip({"v": things, "base": base})
    back["base"][5] = -1
    assert back["v"][0].view[5] == back["v"][5].view[0] == -1


def test_the_arrays_of_each_object_are_listed_under_its_path() -> None:
    shared = np.zeros(3)
    things = [Thing(w=np.zeros(2), tag="t") if i % 2 else Thing(s=shared) for i in range(5)]
    field = dumped({"v": things})["v"]
    assert [leaf.path for leaf in field.leaves] == ["[0].s", "[1].w", "[3].w"]
    assert pickles(field) == 1


def test_an_array_of_a_row_that_no_attribute_leads_to_is_listed_once() -> None:
    class_with_state = [Hidden(np.zeros(i + 1)) for i in range(3)]
    assert [leaf.nbytes for leaf in dumped({"v": class_with_state})["v"].leaves] == [8, 16, 24]


class Hidden:
    __slots__ = ("_made",)

    def __init__(self, array: Any) -> None:
        self._made = lambda: array

    def __reduce__(self) -> Any:
        return Hidden, (self._made(),)


def test_what_cannot_be_saved_is_named_in_the_middle_of_a_row() -> None:
    things = [Thing(i=i) for i in range(3000)]
    things[2500].deep = {"x": [threading.Lock()]}
    with pytest.raises(UnserializableError) as caught:
        dumped({"fine": [1], "v": things})
    assert caught.value.path == "v[2500].deep['x'][0]"


def test_the_names_of_a_row_are_all_found() -> None:
    things = [Thing(i=i, x=0.1 * i) for i in range(300)]
    things[200].late = [Late()]
    things[200].other = Other()
    assert dumped({"v": things})["v"].globals == [f"{__name__}.{name}" for name in ("Late", "Other", "Thing")]


def test_extension_codes_of_a_row_are_named() -> None:
    copyreg.add_extension(__name__, "Late", 213)
    try:
        things = [Thing(i=i) for i in range(10)]
        things[5].late = Late()
        field = dumped({"v": things})["v"]
        assert "copyreg.extension 213" in field.globals
    finally:
        copyreg.remove_extension(__name__, "Late", 213)


def test_the_same_rows_give_the_same_bytes() -> None:
    def make() -> dict[str, Any]:
        shared = [1]
        return {"v": [Thing(i=i, shared=shared, text=f"{i:5000}") for i in range(100)]}

    one, two = dumped(make())["v"], dumped(make())["v"]
    assert one.graph == two.graph
    assert [bytes(block.view) for block in one.blocks] == [bytes(block.view) for block in two.blocks]


def test_rows_come_back_in_parts() -> None:
    values = {"a": [Thing(i=i) for i in range(10)], "b": [Thing(i=-i) for i in range(10)]}
    fields = dumped(values)
    plan = planned(fields, ["b"])
    assert [thing.i for thing in plan.build(loaded(fields, plan))["b"]] == [-i for i in range(10)]
    assert list(plan.pickled) == ["b"]


class Restless:
    """Pickles other parts of a common pool each time."""

    def __init__(self, rng: random.Random, pool: list[Any]) -> None:
        self.rng, self.pool = rng, pool

    def __getstate__(self) -> dict[str, Any]:
        return {"parts": self.rng.sample(self.pool, 2)}


def test_a_row_that_shares_other_things_each_time_comes_back_whole() -> None:
    for seed in range(40):
        rng = random.Random(seed)
        pool: list[Any] = [Thing(i=i, text=f"{i:{rng.choice([1, 90_000])}}") for i in range(6)]
        restless = [Restless(rng, pool) for _ in range(12)]
        pool += restless[:3]
        back = trip({"a": restless[:5], "b": restless[5:], "c": pool[:2]})
        assert all(len(one.parts) == 2 for one in back["a"] + back["b"])


def test_a_dump_leaves_nothing_that_only_the_collector_could_free() -> None:
    shared = Other(n=1)
    values = {"v": [Thing(w=np.zeros(3), shared=shared) for _ in range(10)], "one": Thing(shared=shared)}
    gone = [weakref.ref(thing) for thing in [*values["v"], values["one"], shared]]  # type: ignore[misc]
    gc.disable()
    try:
        fields = dumped(values)
        del values, shared
        assert [ref() for ref in gone] == [None] * 12
        assert fields["v"].leaves
    finally:
        gc.enable()
