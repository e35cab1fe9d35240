"""What graphs tell without their bytes, also graphs that lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ckptstore import _msgpack
from ckptstore.config import Limits
from ckptstore.errors import CheckpointStoreError, FormatError, ManifestCorruptError
from ckptstore.serializers import Outline, Registry, RestorePlan, dump


def outline(graph: Any, sizes: list[int] | None = None) -> Outline:
    plan = RestorePlan(["f"], limits=Limits(), registry=Registry())
    plan.add_graph("f", graph if type(graph) is bytes else _msgpack.pack(graph), sizes or [])
    return plan.outline()


def entries_of(graph: Any) -> Any:
    told = outline(graph)
    return told.entries(told.root("f"))


def of(value: object) -> Outline:
    (field,) = dump({"f": value}, limits=Limits(), registry=Registry())
    return outline(field.graph, [block.view.nbytes for block in field.blocks])


def test_leaves_have_the_paths_that_a_dump_lists() -> None:
    shared = np.arange(3.0)
    value = {
        "a": [shared, (np.ones(2), shared)],
        (1, 2): np.zeros(4),
        "k" * 100: {"x": np.zeros(1)},
        7: {None: np.zeros((2, 0))},
    }
    (field,) = dump({"f": value}, limits=Limits(), registry=Registry())
    found = of(value).leaves("f")
    assert list(found) == [leaf.path for leaf in field.leaves]
    assert all(spot is not None for spot in found.values())


def test_paths_that_cannot_be_told_apart_lead_nowhere() -> None:
    long = "k" * 90
    found = of({long + "1": np.zeros(1), long + "2": np.ones(1), "x": np.ones(2)}).leaves("f")
    assert [spot is None for spot in found.values()] == [True, False]


def test_very_deep_values_have_an_outline() -> None:
    value: Any = [np.zeros(1)]
    for _ in range(5000):
        value = [value]
    (path,) = of(value).leaves("f")
    assert "more)" in path


@pytest.mark.parametrize(
    "nodes",
    [
        [["dict", [[1], 1]], ["tuple", [[1]]]],
        [["dict", [[1], 1]], ["scalar", ["struct", ["a"], ["<i2"], [0], [None], 2, False], b"ab"]],
        [["dict", [[1], 1]], ["scalar", "<f99", b"ab"]],
    ],
    ids=["a tuple in itself", "a key that cannot be hashed", "a dtype that there is not"],
)
def test_keys_that_cannot_be_are_errors_of_ours(nodes: list[Any]) -> None:
    with pytest.raises(FormatError):
        entries_of([[0], nodes])


def test_a_list_as_a_key_is_left_out() -> None:
    assert list(entries_of([[0], [["dict", [[1], 1, "x", 2]], ["list", []]]])) == ["x"]


def test_keys_that_would_take_for_ever_to_hash_are_refused() -> None:
    nodes: list[Any] = [["dict", [[1], 1]]]
    nodes += [["tuple", [[at + 1], [at + 1]]] for at in range(1, 60)] + [["tuple", []]]
    with pytest.raises(CheckpointStoreError, match="same large tuples"):
        entries_of([[0], nodes])


def test_a_dtype_that_this_machine_lacks_is_no_error_of_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    told = of(np.zeros(3))

    def lacking(_: object) -> None:
        raise TypeError("data type not understood")

    monkeypatch.setattr("ckptstore.serializers._outline.rebuild", lacking)
    with pytest.raises(ManifestCorruptError, match="field 'f'"):
        told.leaf(told.root("f"))
