"""Differences of two checkpoints: exact, in words, and read only where digests cannot tell."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from ckptstore import AsyncCheckpointStore, Diff, StoreConfig
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import CheckpointDeletedError, CheckpointNotFoundError, ChunkMissingError
from ckptstore.testing import RecordingBackend


@dataclass
class Model:
    weights: Any
    bias: Any
    step: int = 0


def states(diff: Diff) -> dict[str, str]:
    return {name: field.state for name, field in diff.fields.items()}


def leaves(diff: Diff, field: str) -> dict[str, str]:
    return {leaf.path: leaf.state for leaf in diff.fields[field].leaves}


def state() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "large": rng.standard_normal(300_000),
        "model": {f"layer.{i}": rng.standard_normal(2000).astype("f4") for i in range(10)},
        "epoch": 3,
        "text": "x" * 5000,
        "notes": [1, {"a": None}],
    }


def test_nothing_has_changed(store: Any) -> None:
    first = store.save("c", state(), metadata={"loss": float("nan"), "n": [1, 2]})
    second = store.save("c", state(), metadata={"loss": float("nan"), "n": [1, 2]})
    diff = store.diff(first, second)
    assert diff.same
    assert (diff.before.ref, diff.after.ref) == (first.ref, second.ref)
    assert set(states(diff).values()) == {"same"}
    assert set(leaves(diff, "model").values()) == {"same"}
    assert diff.metadata == {}
    assert 0 < diff.shared_bytes <= second.sizes.stored_bytes


def test_each_change_is_told_where_it_is(store: Any) -> None:
    values = state()
    first = store.save("c", values, metadata={"loss": 0.5, "gone": 1, "kept": True})
    values["model"]["layer.3"][7] += 1
    values["model"]["layer.10"] = np.zeros((3, 4), "f2")
    del values["model"]["layer.0"]
    values["model"]["layer.5"] = values["model"]["layer.5"].astype("f8")
    values["model"]["layer.6"] = values["model"]["layer.6"].reshape(2, 1000)
    values["epoch"] = 4
    del values["notes"]
    values["more"] = {"b": 1}
    second = store.save("c", values, metadata={"loss": 0.25, "new": None, "kept": 1})
    diff = store.diff(first, second)
    assert not diff.same
    assert states(diff) == {
        "large": "same",
        "model": "changed",
        "epoch": "changed",
        "text": "same",
        "more": "added",
        "notes": "removed",
    }
    changed = {path: state for path, state in leaves(diff, "model").items() if state != "same"}
    assert changed == {
        "['layer.3']": "changed",
        "['layer.10']": "added",
        "['layer.0']": "removed",
        "['layer.5']": "changed",
        "['layer.6']": "changed",
    }
    five = next(leaf for leaf in diff.fields["model"].leaves if leaf.path == "['layer.5']")
    assert five.before is not None
    assert five.after is not None
    assert (five.before.dtype, five.after.dtype, five.after.shape) == ("float32", "float64", (2000,))
    assert diff.fields["more"].before is None
    assert {name: (one.state, one.before, one.after) for name, one in diff.metadata.items()} == {
        "loss": ("changed", 0.5, 0.25),
        "new": ("added", None, None),
        "kept": ("changed", True, 1),
        "gone": ("removed", 1, None),
    }


def test_the_other_way_round_is_the_mirror(store: Any) -> None:
    values = state()
    first = store.save("c", values)
    del values["epoch"]
    values["model"]["new"] = np.ones(3)
    second = store.save("c", values)
    diff = store.diff(second, first)
    assert states(diff)["epoch"] == "added"
    assert leaves(diff, "model")["['new']"] == "removed"


def test_it_works_between_collections_and_takes_their_names(store: Any) -> None:
    store.save("a", {"x": 1, "w": np.arange(5000)})
    store.save("b", {"x": 2, "w": np.arange(5000)})
    diff = store.diff("a", "b")
    assert states(diff) == {"x": "changed", "w": "same"}
    assert (diff.before.collection, diff.after.collection) == ("a", "b")
    # Both have the same bytes, but the storage holds them twice.
    assert diff.shared_bytes == 0


def test_what_is_pickled_is_compared_without_trust(store: Any) -> None:
    model = Model(np.arange(3000.0), np.zeros(10), 1)
    first = store.save("c", {"model": model})
    model.bias[3] = 1
    model.step = 2
    diff = store.diff(first, store.save("c", {"model": model}))
    assert states(diff) == {"model": "changed"}
    assert leaves(diff, "model") == {".weights": "same", ".bias": "changed"}


def test_a_person_can_read_it(store: Any) -> None:
    values = state()
    first = store.save("exp/run", values, label="best", metadata={"loss": 0.5})
    values["model"]["layer.3"][7] += 1
    values["epoch"] = "four"
    del values["notes"]
    second = store.save("exp/run", values, metadata={"loss": 0.25, "text": "y" * 1000})
    text = str(store.diff(first, second))
    for part in (
        "exp/run 'best' (1, 0) -> exp/run (1, 1)",
        "epoch  changed  builtins.int -> builtins.str",
        "of 10 arrays 1 changed",
        "['layer.3']  changed  float32 (2000,)",
        "notes  removed  builtins.list",
        "same: large, text",
        "loss  changed  0.5 -> 0.25",
        "stored are shared",
    ):
        assert part in text, text
    assert "['layer.4']" not in text
    assert max(map(len, text.splitlines())) < 200


def test_many_changes_are_summed_up(store: Any) -> None:
    first = store.save("c", {"w": [np.zeros(3) for _ in range(100)]})
    second = store.save("c", {"w": [np.ones(3) for _ in range(100)]})
    text = str(store.diff(first, second))
    assert "and 80 more" in text
    assert len(text.splitlines()) < 30


def test_what_is_not_there_raises_as_a_load_does(open_store: Any, tmp_path: Any) -> None:
    store = open_store()
    values = {f"w{i}": np.random.default_rng(i).standard_normal(100) for i in range(20)}
    config = StoreConfig(durability="os", inline_bytes=0)
    packed = open_store(str(tmp_path / "store"), config=config)
    first = packed.save("c", values)
    values["w3"][0] = 5
    second = packed.save("c", values)
    with pytest.raises(CheckpointNotFoundError):
        store.diff(first, "nothing")
    chunks = [path for path in (tmp_path / "store" / "chunks").rglob("*") if path.is_file()]
    data = {path: path.read_bytes() for path in chunks}
    for path in chunks:
        path.unlink()
    with pytest.raises(ChunkMissingError, match="w"):
        store.diff(first, second)
    for path, content in data.items():
        path.write_bytes(content)
    assert [name for name, state in states(store.diff(first, second)).items() if state != "same"] == ["w3"]
    store.delete(first)
    with pytest.raises(CheckpointDeletedError):
        store.diff(first, second)


Scenario = Callable[[AsyncCheckpointStore, RecordingBackend], Awaitable[None]]


def recorded(scenario: Scenario, **options: Any) -> None:
    async def main() -> None:
        backend = RecordingBackend(MemoryBackend())

        async def opened(executor: Any) -> RecordingBackend:
            return backend

        async with await AsyncCheckpointStore.open(opened, config=StoreConfig(**options)) as store:
            await scenario(store, backend)
            assert store._engine.budget.in_use == 0

    asyncio.run(main())


def test_large_arrays_are_told_apart_without_reading_them() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        rng = np.random.default_rng(0)
        values = {"a": rng.standard_normal(400_000), "b": {"w": rng.standard_normal(400_000), "n": 1}}
        first = await store.save("c", values)
        values["a"][5] = 0
        values["b"]["n"] = 2
        second = await store.save("c", values)
        backend.requests.clear()
        diff = await store.diff(first, second)
        assert states(diff) == {"a": "changed", "b": "changed"}
        assert leaves(diff, "b") == {"['w']": "same"}
        assert backend.of("get", "chunks/") == []
        assert len(backend.of("get")) == 2

    recorded(scenario)


def test_small_arrays_cost_the_chunks_they_share_with_others() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        rng = np.random.default_rng(0)
        values = {"large": rng.standard_normal(400_000)} | {
            f"w{i}": rng.standard_normal(2000).astype("f4") for i in range(20)
        }
        first = await store.save("c", values)
        values["w7"][3] = 0
        values["large"][0] = 0
        second = await store.save("c", values)
        backend.requests.clear()
        diff = await store.diff(first, second)
        assert [name for name, state in states(diff).items() if state != "same"] == ["large", "w7"]
        got = backend.of("get", "chunks/")
        assert len(got) == 2
        assert sum(request.nbytes for request in got) < 400_000

    recorded(scenario)


def test_little_memory_is_enough() -> None:
    async def scenario(store: AsyncCheckpointStore, backend: RecordingBackend) -> None:
        rng = np.random.default_rng(0)
        values = {f"w{i}": rng.standard_normal(3000) for i in range(50)}
        first = await store.save("c", values)
        values["w7"][3] = 0
        diff = await store.diff(first, await store.save("c", values))
        assert [name for name, state in states(diff).items() if state != "same"] == ["w7"]

    recorded(scenario, memory_bytes=1 << 16, chunk_bytes=1 << 18, inline_bytes=0)


def test_other_places_in_one_chunk_are_other_bytes(store: Any) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2000)).astype("f4")
    first = store.save("c", {"p": x, "q": y})
    second = store.save("c", {"q": x, "p": y})
    assert second.sizes.new_bytes < 1000  # the same chunk, cut the same way
    assert states(store.diff(first, second)) == {"q": "changed", "p": "changed"}
