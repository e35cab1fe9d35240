"""Any sequence of operations by two writers on one storage gives what a dict would."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, rule

from ckptstore import Checkpoint, CheckpointStore, StoreConfig
from ckptstore.errors import CheckpointDeletedError, CheckpointNotFoundError

CONFIG = StoreConfig(durability="os", chunk_bytes=4096, inline_bytes=64, encode_workers=1)
WRITERS = st.integers(0, 1)
COLLECTIONS = st.sampled_from(["c", "C/d.e"])
SEEDS = st.integers(0, 5)
LABELS = st.sampled_from([None, "best", "Best"])


def values(seed: int) -> dict[str, Any]:
    return {
        "same": np.arange(1000),
        "own": np.full(700 + seed, seed, "float32"),
        "seed": seed,
        "tree": [None, {"deep": ("x" * seed, seed)}],
    }


def is_values(loaded: dict[str, Any], seed: int) -> bool:
    expected = values(seed)
    return list(loaded) == list(expected) and all(
        np.array_equal(loaded[name], value) if isinstance(value, np.ndarray) else loaded[name] == value
        for name, value in expected.items()
    )


@dataclass
class Saved:
    """What the model knows of one checkpoint."""

    collection: str
    seed: int
    label: str | None
    place: tuple[int, int]
    checkpoint: Checkpoint | None = None
    deleted: bool = False


class StoreModel(RuleBasedStateMachine):
    """Two stores over one storage, beside a list of what was saved."""

    kind = "memory"
    saved = Bundle("saved")

    @initialize()
    def open_both(self) -> None:
        self.space: dict[str, Any] = {}
        self.folder = tempfile.mkdtemp() if self.kind == "local" else None
        self.all: list[Saved] = []
        self.lines: list[dict[str, list[int]]] = [{}, {}]
        self.pending: dict[int, tuple[Any, Saved]] = {}
        self.stores = [self._open(), self._open()]

    def _open(self) -> CheckpointStore:
        if self.folder is not None:
            return CheckpointStore.open(self.folder, config=CONFIG)
        return CheckpointStore.open("memory://", config=CONFIG, space=self.space)

    def _place(self, writer: int, collection: str) -> tuple[int, int]:
        """The place in the order that the writer's next save takes."""
        self._settle(1 - writer)
        line = self.lines[writer].get(collection)
        if line is None:
            self._settle(writer)
            epochs = [one.place[0] for one in self.all if one.collection == collection]
            line = self.lines[writer][collection] = [1 + max(epochs, default=0), 0]
        line[1] += 1
        return line[0], line[1] - 1

    def _settle(self, *writers: int) -> None:
        """Wait for background saves, as whoever looks through another store must."""
        for writer in writers:
            if writer in self.pending:
                pending, model = self.pending.pop(writer)
                model.checkpoint = pending.result(10)
                assert (model.checkpoint.epoch, model.checkpoint.seq) == model.place

    def _known(self, model: Saved) -> Checkpoint:
        self._settle(0, 1)
        assert model.checkpoint is not None
        return model.checkpoint

    @rule(target=saved, writer=WRITERS, collection=COLLECTIONS, seed=SEEDS, label=LABELS)
    def save(self, writer: int, collection: str, seed: int, label: str | None) -> Saved:
        model = Saved(collection, seed, label, self._place(writer, collection))
        model.checkpoint = self.stores[writer].save(
            collection, values(seed), label=label, metadata={"seed": seed}
        )
        assert (model.checkpoint.epoch, model.checkpoint.seq) == model.place
        self.all.append(model)
        return model

    @rule(target=saved, writer=WRITERS, collection=COLLECTIONS, seed=SEEDS, label=LABELS)
    def save_in_the_background(self, writer: int, collection: str, seed: int, label: str | None) -> Saved:
        self._settle(writer)
        model = Saved(collection, seed, label, self._place(writer, collection))
        given = values(seed)
        pending = self.stores[writer].save(
            collection, given, label=label, metadata={"seed": seed}, wait=False
        )
        given["own"][:] = -1
        given["tree"].clear()
        self.pending[writer] = pending, model
        self.all.append(model)
        return model

    @rule(writer=WRITERS, model=saved)
    def load(self, writer: int, model: Saved) -> None:
        found = self._known(model)
        store = self.stores[writer]
        if model.deleted:
            with pytest.raises(CheckpointDeletedError):
                store.load(found)
            return
        assert is_values(store.load(found.ref), model.seed)
        assert store.load(found, fields=["seed"]) == {"seed": model.seed}
        assert store.inspect(found).checkpoint == found

    @rule(writer=WRITERS, model=saved)
    def delete(self, writer: int, model: Saved) -> None:
        self.stores[writer].delete(self._known(model))
        model.deleted = True

    @rule(writer=WRITERS, model=saved)
    def undelete(self, writer: int, model: Saved) -> None:
        self.stores[writer].undelete(self._known(model))
        model.deleted = False

    @rule(writer=WRITERS, model=saved, on=st.booleans())
    def pin_or_unpin(self, writer: int, model: Saved, on: bool) -> None:
        store, found = self.stores[writer], self._known(model)
        if model.deleted:
            with pytest.raises(CheckpointDeletedError):
                store.pin(found)
        else:
            (store.pin if on else store.unpin)(found)

    @rule(writer=WRITERS)
    def reopen(self, writer: int) -> None:
        self._settle(1 - writer)
        self.stores[writer].close()  # waits for its own
        self._settle(writer)
        self.stores[writer] = self._open()
        self.lines[writer] = {}

    @rule(writer=WRITERS, collection=COLLECTIONS, label=LABELS)
    def look(self, writer: int, collection: str, label: str | None) -> None:
        self._settle(1 - writer)
        store = self.stores[writer]
        listed = list(store.list(collection, label=label))
        self._settle(writer)
        live = [one for one in self.all if one.collection == collection and not one.deleted]
        wanted = [one for one in live if label is None or one.label == label]
        assert {found.ref for found in listed} == {self._known(one).ref for one in wanted}
        places = [(found.epoch, found.seq) for found in listed]
        assert places == sorted(places, reverse=True)
        by_ref = {self._known(one).ref: one for one in wanted}
        for found in listed:
            model = by_ref[found.ref]
            assert (found.epoch, found.seq) == model.place
            assert (found.label, found.metadata) == (model.label, {"seed": model.seed})
        assert store.latest(collection, label=label) == (listed[0] if listed else None)
        if label is None and listed:
            assert is_values(store.load(collection), by_ref[listed[0].ref].seed)
        elif label is None:
            with pytest.raises(CheckpointNotFoundError):
                store.load(collection)

    def teardown(self) -> None:
        try:
            if hasattr(self, "stores"):
                for collection in ("c", "C/d.e"):
                    self.look(0, collection, None)
        finally:
            for store in getattr(self, "stores", ()):
                store.close()
            if getattr(self, "folder", None):
                shutil.rmtree(self.folder)


class LocalModel(StoreModel):
    kind = "local"


SETTINGS = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
TestStoreInMemory = StoreModel.TestCase
TestStoreInMemory.settings = SETTINGS
TestStoreInAFolder = LocalModel.TestCase
TestStoreInAFolder.settings = SETTINGS
