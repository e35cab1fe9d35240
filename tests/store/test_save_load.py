"""What is saved comes back, whole and in order."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from ckptstore import Checkpoint, CheckpointRef, StoreConfig
from ckptstore.errors import (
    CheckpointDeletedError,
    CheckpointNotFoundError,
    ChunkMissingError,
    ConfigError,
    InvalidNameError,
    StoreClosedError,
    StoreMismatchError,
    StoreNotFoundError,
    UnserializableError,
    UntrustedPickleError,
)


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and other.x == self.x

    __hash__ = None  # type: ignore[assignment]


def state(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "weights": rng.standard_normal((300, 1000)),
        "small": rng.standard_normal(10).astype("float32"),
        "epoch": seed,
        "history": [{"loss": 0.5, "at": (1, 2)}, None, "text", b"bytes"],
    }


def assert_same(loaded: dict[str, Any], saved: dict[str, Any]) -> None:
    assert list(loaded) == list(saved)
    for name, value in saved.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(loaded[name], value)
            assert loaded[name].dtype == value.dtype
        else:
            assert loaded[name] == value


def test_values_come_back_as_they_were(store: Any) -> None:
    saved = state()
    checkpoint = store.save("exp/run1", saved)
    assert isinstance(checkpoint, Checkpoint)
    assert_same(store.load(checkpoint), saved)
    assert_same(store.load(checkpoint.ref), saved)
    assert_same(store.load(checkpoint.ref.to_dict()), saved)
    assert_same(store.load("exp/run1"), saved)


def test_loaded_values_are_new_objects_that_can_be_changed(store: Any) -> None:
    checkpoint = store.save("c", state())
    first = store.load(checkpoint)
    first["weights"][:] = 0
    first["history"].clear()
    assert_same(store.load(checkpoint), state())


def test_what_fields_share_stays_shared(store: Any) -> None:
    shared = np.arange(5000.0)
    loaded = store.load(store.save("c", {"a": {"w": shared}, "b": [shared, shared[10:20]]}))
    assert loaded["a"]["w"] is loaded["b"][0]
    loaded["a"]["w"][10] = -1
    assert loaded["b"][1][0] == -1


def test_some_fields_load_alone_and_bring_what_they_share(store: Any) -> None:
    shared = np.arange(5000.0)
    checkpoint = store.save("c", {"a": {"w": shared, "x": 1}, "b": [shared], "c": 3})
    assert list(store.load(checkpoint, fields=["c"])) == ["c"]
    loaded = store.load(checkpoint, fields=["b"])
    assert list(loaded) == ["b"]
    np.testing.assert_array_equal(loaded["b"][0], shared)


def test_a_field_that_is_not_there_is_named(store: Any) -> None:
    checkpoint = store.save("c", {"a": 1})
    with pytest.raises(CheckpointNotFoundError, match="'b'"):
        store.load(checkpoint, fields=["a", "b"])


def test_empty_values_can_be_saved(store: Any) -> None:
    assert store.load(store.save("c", {})) == {}


def test_pickled_parts_load_only_when_trusted(store: Any) -> None:
    checkpoint = store.save("c", {"plain": 1, "point": Point(3)})
    with pytest.raises(UntrustedPickleError, match="point"):
        store.load(checkpoint)
    assert store.load(checkpoint, fields=["plain"]) == {"plain": 1}
    assert store.load(checkpoint, trusted=True) == {"plain": 1, "point": Point(3)}


def test_the_newest_is_first_and_latest(store: Any) -> None:
    refs = [store.save("c", {"n": n}, label="odd" if n % 2 else "even").ref for n in range(5)]
    assert [checkpoint.ref for checkpoint in store.list("c")] == refs[::-1]
    assert store.latest("c").ref == refs[4]
    assert store.latest("c", label="odd").ref == refs[3]
    assert store.latest("c", label="none") is None
    assert store.latest("empty") is None


def test_list_without_a_collection_gives_all(store: Any) -> None:
    names = ["a", "a/b", "A", "a.b", "z~y", "ü"]
    for name in names:
        store.save(name, {"n": name})
    assert sorted(checkpoint.collection for checkpoint in store.list()) == sorted(names)
    for name in names:
        assert store.load(name) == {"n": name}


def test_names_of_any_kind_stay_apart(store: Any) -> None:
    labels = ["a.b", "a/b", "Best", "best", "latest~1", "..", "ü ö", "-x"]
    for label in labels:
        store.save("c", {"label": label}, label=label, run="Run.1/2")
    for label in labels:
        found = store.latest("c", label=label, run="Run.1/2")
        assert found.label == label
        assert store.load(found) == {"label": label}


def test_what_was_said_of_a_checkpoint_is_told(store: Any) -> None:
    before = datetime.now(timezone.utc)
    first = store.save("c", {"n": 1})
    second = store.save(
        "c",
        {"n": 2},
        label="best",
        run="r",
        metadata={"loss": np.float32(0.5), "nan": float("nan"), "tags": ("a", 1)},
        attributes={"attempt": 3},
        parent=first.ref,
    )
    found = store.latest("c")
    for checkpoint in (second, found):
        assert (checkpoint.label, checkpoint.run) == ("best", "r")
        assert checkpoint.metadata["loss"] == 0.5
        assert checkpoint.metadata["nan"] != checkpoint.metadata["nan"]
        assert checkpoint.metadata["tags"] == ["a", 1]
        assert checkpoint.attributes == {"attempt": 3}
        assert checkpoint.parent == first.ref
        assert checkpoint.fields == ("n",)
        assert before - timedelta(seconds=5) <= checkpoint.created <= datetime.now(timezone.utc)
    assert first.parent is None


def test_inspect_tells_types_sizes_and_leaves(store: Any) -> None:
    weights = np.ones((1000, 300), dtype="float32")
    checkpoint = store.save("c", {"model": {"w": weights}, "epoch": 3, "point": Point(1)})
    manifest = store.inspect(checkpoint)
    assert manifest.checkpoint == checkpoint
    model, epoch, point = manifest.fields.values()
    assert (model.type_name, model.kind) == ("builtins.dict", "tree")
    assert (epoch.type_name, epoch.kind) == ("builtins.int", "tree")
    assert point.kind == "pickle"
    assert any(name.endswith("Point") for name in point.globals)
    (leaf,) = model.leaves
    assert (leaf.path, leaf.kind, leaf.shape, leaf.nbytes) == ("['w']", "numpy", (1000, 300), weights.nbytes)
    assert leaf.dtype in ("float32", "<f4")
    assert model.raw_bytes >= weights.nbytes > model.stored_bytes > 0
    assert checkpoint.sizes.raw_bytes == sum(field.raw_bytes for field in manifest.fields.values())


def test_an_unchanged_field_uploads_nothing(store: Any) -> None:
    values = state()
    first = store.save("c", values)
    values["epoch"] += 1
    second = store.save("c", values)
    fields = store.inspect(second).fields
    assert fields["weights"].new_bytes < 1000 < fields["weights"].stored_bytes
    assert second.sizes.new_bytes < first.sizes.new_bytes / 100
    assert_same(store.load(first), {**values, "epoch": 0})
    assert_same(store.load(second), values)


def test_a_new_writer_reuses_what_the_last_one_stored(open_store: Any) -> None:
    values = state()
    with_first = open_store()
    with_first.save("c", values)
    with_first.close()
    second = open_store().save("c", values)
    assert second.epoch == 2
    assert second.sizes.new_bytes < second.sizes.stored_bytes / 100


def test_a_later_writer_sorts_above_one_that_began_before(open_store: Any) -> None:
    old, new = open_store(), open_store()
    old.begin("c")
    new.save("c", {"by": "new"})
    new.begin("c")
    old.save("c", {"by": "zombie"})
    late = open_store()
    assert late.load("c") == {"by": "zombie"} or late.load("c") == {"by": "new"}
    late.save("c", {"by": "late"})
    old.save("c", {"by": "zombie again"})
    assert late.load("c") == {"by": "late"}


def test_a_deleted_checkpoint_is_invisible_and_comes_back(store: Any) -> None:
    first = store.save("c", {"n": 1})
    second = store.save("c", {"n": 2})
    store.delete(second)
    store.delete(second)
    assert store.load("c") == {"n": 1}
    assert [checkpoint.ref for checkpoint in store.list("c")] == [first.ref]
    with pytest.raises(CheckpointDeletedError, match="undelete"):
        store.load(second)
    store.undelete(second)
    store.undelete(second)
    assert store.load("c") == {"n": 2}


def test_the_order_goes_on_after_the_newest_is_deleted(store: Any) -> None:
    store.save("c", {"n": 1})
    store.delete("c")
    assert store.latest("c") is None
    with pytest.raises(CheckpointNotFoundError):
        store.load("c")
    store.save("c", {"n": 2})
    assert store.load("c") == {"n": 2}


def test_undelete_is_refused_after_half_the_grace(open_store: Any, tmp_path: Any) -> None:
    import os

    store = open_store()
    ref = store.save("c", {"n": 1}).ref
    store.delete(ref)
    (tombstone,) = (tmp_path / "store").rglob("*.x")
    old = tombstone.stat().st_mtime - 43_201
    os.utime(tombstone, (old, old))
    with pytest.raises(CheckpointDeletedError, match="half the grace"):
        store.undelete(ref)


def test_pins_are_put_and_taken_away(store: Any) -> None:
    checkpoint = store.save("c", {"n": 1})
    store.pin(checkpoint)
    store.pin(checkpoint)
    assert store.load("c") == {"n": 1}
    store.unpin(checkpoint)
    store.unpin(checkpoint)
    assert store.load("c") == {"n": 1}


def test_a_reference_to_another_store_is_refused(open_store: Any, tmp_path: Any) -> None:
    ref = open_store().save("c", {"n": 1}).ref
    other = open_store(str(tmp_path / "other"))
    with pytest.raises(StoreMismatchError, match="belongs to store"):
        other.load(ref)


def test_a_reference_pins_the_content(store: Any) -> None:
    ref = store.save("c", {"n": 1}).ref
    forged = CheckpointRef(ref.store_id, ref.collection, ref.name, "0" * 64)
    with pytest.raises(Exception, match="pins"):
        store.load(forged)


def test_missing_stores_and_checkpoints_are_told_apart(open_store: Any, tmp_path: Any) -> None:
    with pytest.raises(StoreNotFoundError):
        open_store(str(tmp_path / "nowhere"), create=False)
    assert not (tmp_path / "nowhere").exists()
    store = open_store()
    ref = store.save("c", {"n": 1}).ref
    gone = CheckpointRef(ref.store_id, "other", ref.name, ref.digest)
    with pytest.raises(CheckpointNotFoundError):
        store.load(gone)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../b", "/abs", "", ".", "a\0b", "a\nb", "x" * 2000, "-lead", "a//b", 3]
)
def test_bad_collections_are_refused_before_anything_is_written(store: Any, name: Any) -> None:
    for attempt in (lambda: store.save(name, {"n": 1}), lambda: store.list(name), lambda: store.latest(name)):
        with pytest.raises(InvalidNameError):
            attempt()
    assert store.list() == []


@pytest.mark.parametrize(
    ("values", "options", "kind"),
    [
        ([1, 2], {}, ConfigError),
        ({3: 1}, {}, InvalidNameError),
        ({"": 1}, {}, InvalidNameError),
        ({"a": 1}, {"label": ""}, InvalidNameError),
        ({"a": 1}, {"label": "x" * 300}, InvalidNameError),
        ({"a": 1}, {"metadata": {1: 2}}, ConfigError),
        ({"a": 1}, {"metadata": {"x": "y" * 2_000_000}}, ConfigError),
        ({"a": 1}, {"metadata": {"x": object()}}, ConfigError),
        ({"a": 1}, {"parent": "c"}, ConfigError),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(
    store: Any, values: Any, options: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        store.save("c", values, **options)
    assert store.list() == []
    store.save("c", {"fine": 1})


def test_what_cannot_be_saved_is_named_and_nothing_is_left(open_store: Any, tmp_path: Any) -> None:
    import threading

    store = open_store()
    store.save("c", {"n": 1})
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(UnserializableError) as caught:
        store.save("c", {"big": np.ones(10**6), "deep": {"x": [0, {"y": threading.Lock()}]}})
    assert caught.value.field == "deep"
    assert caught.value.path == "deep['x'][1]['y']"
    assert "lock" in caught.value.type_name
    assert sorted(path.name for path in tmp_path.rglob("*")) == before
    assert store.load("c") == {"n": 1}


def test_a_closed_store_says_so(open_store: Any) -> None:
    store = open_store()
    store.save("c", {"n": 1})
    store.store.__class__.__name__  # noqa: B018
    close = store.close if hasattr(store.store, "close") else store.store.aclose
    if hasattr(store, "loop"):
        store.wait(store.store.aclose())
        with pytest.raises(StoreClosedError):
            store.load("c")
    else:
        close()
        close()
        with pytest.raises(StoreClosedError):
            store.load("c")


def test_chunks_of_every_size_work(open_store: Any, tmp_path: Any) -> None:
    values = state()
    for chunk_bytes in (1000, 4096, 1 << 20, 64 << 20):
        store = open_store(
            str(tmp_path / str(chunk_bytes)),
            config=StoreConfig(chunk_bytes=chunk_bytes, durability="os", codec="raw"),
        )
        checkpoint = store.save("c", values)
        assert_same(store.load(checkpoint), values)
        if chunk_bytes == 1000:
            assert checkpoint.sizes.n_chunks >= values["weights"].nbytes // 1000


def test_a_lost_chunk_is_named_with_its_field_leaf_and_key(open_store: Any, tmp_path: Any) -> None:
    store = open_store()
    values = {"epoch": 1, "model": {"a": np.ones(10**6), "b": np.arange(10**6)}}
    checkpoint = store.save("exp/run", values, label="best")
    chunks = {
        path: path.read_bytes() for path in (tmp_path / "store" / "chunks").rglob("*") if path.is_file()
    }
    told = set()
    for path, data in chunks.items():
        path.unlink()
        with pytest.raises(ChunkMissingError) as caught:
            store.load(checkpoint)
        path.write_bytes(data)
        message = str(caught.value)
        assert "field 'model'" in message
        assert "exp/run" in message
        assert "'best'" in message
        assert path.name in message
        told |= {name for name in ("['a']", "['b']") if name in message}
        assert store.load(checkpoint, fields=["epoch"]) == {"epoch": 1}
    assert told == {"['a']", "['b']"}
    assert_same(store.load(checkpoint)["model"], values["model"])
