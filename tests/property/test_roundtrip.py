"""Whatever can be nested comes back: values, shared references, cycles, views."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ckptstore.config import Limits
from ckptstore.serializers import DumpedField, Registry, RestorePlan, dump

LIMITS = Limits()
RUNS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def dumped(values: dict[str, Any]) -> dict[str, DumpedField]:
    """Return the dumped fields by name."""
    return {field.name: field for field in dump(values, limits=LIMITS, registry=Registry())}


def trip(values: dict[str, Any], roots: list[str] | None = None) -> dict[str, Any]:
    """Return what comes back."""
    fields = dumped(values)
    plan = RestorePlan(roots or list(values), limits=LIMITS, registry=Registry(), trusted=True)
    while plan.wanted:
        for name in plan.wanted:
            plan.add_graph(name, fields[name].graph, [block.view.nbytes for block in fields[name].blocks])
    return plan.build(
        {(name, at): memoryview(bytearray(fields[name].blocks[at].view)) for name, at in plan.blocks}
    )


class Thing:
    """Any object of a user."""


def shape_of(values: dict[str, Any]) -> list[Any]:
    """Return a description of an object graph that is equal for equal graphs: types, contents, identities."""
    numbers: dict[int, int] = {}
    keep: list[Any] = []
    out: list[Any] = []
    stack: list[Any] = [values]
    while stack:
        value = stack.pop()
        kind = type(value)
        if kind in (list, dict, set, np.ndarray, Thing) or (kind is tuple and value):
            if id(value) in numbers:
                out.append(("again", numbers[id(value)]))
                continue
            numbers[id(value)] = len(numbers)
            keep.append(value)
        if kind in (list, tuple):
            out.append((kind, len(value)))
            stack.extend(reversed(value))
        elif kind is dict:
            out.append((kind, [(type(key), repr(key)) for key in value]))
            stack.extend(reversed(list(value.values())))
        elif kind is Thing:
            out.append((kind, list(vars(value))))
            stack.extend(reversed(list(vars(value).values())))
        elif kind in (set, frozenset):
            out.append((kind, sorted(map(repr, value))))
        elif kind is np.ndarray:
            out.append((kind, str(value.dtype), value.shape, value.tobytes(), value.flags.writeable))
        else:
            out.append((kind, repr(value)))
    return out


text = st.text(st.characters(codec=None), max_size=6) | st.just("x" * 300)
atoms = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.complex_numbers()
    | text
    | st.binary(max_size=6)
)
keys = st.recursive(atoms, lambda inner: st.tuples(inner, inner), max_leaves=3)


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Any]:
    """Draw fields over a pool of containers that refer to one another at will."""
    pool: list[Any] = []
    for kind in draw(
        st.lists(st.sampled_from(["list", "dict", "thing", "tuple", "set", "array"]), min_size=1, max_size=9)
    ):
        if kind == "list":
            pool.append([])
        elif kind == "dict":
            pool.append({})
        elif kind == "thing":
            pool.append(Thing())
        elif kind == "set":
            pool.append(draw(st.sets(keys, max_size=3)))
        elif kind == "array":
            pool.append(draw(hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(max_side=3))))
        else:
            pool.append(tuple(draw(st.lists(st.sampled_from(pool), max_size=3))) if pool else ())
    members = st.sampled_from(pool) | atoms
    for container in pool:
        if type(container) is list:
            container.extend(draw(st.lists(members, max_size=4)))
        elif type(container) is dict:
            container.update(draw(st.dictionaries(keys, members, max_size=3)))
        elif type(container) is Thing:
            for name in draw(st.sets(st.sampled_from(["a", "b", "c"]))):
                setattr(container, name, draw(members))
    names = draw(st.lists(text.filter(bool), min_size=1, max_size=4, unique=True).filter(_encodable))
    return {name: draw(members) for name in names}


def _encodable(names: list[str]) -> bool:
    return all(name.isprintable() for name in names)


@RUNS
@given(graphs())
def test_every_object_graph_comes_back_with_its_identities(values: dict[str, Any]) -> None:
    assert shape_of(trip(values)) == shape_of(values)


@RUNS
@given(graphs())
def test_every_field_alone_comes_back_as_it_was(values: dict[str, Any]) -> None:
    for name, value in values.items():
        assert shape_of(trip(values, [name])) == shape_of({name: value})


@RUNS
@given(graphs())
def test_a_dump_is_deterministic(values: dict[str, Any]) -> None:
    one, two = dumped(values), dumped(values)
    for name in values:
        assert one[name].graph == two[name].graph
        assert [bytes(b.view) for b in one[name].blocks] == [bytes(b.view) for b in two[name].blocks]


def dtypes() -> Any:
    """Draw dtypes, also nested ones."""
    simple = hnp.scalar_dtypes() | hnp.byte_string_dtypes() | hnp.unicode_string_dtypes()
    return simple | hnp.nested_dtypes(simple, max_leaves=4)


@RUNS
@given(st.data())
def test_every_array_and_view_comes_back(data: st.DataObject) -> None:
    dtype = data.draw(dtypes())
    array = data.draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)))
    index = data.draw(hnp.basic_indices(array.shape, allow_ellipsis=True))
    view = np.asarray(array[index]) if dtype.names is None else array[index]
    order = data.draw(st.permutations(range(array.ndim)))
    values = {"a": array, "v": view, "t": array.transpose(order)}
    for roots in (None, ["v"], ["t"]):
        for name, back in trip(values, roots).items():
            value = values[name]
            assert type(back) is type(value)
            assert back.dtype == value.dtype
            assert back.shape == value.shape
            assert back.tobytes() == value.tobytes()


@RUNS
@given(st.data())
def test_views_that_shared_memory_share_it_again(data: st.DataObject) -> None:
    base = np.arange(24, dtype="i4").reshape(2, 3, 4)
    views = [base[data.draw(hnp.basic_indices(base.shape, allow_ellipsis=True))] for _ in range(3)]
    views = [view for view in views if isinstance(view, np.ndarray)]
    back = trip({"views": views})["views"]
    for view in back:
        if view.size:
            view.flat[0] = -view.flat[0] - 1
    for view in views:
        if view.size:
            view.flat[0] = -view.flat[0] - 1
    assert [view.tolist() for view in back] == [view.tolist() for view in views]
