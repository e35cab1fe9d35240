"""Where the newest checkpoint is damaged: an error by default, an older one if asked for, loudly and on record."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptstore import StoreConfig
from ckptstore.errors import (
    CheckpointNotFoundError,
    ChunkMissingError,
    ConfigError,
    InvalidNameError,
    ManifestCorruptError,
    SignatureError,
    UntrustedPickleError,
)

NOTE = "ckptstore.fallback"


class Plain:
    """A value that takes trust to load."""


def damage(folder: Path, checkpoint: Any) -> None:
    (path,) = (folder / "store/manifests").rglob(checkpoint.ref.name)
    os.truncate(path, 100)


def three(store: Any, **options: Any) -> list[Any]:
    """Save three checkpoints, and return them, newest first."""
    return [store.save("c", {"n": n}, **options) for n in range(3)][::-1]


def test_by_default_the_newest_or_an_error(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    newest, *_ = three(store)
    damage(tmp_path, newest)
    for call in (store.latest, store.load):
        with pytest.raises(ManifestCorruptError, match=newest.ref.name):
            call("c")


def test_latest_takes_an_older_one_and_says_so(
    open_store: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    newest, second, oldest = three(store)
    assert store.latest("c", fallback=2).skipped == ()
    damage(tmp_path, newest)
    damage(tmp_path, second)
    with pytest.raises(ManifestCorruptError, match=newest.ref.name):
        store.latest("c", fallback=1)
    assert not caplog.messages
    with caplog.at_level(logging.WARNING, "ckptstore"):
        found = store.latest("c", fallback=2)
    assert found == oldest
    assert [skipped.checkpoint for skipped in found.skipped] == [str(newest.ref), str(second.ref)]
    assert len(caplog.messages) == 2
    for message, skipped in zip(caplog.messages, found.skipped, strict=True):
        assert skipped.checkpoint in message
        assert skipped.reason in message
        assert oldest.ref.name in message


def test_the_next_save_records_it_once(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    newest, second, _ = three(store)
    damage(tmp_path, newest)
    store.latest("c", fallback=1)
    assert NOTE not in store.save("elsewhere", {"n": 1}).attributes
    saved = store.save("c", {"n": 4}, parent=second.ref, attributes={"mine": 1})
    assert saved.attributes == {
        "mine": 1,
        NOTE: {"to": second.ref.name, "skipped": [newest.ref.name], "n_skipped": 1},
    }
    assert saved.parent == second.ref
    assert store.inspect(saved).checkpoint.attributes == saved.attributes
    assert NOTE not in store.save("c", {"n": 5}).attributes


def test_a_record_that_does_not_fit_fails_no_save(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    damage(tmp_path, three(store)[0])
    store.latest("c", fallback=1)
    full = {"x": "y" * (2**20 - 20)}
    assert store.save("c", {"n": 1}, attributes=full).attributes == full


def chunks(folder: Path) -> set[Path]:
    return {path for path in (folder / "store/chunks").rglob("*.*") if path.is_file()}


def test_load_takes_an_older_one_where_data_is_damaged_too(
    open_store: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(config=StoreConfig(durability="os", inline_bytes=64))
    values = [np.random.default_rng(seed).standard_normal(2000) for seed in range(3)]
    oldest, second = (store.save("c", {"a": value}) for value in values[:2])
    before = chunks(tmp_path)
    newest = store.save("c", {"a": values[2]})
    for path in chunks(tmp_path) - before:
        path.unlink()
    damage(tmp_path, second)
    assert store.latest("c", fallback=2) == newest  # its manifest is whole
    with pytest.raises(ChunkMissingError):
        store.load("c", fallback=1)
    with caplog.at_level(logging.WARNING, "ckptstore"):
        assert np.array_equal(store.load("c", fallback=2)["a"], values[0])
    for checkpoint, message in zip((newest, second), caplog.messages, strict=True):
        assert checkpoint.ref.name in message
    note = store.save("c", {"n": 1}).attributes[NOTE]
    assert (note["to"], note["n_skipped"]) == (oldest.ref.name, 2)


def test_labels_and_runs_are_those_that_were_asked_for(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    wanted = store.save("c", {"n": 1}, label="best", run="r")
    store.save("c", {"n": 2})
    newest = store.save("c", {"n": 3}, label="best", run="r")
    damage(tmp_path, newest)
    assert store.latest("c", label="best", fallback=1) == wanted
    assert store.latest("c", run="r", fallback=1) == wanted
    assert store.latest("c", label="none", fallback=1) is None


def test_nothing_there_is_none_and_all_damaged_is_an_error(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    assert store.latest("c", fallback=5) is None
    with pytest.raises(CheckpointNotFoundError, match="'c'"):
        store.load("c", fallback=5)
    newest, *older = three(store)
    for checkpoint in (newest, *older):
        damage(tmp_path, checkpoint)
    with pytest.raises(ManifestCorruptError, match=newest.ref.name):
        store.latest("c", fallback=5)
    with pytest.raises(ManifestCorruptError, match=newest.ref.name):
        store.load("c", fallback=5)


def test_deleted_ones_do_not_count(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    newest, second, oldest = three(store)
    damage(tmp_path, newest)
    store.delete(second)
    assert store.latest("c", fallback=1) == oldest


def test_what_is_no_damage_is_no_reason_to_go_back(open_store: Any, tmp_path: Path) -> None:
    store = open_store()
    store.save("c", {"n": 1})
    store.save("c", {"n": Plain()})
    with pytest.raises(UntrustedPickleError):
        store.load("c", fallback=1)
    assert store.load("c", fields=["n"], trusted=True, fallback=1)["n"].__class__ is Plain
    with pytest.raises(CheckpointNotFoundError, match="no field"):
        store.load("c", fields=["m"], fallback=1)
    (tmp_path / "key").write_text(f"k1 {'ab' * 32}\n")
    (tmp_path / "key").chmod(0o600)
    signing = open_store(config=StoreConfig(durability="os", signing_key=str(tmp_path / "key")))
    with pytest.raises(SignatureError):
        signing.latest("c", fallback=1)


def test_wrong_arguments_are_refused(open_store: Any) -> None:
    store = open_store()
    for fallback in (-1, True, 1.0, "1", 1001, None):
        with pytest.raises(ConfigError, match="fallback"):
            store.latest("c", fallback=fallback)
        with pytest.raises(ConfigError, match="fallback"):
            store.load("c", fallback=fallback)
    with pytest.raises(ConfigError, match="name of a collection"):
        store.load(store.save("c", {"n": 1}), fallback=1)
    for call in (store.latest, store.load):
        with pytest.raises(InvalidNameError):
            call("../c", fallback=1)
