"""A difference over a storage that fails: the truth or an error, and nothing left behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rig import Cancelling, Faulty, Storage, nothing_is_left

from ckptstore.backends.base import Backend
from ckptstore.errors import AccessDeniedError, CheckpointStoreError, FormatError, IntegrityError
from ckptstore.testing import Fault

CHANGED = {"w3", "last"}


def values(changed: bool) -> dict[str, Any]:
    """Small arrays that share chunks; what is changed cannot be told by digests alone."""
    rng = np.random.default_rng(0)
    given = {f"w{i}": rng.standard_normal(40) for i in range(30)} | {"last": rng.standard_normal(100)}
    for name in CHANGED if changed else ():
        given[name][5] += 1
    return given


async def prepared(storage: Storage) -> None:
    store = await storage.open()
    await store.save("a", values(False))
    await store.save("b", values(True))
    await store.aclose()


def wrapped(way: str, inner: Backend, nth: int) -> Faulty:
    if way.startswith("cancelled"):
        return Cancelling(inner, nth, when=way.partition("-")[2])
    errors: dict[str, Any] = {"refused": lambda: AccessDeniedError("no"), "inside": asyncio.CancelledError}
    when: Any = way if way in ("after", "corrupt") else "before"
    options = {"error": errors[way]} if way in errors else {}
    return Faulty(inner, Fault(nth=nth, when=when, bit=99_991 * nth, **options))


@pytest.mark.parametrize(
    "way", ["unavailable", "after", "refused", "inside", "corrupt", "cancelled-before", "cancelled-after"]
)
def test_a_difference_is_true_or_an_error(tmp_path: Path, way: str) -> None:
    storage = Storage("memory", tmp_path)
    damage, trouble = (FormatError, IntegrityError), (CheckpointStoreError, asyncio.CancelledError)
    expected: tuple[type[BaseException], ...] = damage if way == "corrupt" else trouble

    async def strike(nth: int) -> bool:
        backends: list[Faulty] = []

        def wrap(inner: Backend) -> Backend:
            backends.append(wrapped(way, inner, nth))
            return backends[0]

        store = await storage.open(wrap)
        task = asyncio.ensure_future(store.diff("a", "b"))
        if isinstance(backends[0], Cancelling):
            backends[0].victim = task
        try:
            found = await task
        except expected:
            assert backends[0].fired
        else:
            assert {name for name, field in found.fields.items() if field.state == "changed"} == CHANGED
            assert all(leaf.state == field.state for field in found.fields.values() for leaf in field.leaves)
        nothing_is_left(store)
        fired = bool(backends[0].fired)
        await store.aclose()
        return fired

    async def main() -> int:
        await prepared(storage)
        nth = 2  # the first opens the store
        while await strike(nth):
            nth += 1
        return nth

    assert asyncio.run(main()) > 7
