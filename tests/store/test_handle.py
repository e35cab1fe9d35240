"""A checkpoint that is open for reading: looking reads no data, and each part reads its own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_requests import given

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import (
    CheckpointNotFoundError,
    ChunkMissingError,
    ConfigError,
    NotFoundError,
    StoreClosedError,
    UntrustedPickleError,
)
from ckptstore.testing import RecordingBackend

RNG = np.random.default_rng(3)
WEIGHTS = {f"layers.{i}.weight": RNG.standard_normal((300, 200)) for i in range(6)}
STATE: dict[str, Any] = {
    "model": OrderedDict(WEIGHTS),
    "history": [{"loss": 0.5, "at": (1, 2)}, {"loss": 0.25, "at": (3, 4)}],
    "odd": {1: "one", (2, "x"): np.arange(3), None: [np.ones(4, "f4")], "y" * 300: 5, 2**70: np.zeros(2)},
    "epoch": 7,
}


class Opaque:
    def __init__(self) -> None:
        self.weights = np.arange(9.0)


def value(store: Any, part: Any) -> Any:
    """Load a part through either door."""
    loaded = part.load()
    return store.wait(loaded) if asyncio.iscoroutine(loaded) else loaded


def test_indexing_leads_to_the_parts_of_plain_containers(store: Any) -> None:
    handle = store.handle(store.save("c", STATE))
    part = handle["model"]["layers.3.weight"]
    assert (part.field, part.path, part.kind) == ("model", "['layers.3.weight']", "numpy")
    assert (part.shape, part.dtype, part.nbytes) == ((300, 200), "float64", 480_000)
    np.testing.assert_array_equal(value(store, part), WEIGHTS["layers.3.weight"])
    assert value(store, handle["history"][-1]) == {"loss": 0.25, "at": (3, 4)}
    assert value(store, handle["history"][0]["at"][1]) == 2
    assert value(store, handle["epoch"]) == 7
    assert handle["history"][-1]["at"].path == "[1]['at']"
    odd = handle["odd"]
    assert value(store, odd[None][0]).tolist() == [1.0] * 4
    assert value(store, odd[2, "x"]).tolist() == [0, 1, 2]
    assert value(store, odd[2**70]).tolist() == [0, 0]
    assert (odd[2, "x"].path, odd[2**70].path) == ("[<1>]", f"[{2**70}]")


def test_what_is_there_can_be_looked_at(store: Any) -> None:
    checkpoint = store.save("c", STATE)
    handle = store.handle("c")
    assert handle.checkpoint == checkpoint
    assert handle.fields == tuple(STATE) == tuple(handle)
    assert handle.leaves("model") == store.inspect("c").fields["model"].leaves
    assert handle["model"].keys() == list(handle["model"]) == list(WEIGHTS)
    assert [part.kind for part in handle["history"]] == ["dict", "dict"]
    assert len(handle["history"]) == 2
    assert handle["odd"].keys() == [1, (2, "x"), None, 2**70]  # a long key is data
    assert [handle[name].kind for name in STATE] == ["dict", "list", "dict", "value"]
    assert "float64 (300, 200)" in repr(handle["model"]["layers.0.weight"])


def test_each_load_is_new_and_what_is_shared_inside_stays_shared(store: Any) -> None:
    shared = np.arange(4000.0)
    handle = store.handle(
        store.save("c", {"first": [shared], "both": {"a": shared, "b": shared[:10], "n": [1]}})
    )
    loaded = value(store, handle["both"])
    loaded["a"][0] = -1
    assert loaded["b"][0] == -1
    loaded["n"].append(2)
    assert value(store, handle["both"]["n"]) == [1]
    assert value(store, handle["both"]["b"])[0] == 0


def test_what_is_not_there_is_named(store: Any) -> None:
    handle = store.handle(store.save("c", STATE), fields=["model", "history"])
    with pytest.raises(CheckpointNotFoundError, match="'nothing'"):
        store.handle("c", fields=["nothing"])
    with pytest.raises(CheckpointNotFoundError, match=r"no field 'epoch' open.*'model', 'history'"):
        handle["epoch"]
    with pytest.raises(
        NotFoundError, match=r"field 'model' has no key 'layers.9'; it has 'layers.0.weight'.*1 more"
    ):
        handle["model"]["layers.9"]
    with pytest.raises(NotFoundError, match=r"field 'history' has 2 elements, and none at 2"):
        handle["history"][2]
    with pytest.raises(
        ConfigError, match=r"field 'history' at \"\[0\]\['loss'\]\" is no dict, list or tuple"
    ):
        handle["history"][0]["loss"]["x"]


def test_a_pickled_object_loads_whole_and_says_so(store: Any) -> None:
    checkpoint = store.save("c", {"box": {"plain": np.arange(5.0), "opaque": Opaque()}})
    handle = store.handle(checkpoint)
    assert value(store, handle["box"]["plain"]).tolist() == list(range(5))
    with pytest.raises(
        ConfigError, match=r"field 'box' at \"\['opaque'\]\" is a pickled object.*load it whole"
    ):
        handle["box"]["opaque"]["weights"]
    with pytest.raises(UntrustedPickleError, match="Opaque"):
        value(store, handle["box"]["opaque"])
    trusting = store.handle(checkpoint, trusted=True)
    assert value(store, trusting["box"]["opaque"]).weights.tolist() == list(range(9))
    with pytest.raises(ConfigError, match=r"inside a pickled object.*fields=\['box'\]"):
        store.load(checkpoint, leaves={"box": ["['opaque'].weights"]})


def test_leaves_are_loaded_by_the_paths_that_inspect_shows(store: Any) -> None:
    checkpoint = store.save("c", STATE)
    paths = {name: [leaf.path for leaf in field.leaves] for name, field in store.inspect("c").fields.items()}
    loaded = store.load(checkpoint, leaves=paths)
    assert loaded["epoch"] == loaded["history"] == {}
    assert list(loaded["model"]) == [f"[{name!r}]" for name in WEIGHTS]
    for name, weight in WEIGHTS.items():
        np.testing.assert_array_equal(loaded["model"][f"[{name!r}]"], weight)
    assert {path: array.tolist() for path, array in loaded["odd"].items()} == {
        "[<1>]": [0, 1, 2],
        "[None][0]": [1, 1, 1, 1],
        f"[{2**70}]": [0, 0],
    }
    assert value_of_field(store, np.arange(3)) == [0, 1, 2]


def value_of_field(store: Any, array: Any) -> Any:
    store.save("alone", {"w": array})
    return store.load("alone", leaves={"w": [""]})["w"][""].tolist()


@pytest.mark.parametrize("leaves", [["model"], {"model": "['a']"}, {"model": [1]}, {1: []}, 3])
def test_leaves_that_are_no_paths_by_field_are_refused(store: Any, leaves: Any) -> None:
    store.save("c", {"model": {"a": np.arange(3)}})
    with pytest.raises(ConfigError, match="leaves must be a mapping"):
        store.load("c", leaves=leaves)


def test_leaves_that_are_not_there_are_named(store: Any) -> None:
    store.save("c", {"model": {"a": np.arange(3)}})
    with pytest.raises(NotFoundError, match=r"field 'model'.*no array or tensor at \"\['b'\]\""):
        store.load("c", leaves={"model": ["['a']", "['b']"]})
    with pytest.raises(CheckpointNotFoundError, match="'other'"):
        store.load("c", leaves={"other": []})
    with pytest.raises(ConfigError, match="leaves go with neither"):
        store.load("c", leaves={"model": []}, fields=["model"])


def test_a_handle_reads_nothing_more_until_a_part_is_loaded_and_then_its_chunks() -> None:
    async def main() -> None:
        backend = RecordingBackend(MemoryBackend())
        config = StoreConfig(chunk_bytes=128 * 1024)
        async with await AsyncCheckpointStore.open(given(backend), config=config) as store:
            checkpoint = await store.save("c", STATE)
            stored = sum(request.nbytes for request in backend.of("put", "chunks/"))

            def read() -> tuple[int, int]:
                gets, backend.requests = backend.of("get"), []
                return len(gets), sum(request.nbytes for request in gets)

            read()
            handle = await store.handle(checkpoint, fields=["model"])
            assert read()[1] < stored / 10
            part = handle["model"]["layers.2.weight"]
            assert part.shape == (300, 200)
            assert backend.requests == []
            await part.load()
            n_gets, n_bytes = read()
            assert n_gets == 4
            assert n_bytes <= 480_000
            await handle.load({"model": ["['layers.0.weight']", "['layers.5.weight']"]})
            assert read()[0] == 8
            await store.load(checkpoint, leaves={"model": ["['layers.1.weight']"]})
            assert backend.of("get", "chunks/")[-1:] != []
            assert read()[1] < 480_000 + stored / 10

    asyncio.run(main())


def test_of_thousands_of_tensors_one_is_loaded_by_its_chunk_alone() -> None:
    async def main() -> None:
        backend = RecordingBackend(MemoryBackend())
        config = StoreConfig(chunk_bytes=64 * 1024)
        async with await AsyncCheckpointStore.open(given(backend), config=config) as store:
            values = np.random.default_rng(0).standard_normal((2_000, 64)).astype("f4")
            checkpoint = await store.save(
                "c", {"state": {f"layer.{i}": values[i].copy() for i in range(2_000)}}
            )
            handle = await store.handle(checkpoint)
            start = len(backend.requests)
            loaded = await handle["state"]["layer.1777"].load()
            np.testing.assert_array_equal(loaded, values[1777])
            read = backend.requests[start:]
            assert [request.verb for request in read] == ["get"]
            assert read[0].nbytes <= 64 * 1024

    asyncio.run(main())


def test_a_closed_store_and_data_that_is_gone_give_nothing_more(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    handle = store.handle(store.save("c", {"w": RNG.standard_normal(5000), "n": 1}))
    for chunk in (tmp_path / "store" / "chunks").rglob("*.planes8"):
        chunk.unlink()
    with pytest.raises(ChunkMissingError, match="field 'w'"):
        value(store, handle["w"])
    assert value(store, handle["n"]) == 1
    store.close()
    with pytest.raises(StoreClosedError):
        handle["n"].load() if not hasattr(store, "loop") else asyncio.run(handle["n"].load())


def test_numpy_takes_a_part_for_an_array(tmp_path: Any) -> None:
    from ckptstore import CheckpointStore

    with CheckpointStore.open(str(tmp_path)) as store:
        store.save("c", {"w": np.arange(6.0).reshape(2, 3), "text": "no array"})
        handle = store.handle("c")
        assert np.asarray(handle["w"]).tolist() == [[0, 1, 2], [3, 4, 5]]
        assert np.asarray(handle["w"], dtype="f4").dtype == "float32"
        with pytest.raises(ConfigError, match="no numpy array"):
            np.asarray(handle["text"])
