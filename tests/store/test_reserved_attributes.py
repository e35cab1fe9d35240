"""Attributes whose names are the store's own: noted by it, and by nobody else."""

from __future__ import annotations

from typing import Any

import pytest

from ckptstore.errors import ConfigError


def test_a_name_of_the_stores_own_is_refused_before_anything_is_written(store: Any) -> None:
    for name in ("ckptstore.fallback", "ckptstore.copied_from", "ckptstore.", "ckptstore.mine"):
        for refused in (store.save, store.capture):
            with pytest.raises(ConfigError, match=rf"attributes\['{name}'\].*reserved"):
                refused("c", {"n": 1}, attributes={"mine": 1, name: {"to": "nowhere"}})
    assert store.list() == []


def test_names_that_only_look_like_it_are_taken(store: Any) -> None:
    attributes = {"ckptstore": 1, "Ckptstore.x": 2, "my.ckptstore.x": 3, "deep": {"ckptstore.x": 4}}
    saved = store.save("c", {"n": 1}, attributes=attributes, metadata={"ckptstore.x": 5})
    assert store.inspect(saved).checkpoint.attributes == attributes
    assert saved.metadata == {"ckptstore.x": 5}
