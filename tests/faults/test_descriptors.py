"""A process that may open no more files, by the system's own limit: an error that says so, and nothing lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from descriptors import only
from rig import CONFIG, Storage, everything, is_values, values

from ckptstore import AsyncCheckpointStore, _commit, last
from ckptstore.errors import BackendError, CommitUnknownError, GCAbortedError


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commit, "_BACKOFF_S", (0.0, 0.0))


async def save(store: AsyncCheckpointStore) -> Any:
    return (await store.save("c", values(1))).seq


async def load(store: AsyncCheckpointStore) -> Any:
    return is_values(await store.load("c"), 0)


async def look(store: AsyncCheckpointStore) -> Any:
    newest = await store.latest("c")
    return newest is not None and [found async for found in store.list()] == [newest]


async def tidy(store: AsyncCheckpointStore) -> Any:
    await store.retain("c", last(1))
    return (await store.collect_garbage()).n_checkpoints == 1


async def verify(store: AsyncCheckpointStore) -> Any:
    return (await store.verify()).ok


@pytest.mark.parametrize("do", [save, load, look, tidy, verify])
def test_a_process_without_descriptors_is_told_so_and_goes_on_when_it_has_some(
    tmp_path: Path, do: Callable[[AsyncCheckpointStore], Awaitable[Any]]
) -> None:
    async def with_only(
        n: int, storage: Storage
    ) -> BackendError | GCAbortedError | CommitUnknownError | None:
        store = await storage.open(config=CONFIG)
        try:
            await store.save("c", values(0))
            with only(n):
                try:
                    assert await do(store) in (True, 1)
                except (BackendError, GCAbortedError, CommitUnknownError) as exc:
                    return exc
            return None
        finally:
            await store.aclose()

    errors = []
    for n in range(30):
        storage = Storage("local", tmp_path / f"{do.__name__}-{n}")
        error = asyncio.run(with_only(n, storage))
        seeds = [loaded["seed"] for _, loaded in asyncio.run(everything(storage))]
        saved = [1, 0] if do is save else [0]
        if error is None:
            assert seeds == saved
            break
        errors.append(error)
        assert seeds in ([saved, [0]] if isinstance(error, CommitUnknownError) else [[0]])
    else:
        pytest.fail("it never worked")
    assert errors
    assert any("too many open files" in str(error).lower() for error in errors), errors
