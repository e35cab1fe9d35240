"""Any sequence of saves, deletions, retention, collections and passing time gives what a list would."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule, run_state_machine_as_test
from test_store_model import COLLECTIONS, CONFIG, SEEDS, WRITERS, Saved, StoreModel, is_values, values

from ckptstore import _collect, last
from ckptstore._clock import Clock
from ckptstore.errors import CheckpointDeletedError, CheckpointNotFoundError

GRACE_S = CONFIG.grace_s
# No sum of them is a half or a whole grace.
SHARES = st.sampled_from([0.11, 0.35, 0.62, 1.3])
GONE = (CheckpointDeletedError, CheckpointNotFoundError)


class CollectingModel(StoreModel):
    """As the model of the store, and time passes: all that is stored grows older, and the machine's clock goes on."""

    @initialize()
    def begin(self) -> None:
        self.now_s = 0.0
        boot_s = Clock.boot_s
        self.patch = mock.patch.object(Clock, "boot_s", lambda clock: boot_s(clock) + self.now_s)
        self.patch.start()
        self.deleted_at: dict[int, float] = {}
        self.pinned: set[int] = set()

    def _mark_deleted(self, model: Saved) -> None:
        model.deleted = True
        self.deleted_at.setdefault(id(model), self.now_s)

    def _age_s(self, model: Saved) -> float:
        return self.now_s - self.deleted_at[id(model)]

    def _is_purged(self, model: Saved) -> bool:
        return all(one is not model for one in self.all)

    @rule(share=SHARES)
    def pass_time(self, share: float) -> None:
        self._settle(0, 1)
        for store in self.stores:
            list(store.list("c"))  # waits for retention
        seconds = share * GRACE_S
        self.now_s += seconds
        if self.folder is None:
            self.space.update({key: (data, then - seconds) for key, (data, then) in self.space.items()})
            return
        for path in Path(self.folder).rglob("*"):
            if path.is_file():
                then = path.stat().st_mtime - seconds
                os.utime(path, (then, then))

    @rule(writer=WRITERS, dry_run=st.booleans())
    def collect(self, writer: int, dry_run: bool) -> None:
        self._settle(0, 1)
        due = [one for one in self.all if one.deleted and self._age_s(one) > GRACE_S]
        report = self.stores[writer].collect_garbage(force=True, dry_run=dry_run)
        assert (report.n_purged, report.n_checkpoints) == (len(due), len(self.all) - len(due))
        assert (report.n_failed, report.n_foreign) == (0, 0)
        if not dry_run:
            self.all = [one for one in self.all if all(one is not gone for gone in due)]
            assert self.stores[writer].collect_garbage(dry_run=True).freed_bytes == 0
        for one in self.all:
            if not one.deleted:
                assert is_values(self.stores[writer].load(self._known(one)), one.seed)

    @rule(target=StoreModel.saved, writer=WRITERS, collection=COLLECTIONS, seed=SEEDS, n=st.integers(1, 3))
    def save_and_keep(self, writer: int, collection: str, seed: int, n: int) -> Saved:
        model = Saved(collection, seed, None, self._place(writer, collection))
        self._settle(0, 1)
        model.checkpoint = self.stores[writer].save(
            collection, values(seed), metadata={"seed": seed}, keep=last(n)
        )
        self.all.append(model)
        live = [one for one in self.all if one.collection == collection and not one.deleted]
        live.sort(key=lambda one: (one.place, self._known(one).ref.name), reverse=True)
        for one in live[n:]:
            if id(one) not in self.pinned and one is not model:
                self._mark_deleted(one)
        self.look(writer, collection, None)
        return model

    @rule(writer=WRITERS, model=StoreModel.saved)
    def load(self, writer: int, model: Saved) -> None:
        if not self._is_purged(model):
            super().load(writer=writer, model=model)
            return
        with pytest.raises(GONE):
            self.stores[writer].load(self._known(model))

    @rule(writer=WRITERS, model=StoreModel.saved)
    def delete(self, writer: int, model: Saved) -> None:
        found = self._known(model)
        if self._is_purged(model):
            with pytest.raises(CheckpointNotFoundError):
                self.stores[writer].delete(found)
            return
        self.stores[writer].delete(found)
        self._mark_deleted(model)

    @rule(writer=WRITERS, model=StoreModel.saved)
    def undelete(self, writer: int, model: Saved) -> None:
        found = self._known(model)
        if self._is_purged(model) or (model.deleted and self._age_s(model) > GRACE_S / 2):
            with pytest.raises(GONE):
                self.stores[writer].undelete(found)
            return
        self.stores[writer].undelete(found)
        model.deleted = False
        self.deleted_at.pop(id(model), None)

    @rule(writer=WRITERS, model=StoreModel.saved, on=st.booleans())
    def pin_or_unpin(self, writer: int, model: Saved, on: bool) -> None:
        store, found = self.stores[writer], self._known(model)
        if model.deleted or self._is_purged(model):
            with pytest.raises(GONE):
                store.pin(found)
            return
        (store.pin if on else store.unpin)(found)
        (self.pinned.add if on else self.pinned.discard)(id(model))

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            if hasattr(self, "patch"):
                self.patch.stop()


class LocalCollectingModel(CollectingModel):
    kind = "local"


SETTINGS = settings(
    max_examples=20,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
TestCollectionsInMemory: Any = CollectingModel.TestCase
TestCollectionsInMemory.settings = SETTINGS
TestCollectionsInAFolder: Any = LocalCollectingModel.TestCase
TestCollectionsInAFolder.settings = SETTINGS


def test_the_model_notices_a_collection_without_a_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_collect._Run, "_cut_s", property(lambda run: run._now_s))
    once = settings(SETTINGS, max_examples=300, database=None, phases=[Phase.generate])
    with pytest.raises((AssertionError, CheckpointNotFoundError)):
        run_state_machine_as_test(CollectingModel, settings=once)
