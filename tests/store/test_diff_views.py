"""Arrays that share memory, and how a difference tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptstore import CheckpointStore, Diff, StoreConfig


def states(diff: Diff) -> dict[str, str]:
    return {name: field.state for name, field in diff.fields.items()}


def leaves(diff: Diff, field: str) -> dict[str, str]:
    return {leaf.path: leaf.state for leaf in diff.fields[field].leaves}


def view(memory: Any, kind: str, at: int) -> Any:
    """Return some array over a piece of memory of 240 float32."""
    return {
        "whole": memory,
        "part": memory[20 * (at % 5) : 20 * (at % 5) + 40],
        "strided": memory[at % 4 :: 3],
        "reversed": memory[::-1],
        "square": memory[:225].reshape(15, 15),
        "transposed": memory[:225].reshape(15, 15).T,
        "column": memory[:225].reshape(15, 15)[:, at % 15],
        "corner": memory[:225].reshape(15, 15)[2:6, at % 7 : at % 7 + 5],
        "spread": np.broadcast_to(memory[at % 240], (3, 2)),
        "bytes": memory.view("u1")[at % 7 : at % 7 + 33],
        "empty": memory[:0],
        "copy": memory[at % 100 : at % 100 + 7].copy(),
    }[kind]


KINDS = [
    "whole",
    "part",
    "strided",
    "reversed",
    "square",
    "transposed",
    "column",
    "corner",
    "spread",
    "bytes",
    "empty",
    "copy",
]
PLACES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 1), st.sampled_from(KINDS), st.integers(0, 300)),
    max_size=8,
)


def built(places: list[Any], memories: list[Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {"a": {}, "b": [], "c": {"deep": {}}}
    for n, (field, memory, kind, at) in enumerate(places):
        array = view(memories[memory], kind, at)
        if field == "a":
            fields["a"][f"w{n}"] = array
        elif field == "b":
            fields["b"].append(array)
        else:
            fields["c"]["deep"][n] = array
    return fields


def arrays(fields: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {
        **{("a", f"['{name}']"): array for name, array in fields["a"].items()},
        **{("b", f"[{at}]"): array for at, array in enumerate(fields["b"])},
        **{("c", f"['deep'][{n}]"): array for n, array in fields["c"]["deep"].items()},
    }


@settings(max_examples=150, deadline=None)
@given(
    places=PLACES,
    touched=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 239)), max_size=3),
    inline_bytes=st.sampled_from([0, 4096]),
    chunk_bytes=st.sampled_from([256, 1 << 20]),
)
def test_an_array_is_the_same_if_and_only_if_its_elements_are(
    places: list[Any], touched: list[tuple[int, int]], inline_bytes: int, chunk_bytes: int
) -> None:
    rng = np.random.default_rng(0)
    memories = [rng.standard_normal(240).astype("f4") for _ in range(2)]
    config = StoreConfig(inline_bytes=inline_bytes, chunk_bytes=chunk_bytes, encode_workers=1)
    fields = built(places, memories)
    before = {key: array.copy() for key, array in arrays(fields).items()}
    with CheckpointStore.open("memory://", config=config) as store:
        first = store.save("c", fields)
        for memory, at in touched:
            memories[memory][at] += 1
        second = store.save("c", fields)
        diff = store.diff(first, second)
    told = {
        (name, leaf.path): leaf.state == "same"
        for name, field in diff.fields.items()
        for leaf in field.leaves
    }
    truth = {key: array.tobytes() == before[key].tobytes() for key, array in arrays(fields).items()}
    # One object in many places is listed in the first of them.
    again = {key for key, array in arrays(fields).items() if key not in told}
    assert all(any(arrays(fields)[key] is memory for memory in memories) for key in again)
    assert told == {key: same for key, same in truth.items() if key not in again}
    if not touched:
        assert diff.same
    if not all(truth.values()):
        assert not diff.same


@dataclass
class Holder:
    views: list[Any]


def test_views_of_one_memory_in_a_pickle_are_not_called_the_same_when_one_changed(store: Any) -> None:
    memory = np.zeros(4000)
    holder = Holder([memory[:1000], memory[1000:2000], memory[3000:], memory.view("i8")[5:9]])
    first = store.save("c", {"h": holder, "w": memory})
    memory[1500] = 1
    diff = store.diff(first, store.save("c", {"h": holder, "w": memory}))
    told = leaves(diff, "h")
    assert told[".views[1]"] == "changed"
    assert told[".views[3]"] == "same"
    assert states(diff)["h"] == "changed"


def test_equal_bytes_in_another_layout_are_a_change(store: Any) -> None:
    square = np.arange(10_000.0).reshape(100, 100)
    first = store.save("c", {"w": square, "x": {"y": square.copy()}})
    diff = store.diff(first, store.save("c", {"w": square.T, "x": {"y": square.copy(order="F")}}))
    assert (leaves(diff, "w"), leaves(diff, "x")) == ({"": "changed"}, {"['y']": "changed"})
    assert not diff.same


def test_what_shares_memory_with_a_field_before_it_is_compared_there(store: Any) -> None:
    memory = np.zeros(5000)
    values = {"flat": memory, "parts": {"a": memory[:2500], "b": memory[2500:], "same": memory}}
    first = store.save("c", values)
    memory[3000] = 1
    diff = store.diff(first, store.save("c", values))
    assert states(diff) == {"flat": "changed", "parts": "same"}  # its own bytes are
    assert leaves(diff, "parts") == {"['a']": "same", "['b']": "changed"}


def test_an_array_that_is_no_longer_shared_has_changed(store: Any) -> None:
    memory = np.zeros(500)
    first = store.save("c", {"a": memory, "b": [memory]})
    diff = store.diff(first, store.save("c", {"a": memory, "b": [memory.copy()]}))
    assert leaves(diff, "b") == {"[0]": "changed"}
    diff = store.diff(first, first)
    assert leaves(diff, "b") == {}


@pytest.mark.torch
def test_tensors_are_told_apart_as_arrays_are(store: Any) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Sequential(torch.nn.Linear(50, 50), torch.nn.Linear(50, 50))
    net[1].weight = net[0].weight  # tied
    z = torch.complex(torch.arange(500.0), torch.ones(500))
    values = {"net": net, "opt": torch.optim.SGD(net.parameters(), 0.1), "z": z, "none": torch.empty(0, 3)}
    first = store.save("c", values)
    with torch.no_grad():
        net[1].bias[0] = 9
    diff = store.diff(first, store.save("c", values | {"z": z.conj()}))
    assert states(diff) == {"net": "changed", "opt": "same", "z": "changed", "none": "same"}
    assert leaves(diff, "net") == {"0.weight": "same", "0.bias": "same", "1.bias": "changed"}
    assert leaves(diff, "z") == {"": "changed"}
    assert leaves(diff, "none") == {"": "same"}
