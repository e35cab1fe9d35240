"""Retention: what stays visible, and what it costs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptstore import Checkpoint, CheckpointRef, Keep, best, every, last, max_age
from ckptstore.errors import (
    CheckpointDeletedError,
    ConfigError,
    InvalidNameError,
    InvalidPolicyError,
)


def seqs(store: Any, collection: str = "c", **options: Any) -> list[int]:
    return [checkpoint.metadata["n"] for checkpoint in store.list(collection, **options)]


def fill(store: Any, n: int, collection: str = "c", **options: Any) -> list[Checkpoint]:
    return [store.save(collection, {"n": i}, metadata={"n": i}, **options) for i in range(n)]


def test_retain_deletes_what_no_rule_keeps_and_returns_it(store: Any) -> None:
    saved = fill(store, 8)
    deleted = store.retain("c", last(2) | every(3))
    assert deleted == [saved[5], saved[4], saved[2], saved[1]]
    assert seqs(store) == [7, 6, 3, 0]
    assert store.retain("c", last(2) | every(3)) == []
    with pytest.raises(CheckpointDeletedError):
        store.load(saved[1])
    store.undelete(saved[1])
    assert seqs(store) == [7, 6, 3, 1, 0]


def test_a_dry_run_deletes_nothing(store: Any) -> None:
    saved = fill(store, 4)
    assert store.retain("c", last(1), dry_run=True) == saved[2::-1]
    assert seqs(store) == [3, 2, 1, 0]


def test_retain_keeps_pins_what_is_protected_and_the_newest(store: Any) -> None:
    saved = fill(store, 6)
    store.pin(saved[1])
    deleted = store.retain("c", best("n", 1), protect=[saved[2], saved[3].ref])
    assert deleted == [saved[4]]
    assert seqs(store) == [5, 3, 2, 1, 0]
    store.unpin(saved[1])
    assert store.retain("c", best("n", 1)) == [saved[3], saved[2], saved[1]]


def test_what_was_deleted_does_not_count(store: Any) -> None:
    saved = fill(store, 5)
    store.delete(saved[4])
    assert store.retain("c", last(2)) == [saved[1], saved[0]]
    assert seqs(store) == [3, 2]


def test_retain_of_a_run_judges_that_run_alone(store: Any) -> None:
    mine = fill(store, 3, run="mine")
    others = fill(store, 3, run="other")
    assert store.retain("c", last(1), run="mine") == [mine[1], mine[0]]
    assert [found.ref for found in store.list("c")] == [one.ref for one in (*others[::-1], mine[2])]
    assert store.retain("c", last(2)) == [others[0], mine[2]]


def test_the_newest_of_a_run_stays_also_below_that_of_another(store: Any) -> None:
    mine = fill(store, 3, run="mine")
    fill(store, 2, run="other")
    assert store.retain("c", best("n"), run="mine") == [mine[1]]
    assert [found.ref for found in store.list("c", run="mine")] == [mine[2].ref, mine[0].ref]


def test_rules_look_at_metadata_and_attributes(store: Any) -> None:
    for n in range(8):
        store.save(
            "c",
            {"n": n},
            metadata={"n": n, "loss": [0.5, 0.1, float("nan"), 0.9, 0.1, "0", True, 0.4][n]},
            attributes={"mark": n % 4 == 0},
        )
    store.retain("c", best("loss", 2) | last(1, attributes={"mark": True}))
    assert seqs(store) == [7, 4, 1]


def test_a_collection_that_is_not_there_has_nothing_to_delete(store: Any) -> None:
    assert store.retain("nothing", last(1)) == []
    assert store.list() == []


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        (("c", "last(3)"), {}, InvalidPolicyError),
        (("c", None), {}, InvalidPolicyError),
        (("c", 3), {}, InvalidPolicyError),
        (("../c", last(1)), {}, InvalidNameError),
        (("c", last(1)), {"run": ""}, InvalidNameError),
        (("c", last(1)), {"protect": "c"}, ConfigError),
        (("c", last(1)), {"protect": ["c"]}, ConfigError),
        (("c", last(1)), {"protect": 3}, ConfigError),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_deleted(
    open_store: Any, arguments: Any, options: Any, kind: type[Exception]
) -> None:
    store = open_store("memory://")
    fill(store, 2)
    with pytest.raises(kind):
        store.retain(*arguments, **options)
    assert seqs(store) == [1, 0]


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"keep": "last(3)"}, InvalidPolicyError),
        ({"keep": last}, InvalidPolicyError),
        ({"keep": last(1), "protect": ["c"]}, ConfigError),
        ({"protect": 1}, ConfigError),
    ],
)
def test_a_save_with_a_wrong_policy_saves_nothing(
    open_store: Any, options: Any, kind: type[Exception]
) -> None:
    store = open_store("memory://")
    with pytest.raises(kind):
        store.save("c", {"n": 1}, **options)
    assert store.list() == []


@pytest.mark.parametrize("wait", [True, False])
def test_fifty_saves_that_keep_three_leave_three(store: Any, wait: bool) -> None:
    for n in range(50):
        store.save("c", {"n": n, "same": np.arange(1000)}, metadata={"n": n}, keep=last(3), wait=wait)
    assert seqs(store) == [49, 48, 47]
    assert store.load("c")["n"] == 49


def test_each_save_is_followed_by_its_own_policy(store: Any) -> None:
    for n, loss in enumerate([0.5, 0.1, 0.9, 0.1, 0.3, 0.8]):
        store.save("c", {"n": n}, metadata={"n": n, "loss": loss}, keep=last(2) | best("loss", 1))
    assert seqs(store) == [5, 4, 3]
    store.save("c", {"n": 6}, metadata={"n": 6})
    assert seqs(store) == [6, 5, 4, 3]
    store.save("c", {"n": 7}, metadata={"n": 7}, keep=Keep.parse("last(1)"))
    assert seqs(store) == [7]


def test_a_save_judges_its_own_run_alone(store: Any) -> None:
    others = fill(store, 3, run="other")
    unnamed = fill(store, 2)
    mine = fill(store, 3, run="mine", keep=last(1))
    assert [found.ref for found in store.list("c")] == [
        one.ref for one in (mine[2], *unnamed[::-1], *others[::-1])
    ]
    nameless = store.save("c", {"n": 9}, metadata={"n": 9}, keep=last(1))
    assert [found.ref for found in store.list("c")] == [one.ref for one in (nameless, mine[2], *others[::-1])]


def test_a_save_keeps_its_parent_and_what_it_protects(store: Any) -> None:
    saved = fill(store, 4)
    store.save("c", {}, metadata={"n": 4}, keep=last(1), parent=saved[0].ref, protect=[saved[2]])
    assert seqs(store) == [4, 2, 0]


def test_references_of_elsewhere_protect_nothing_and_harm_nothing(store: Any) -> None:
    saved = fill(store, 2)
    elsewhere = CheckpointRef("ab" * 16, "c", saved[0].ref.name, saved[0].ref.digest)
    other = store.save("d", {}, metadata={"n": 0})
    store.save("c", {}, metadata={"n": 2}, keep=last(1), parent=elsewhere, protect=[other])
    assert seqs(store) == [2]


def test_retention_touches_its_collection_alone(store: Any) -> None:
    fill(store, 3, "c/d")
    fill(store, 3, "c", keep=last(1))
    assert seqs(store, "c/d") == [2, 1, 0]


def test_pins_put_meanwhile_are_kept(store: Any) -> None:
    pinned = store.save("c", {"n": 0}, metadata={"n": 0}, keep=last(1))
    store.pin(pinned)
    fill(store, 4, keep=last(2))
    assert seqs(store) == [3, 2, 0]


def test_what_cannot_be_read_is_left_alone(
    open_store: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    saved = fill(store, 4)
    (damaged,) = (tmp_path / "store").rglob(saved[1].ref.name)
    damaged.write_bytes(b"damaged")
    assert store.retain("c", best("n", 1)) == [saved[2]]
    assert "leaves alone what it cannot read" in caplog.text
    assert [one.ref for one in store.retain("c", last(1), dry_run=True)] == [saved[0].ref]


def aged(path: Path, checkpoint: Checkpoint, by_s: float) -> None:
    (manifest,) = path.rglob(checkpoint.ref.name)
    found = manifest.stat()
    os.utime(manifest, (found.st_atime, found.st_mtime - by_s))


def test_ages_are_by_the_storage_clock(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    saved = fill(store, 5)
    for n, checkpoint in enumerate(saved):
        aged(tmp_path, checkpoint, 86_400 * (5 - n))
    # The newest is a day old, and the disk tells that it is today.
    assert store.retain("c", max_age("3.5 d")) == [saved[1], saved[0]]
    assert store.retain("c", max_age("1 h")) == [saved[3], saved[2]]
    assert store.list("c")[0].ref == saved[4].ref
    store.save("c", {}, metadata={"n": 5}, keep=max_age("1 d"))
    assert seqs(store) == [5]


def test_the_clock_of_this_host_does_not_age_anything(
    open_store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    store = open_store()
    fill(store, 3)
    ahead = time.time() + 1e8
    monkeypatch.setattr(time, "time", lambda: ahead)
    assert store.retain("c", max_age("1 d")) == []
