from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from trip import dumped

from ckptstore.serializers import Leaf


class Thing:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class Slotted:
    __slots__ = ("w",)


def paths(value: Any) -> list[str]:
    """Return the paths of the leaves of one field."""
    return [leaf.path for leaf in dumped({"v": value})["v"].leaves]


def test_a_field_that_is_an_array_is_a_leaf_without_a_path() -> None:
    assert dumped({"v": np.zeros((2, 3), "f4")})["v"].leaves == [Leaf("", "numpy", "float32", (2, 3), 24, 0)]


def test_leaves_are_named_by_the_way_to_them() -> None:
    a = np.zeros(1)
    assert paths({"w": a}) == ["['w']"]
    assert paths([a.copy(), (a.copy(), {"k": [a]})]) == ["[0]", "[1][0]", "[1][1]['k'][0]"]
    assert paths({1: a, ("t", 1): a.copy(), None: a.copy()}) == ["[1]", "[<1>]", "[None]"]
    assert paths([Thing(x=a)]) == ["[0].x"]
    slotted = Slotted()
    slotted.w = a
    assert paths({"s": Thing(slotted=[slotted])}) == ["['s'].slotted[0].w"]


def test_leaves_that_no_attribute_leads_to_have_a_stable_number() -> None:
    pd = pytest.importorskip("pandas")
    found = paths([pd.Series(np.arange(3.0))])
    assert len(found) >= 1
    assert found == paths([pd.Series(np.arange(3.0))])


def test_an_array_inside_a_shared_object_is_listed_by_both_fields_and_counted_once() -> None:
    config = Thing(w=np.zeros(10))
    fields = dumped({"a": Thing(c=config), "b": config, "c": {"again": config.w}})
    assert fields["a"].leaves == [Leaf(".c.w", "numpy", "float64", (10,), 80, 0)]
    assert fields["b"].leaves == [Leaf(".w", "numpy", "float64", (10,), 0, None)]
    assert fields["c"].leaves == [Leaf("['again']", "numpy", "float64", (10,), 0, None)]


def test_views_name_the_block_they_lie_in() -> None:
    base = np.zeros(10)
    assert [leaf.block for leaf in dumped({"v": ["x" * 999, base, base[3:], np.zeros(0)]})["v"].leaves] == [
        1,
        1,
        None,
    ]


def test_what_is_no_array_is_no_leaf() -> None:
    assert paths([1, "x" * 999, np.float32(3), {"k": Thing(x=[1])}]) == []


def test_a_wide_object_graph_is_listed_in_bounded_time() -> None:
    ring = Thing(w=np.zeros(3))
    ring.self = ring
    ring.many = [Thing(i=i, ring=ring) for i in range(2000)]
    assert paths(ring) == [".w"]


@pytest.mark.torch
def test_modules_name_their_leaves_as_in_their_state_dict() -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ModuleDict({"x": torch.nn.BatchNorm1d(2)}))
    assert paths(net) == list(net.state_dict())
    assert paths({"nets": [net]}) == [f"['nets'][0].{name}" for name in net.state_dict()]
    optimizer = torch.optim.Adam(net.parameters())
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert ".state[<0>]['exp_avg']" in paths(optimizer)
    assert ".param_groups[0]['params'][0]" in paths(optimizer)
