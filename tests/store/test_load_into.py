"""Loads into what is there: it takes the values and stays what it is, or nothing of it changes."""

from __future__ import annotations

import copy
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptstore import StoreConfig
from ckptstore.errors import CheckpointNotFoundError, ChunkCorruptError, ConfigError, DestinationError

MODES = pytest.mark.parametrize("inplace", [False, True], ids=["staged", "inplace"])


class Box:
    def __init__(self, held: Any) -> None:
        self.held = held


def state(seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "model": OrderedDict((f"layers.{i}", rng.standard_normal((40, 50))) for i in range(3)),
        "deep": [{"w": rng.standard_normal(9).astype("f4"), "n": seed}, (rng.integers(0, 9, 4), seed)],
        "alone": rng.standard_normal(3000),
        "empty": np.zeros((0, 3)),
        "epoch": seed,
    }


def arrays(value: Any) -> list[np.ndarray[Any, Any]]:
    if isinstance(value, np.ndarray):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [array for item in inner for array in arrays(item)]


def plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [type(value), *map(plain, value)] if isinstance(value, (list, tuple)) else value


@MODES
def test_what_is_there_takes_the_values_and_keeps_its_memory(store: Any, inplace: bool) -> None:
    store.save("c", state(1))
    own = state(2)
    before = arrays(own)
    held = {name: value for name, value in own.items() if name != "epoch"}
    loaded = store.load("c", into=held, inplace=inplace)
    assert plain(loaded) == plain(state(1))
    assert list(loaded) == list(state(1))
    assert loaded["model"] is own["model"]
    assert loaded["deep"] is own["deep"]
    assert all(a is b for a, b in zip(arrays(own), before, strict=True))
    assert own["deep"][0]["n"] == own["deep"][1][1] == 1


@MODES
def test_some_fields_go_into_what_is_there_and_others_come_new(store: Any, inplace: bool) -> None:
    store.save("c", state(1))
    own = state(2)
    loaded = store.load("c", into={"alone": own["alone"]}, fields=["alone", "epoch"], inplace=inplace)
    assert list(loaded) == ["alone", "epoch"]
    assert loaded["alone"] is own["alone"]
    assert loaded["epoch"] == 1
    assert plain(own["model"]) == plain(state(2)["model"])


@MODES
def test_arrays_of_every_layout_are_filled(store: Any, inplace: bool) -> None:
    values = np.arange(24, dtype=">i4").reshape(4, 6)
    saved = {
        "f": np.asfortranarray(values),
        "c": values,
        "strided": values[::2, ::-1],
        "scalar": np.array(7.5),
        "struct": np.array([(1, 2.0)], dtype=[("a", "i2"), ("b", "f8")]),
        "when": np.array(["2020-01-01"], "M8[D]"),
    }
    store.save("c", {"x": saved})
    own = {
        "f": np.zeros((4, 6), ">i4"),
        "c": np.zeros((6, 4), ">i4").T,
        "strided": np.zeros((8, 6), ">i4")[::4],
        "scalar": np.array(0.0),
        "struct": np.zeros(1, saved["struct"].dtype),
        "when": np.zeros(1, "M8[D]"),
    }
    store.load("c", into={"x": own}, inplace=inplace)
    assert plain(own) == plain(saved)


@MODES
def test_all_that_does_not_fit_is_told_at_once_and_nothing_changes(store: Any, inplace: bool) -> None:
    read_only = np.zeros(3)
    read_only.flags.writeable = False
    store.save(
        "c",
        {
            "x": {
                "shape": np.ones((3, 4)),
                "dtype": np.ones(3),
                "order": np.ones(3, "<f8"),
                "kind": np.ones(3),
                "was array": np.ones(3),
                "is array": 3,
                "short": [np.ones(2), 5],
                "read-only": np.ones(3),
                "repeated": np.ones((2, 3)),
                "gone": 1,
                "fits": np.ones(3),
            },
            "epoch": 3,
        },
    )
    own = {
        "shape": np.zeros((4, 3)),
        "dtype": np.zeros(3, "f4"),
        "order": np.zeros(3, ">f8"),
        "kind": {},
        "was array": None,
        "is array": np.zeros(3),
        "short": [np.zeros(2)],
        "read-only": read_only,
        "repeated": np.lib.stride_tricks.as_strided(np.zeros(3), (2, 3), (0, 8)),
        "new": 1,
        "fits": np.zeros(3),
    }
    before = copy.deepcopy(plain(own))
    with pytest.raises(DestinationError) as caught:
        store.load("c", into={"x": own, "epoch": 0}, inplace=inplace)
    message = str(caught.value)
    for line in (
        "at \"['shape']\": numpy float64 (4, 3) here, numpy float64 (3, 4) in the checkpoint",
        "at \"['dtype']\": numpy float32 (3,) here, numpy float64 (3,) in the checkpoint",
        "at \"['order']\": numpy >f8 (3,) here, numpy float64 (3,) in the checkpoint",
        "at \"['kind']\": dict here, numpy float64 (3,) in the checkpoint",
        "at \"['was array']\": NoneType here, numpy float64 (3,) in the checkpoint",
        "at \"['is array']\": numpy float64 (3,) here, neither array nor container in the checkpoint",
        "at \"['short']\": 1 elements here, 2 in the checkpoint",
        "at \"['read-only']\": it is read-only",
        "at \"['repeated']\": some of its elements share their memory",
        "field 'x': no key 'gone' here, and there is in the checkpoint",
        "field 'x': no key 'new' in the checkpoint, and there is here",
        "field 'epoch': nothing can be loaded into this (int): leave it out of into",
        "nothing was changed",
    ):
        assert line in message, message
    assert "fits" not in message.replace("does not fit", "")
    assert plain(own) == before


@MODES
def test_sharing_that_differs_is_refused(store: Any, inplace: bool) -> None:
    one, two = np.arange(4000.0), np.arange(4000.0) + 1
    base = np.zeros(5000)
    store.save("c", {"x": [one, two], "y": one[:10], "z": Box(two)})
    into: Any = {"x": [base[:4000], base[1000:]]}
    with pytest.raises(
        DestinationError, match=r"field 'y' shares objects or memory with what is loaded into"
    ):
        store.load("c", into=into, inplace=inplace, trusted=True)
    with pytest.raises(DestinationError, match=r"shares memory with field 'x' at '\[0\]', and not so"):
        store.load("c", into=into, inplace=inplace, fields=["x"])
    assert not base.any()
    same = [base[:4000], base[:4000]]
    with pytest.raises(DestinationError, match="and not so in the checkpoint"):
        store.load("c", into={"x": same}, inplace=inplace, fields=["x"])
    twice = {"w": np.zeros(3)}
    store.save("d", {"x": [{"w": np.ones(3)}, {"w": np.ones(3)}]})
    with pytest.raises(DestinationError, match="the same object stands elsewhere too"):
        store.load("d", into={"x": [twice, twice]}, inplace=inplace)
    store.save("e", {"x": {"w": one, "box": Box(one)}})
    with pytest.raises(DestinationError, match="an object that comes as a new one shares others or memory"):
        store.load("e", into={"x": {"w": np.zeros(4000), "box": None}}, inplace=inplace, trusted=True)


@MODES
def test_objects_that_are_shared_stay_shared_or_are_refused(store: Any, inplace: bool) -> None:
    listed, box = [np.ones(3)], Box(3)
    store.save("c", {"x": {"l": listed, "box": box}, "y": (listed,), "z": [box]})
    own: Any = {"l": [np.zeros(3)], "box": None}
    with pytest.raises(DestinationError, match="field 'y' shares objects"):
        store.load("c", into={"x": own}, inplace=inplace, trusted=True)
    assert own["box"] is None
    loaded = store.load("c", into={"x": own}, fields=["x", "z"], inplace=inplace, trusted=True)
    assert loaded["z"][0] is own["box"]


@MODES
def test_views_that_share_memory_as_in_the_checkpoint_are_filled(store: Any, inplace: bool) -> None:
    saved, own = np.arange(4000.0), np.zeros(4000)
    store.save("c", {"x": [saved, saved[100:200], saved], "y": saved[5:6]})
    store.load("c", into={"x": [own, own[100:200], own], "y": own[5:6]}, inplace=inplace)
    assert own.tolist() == saved.tolist()
    apart = [np.zeros(4000), np.zeros(100), np.zeros(4000)]
    store.load("c", into={"x": apart, "y": np.zeros(1)}, inplace=inplace)
    assert [array.tolist() for array in apart] == [saved.tolist(), saved[100:200].tolist(), saved.tolist()]


def damaged(open_store: Any, tmp_path: Path) -> tuple[Any, dict[str, Any]]:
    """Return a store whose checkpoint has one corrupt chunk of many, and what was saved."""
    store = open_store(config=StoreConfig(durability="os", chunk_bytes=8192, encode_workers=1))
    saved = {"model": {f"w{i}": np.random.default_rng(i).standard_normal(5000) for i in range(4)}, "epoch": 1}
    store.save("c", saved)
    chunk = max((tmp_path / "store" / "chunks").rglob("*.planes8"))
    chunk.write_bytes(bytes(chunk.stat().st_size))
    return store, saved


def test_a_corrupt_chunk_leaves_what_is_there_untouched(open_store: Any, tmp_path: Path) -> None:
    store, _ = damaged(open_store, tmp_path)
    own = {"model": {f"w{i}": np.full(5000, 0.5) for i in range(4)}}
    with pytest.raises(ChunkCorruptError, match="field 'model'"):
        store.load("c", into=own)
    assert all((array == 0.5).all() for array in own["model"].values())


def test_a_corrupt_chunk_raises_inplace_and_a_later_load_makes_it_whole(
    open_store: Any, tmp_path: Path
) -> None:
    store, saved = damaged(open_store, tmp_path)
    own = {"model": {f"w{i}": np.full(5000, 0.5) for i in range(4)}}
    with pytest.raises(ChunkCorruptError, match="field 'model'"):
        store.load("c", into=own, inplace=True)
    store.save("d", saved)
    store.load("d", into=own, inplace=True)
    assert plain(own["model"]) == plain(saved["model"])


def test_inplace_decodes_into_the_memory_that_is_there(open_store: Any) -> None:
    store = open_store("memory://", StoreConfig(chunk_bytes=200_000))
    saved = {"model": {f"w{i}": np.random.default_rng(i).standard_normal(50_000) for i in range(4)}}
    store.save("c", saved)
    own = {"model": {f"w{i}": np.zeros(50_000) for i in range(4)}}
    engine = getattr(store.store, "_store", store.store)._engine
    decoded: list[int] = []
    decode = type(engine.coder).decode

    def noted(self: Any, codec: str, data: Any, into: memoryview) -> None:
        decoded.append(np.frombuffer(into, "u1").ctypes.data)
        decode(self, codec, data, into)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine.coder), "decode", noted)
        store.load("c", into=own, inplace=True)
    starts = {array.ctypes.data + at for array in own["model"].values() for at in (0, 200_000)}
    assert set(decoded) == starts
    assert plain(own) == plain(saved)


def test_arguments_that_contradict_are_refused(store: Any) -> None:
    store.save("c", {"x": np.zeros(3)})
    with pytest.raises(ConfigError, match="inplace must be a bool, and goes with into"):
        store.load("c", inplace=True)
    with pytest.raises(ConfigError, match="leaves go with neither"):
        store.load("c", into={"x": np.zeros(3)}, leaves={"x": [""]})
    with pytest.raises(ConfigError, match="into must be a mapping"):
        store.load("c", into=[np.zeros(3)])
    with pytest.raises(CheckpointNotFoundError, match="no field 'y' to load into"):
        store.load("c", into={"y": np.zeros(3)})
    with pytest.raises(CheckpointNotFoundError, match="among the fields"):
        store.load("c", into={"x": np.zeros(3)}, fields=[])
    assert store.load("c", into={})["x"].tolist() == [0, 0, 0]


def test_an_older_checkpoint_is_taken_whole_where_the_newest_is_damaged(
    open_store: Any, tmp_path: Path
) -> None:
    store = open_store(config=StoreConfig(durability="os", chunk_bytes=8192))
    older = {"w": np.random.default_rng(1).standard_normal(4000)}
    store.save("c", older)
    kept = set((tmp_path / "store" / "chunks").rglob("*.planes8"))
    store.save("c", {"w": np.random.default_rng(2).standard_normal(4000)})
    for chunk in set((tmp_path / "store" / "chunks").rglob("*.planes8")) - kept:
        chunk.write_bytes(b"damaged")
    own = np.zeros(4000)
    store.load("c", into={"w": own}, fallback=1)
    assert own.tolist() == older["w"].tolist()
