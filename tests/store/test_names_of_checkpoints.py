"""``collection@name``, as reports and messages call a checkpoint, is enough to find it: also where it is damaged."""

from __future__ import annotations

from typing import Any

import pytest

from ckptstore.errors import (
    CheckpointDeletedError,
    CheckpointNotFoundError,
    ConfigError,
    InvalidNameError,
    ManifestCorruptError,
    UntrustedPickleError,
)


class Plain:
    """A value that takes trust to load."""


def damage(store: Any, checkpoint: Any) -> None:
    """Put something else into a manifest's place, through the storage."""
    key = f"manifests/c/{checkpoint.ref.name}"
    if hasattr(store, "wait"):
        store.wait(store.store._engine.backend.put(key, b"damaged"))
    else:
        store.store._loop.call(store.store._store._engine.backend.put(key, b"damaged"))


@pytest.mark.parametrize("by", ["reference", "dict", "checkpoint", "name"])
def test_a_damaged_checkpoint_is_deleted_and_comes_back(store: Any, by: str) -> None:
    older = store.save("c", {"n": 1})
    newest = store.save("c", {"n": 2})
    damage(store, newest)
    ref = newest.ref
    what = {"reference": ref, "dict": ref.to_dict(), "checkpoint": newest, "name": str(ref)}[by]
    with pytest.raises(ManifestCorruptError, match=ref.name):
        store.latest("c")
    store.delete(what)
    store.delete(what)
    assert store.latest("c") == older
    assert store.list("c") == [older]
    with pytest.raises(CheckpointDeletedError):
        store.load(what)
    assert store.save("c", {"n": 3}).epoch == newest.epoch
    store.undelete(what)
    with pytest.raises(ManifestCorruptError, match=ref.name):
        store.load(what)


def test_what_verify_reports_can_be_deleted_and_loaded_instead(store: Any) -> None:
    saved = [store.save("c", {"n": n}) for n in range(3)]
    damage(store, saved[2])
    (damaged,) = store.verify("c").damaged
    assert store.load(damaged.older) == {"n": 1}
    store.delete(damaged.checkpoint)
    assert store.verify().ok
    assert store.latest("c") == saved[1]


def test_a_name_does_what_its_reference_does(open_store: Any) -> None:
    store = open_store()
    first = store.save("exp/run 1@home", {"n": 1})
    second = store.save("exp/run 1@home", {"n": 2}, label="b@x")
    one, two = str(first.ref), str(second.ref)
    assert store.load("exp/run 1@home") == {"n": 2}
    assert store.load(one) == {"n": 1}
    assert store.inspect(two).checkpoint == second
    assert store.diff(one, two) == store.diff(first, second)
    assert store.verify(one) == store.verify(first.ref)
    store.pin(one)
    store.unpin(one)


def test_a_name_pins_nothing(open_store: Any) -> None:
    store = open_store()
    saved = store.save("c", {"x": Plain()})
    assert isinstance(store.load(saved.ref, trusted="verified")["x"], Plain)
    with pytest.raises(UntrustedPickleError):
        store.load(str(saved.ref), trusted="verified")


def test_what_names_no_checkpoint_is_refused(open_store: Any) -> None:
    store = open_store()
    saved = store.save("c", {"n": 1})
    gone = str(saved.ref).replace(saved.ref.name[-32:], "0" * 32)
    for call in (store.load, store.inspect, store.delete, store.undelete, store.pin, store.unpin):
        with pytest.raises(CheckpointNotFoundError):
            call(gone)
    for name in ("c", "c@", "c@best", "@" + saved.ref.name, "../c@" + saved.ref.name):
        with pytest.raises(InvalidNameError):
            store.undelete(name)
    with pytest.raises(ConfigError, match="name of a collection"):
        store.load(str(saved.ref), fallback=1)
    assert store.list("c") == [saved]
