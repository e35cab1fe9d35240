"""The doors to the store: every case runs through the blocking and the asynchronous one, on each storage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import seaweed

from ckptstore import AsyncCheckpointStore, Checkpoint, CheckpointStore, Manifest, StoreConfig


class AsyncDoor:
    """The asynchronous store, driven from a test that is not a coroutine."""

    def __init__(self, url: str, **options: Any) -> None:
        self.loop = asyncio.new_event_loop()
        try:
            self.store = self.wait(AsyncCheckpointStore.open(url, **options))
        except BaseException:
            self.loop.close()
            raise

    def wait(self, awaitable: Any) -> Any:
        async def result() -> Any:
            return await awaitable

        return self.loop.run_until_complete(result())

    def save(self, collection: str, values: Mapping[str, object], **options: Any) -> Any:
        return self.wait(self.store.save(collection, values, **options))

    def committed(self, pending: Any) -> Any:
        return self.wait(pending.committed)

    def save_captured(self, captured: Any) -> Any:
        return self.wait(captured.save())

    def load(self, what: Any, **options: Any) -> dict[str, Any]:
        return self.wait(self.store.load(what, **options))  # type: ignore[no-any-return]

    def inspect(self, what: Any) -> Manifest:
        return self.wait(self.store.inspect(what))  # type: ignore[no-any-return]

    def latest(self, collection: str, **options: Any) -> Checkpoint | None:
        return self.wait(self.store.latest(collection, **options))  # type: ignore[no-any-return]

    def list(self, *args: Any, **options: Any) -> Any:
        async def gather() -> Any:
            return [item async for item in self.store.list(*args, **options)]

        return self.wait(gather())

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.store, name)
        if not callable(attribute):
            return attribute
        return lambda *args, **options: self.wait(attribute(*args, **options))

    def close(self) -> None:
        if not self.loop.is_closed():
            try:
                self.wait(self.store.aclose())
            finally:
                self.loop.close()


class SyncDoor:
    """The blocking store, with lists that are lists."""

    def __init__(self, url: str, **options: Any) -> None:
        self.store = CheckpointStore.open(url, **options)

    def list(self, *args: Any, **options: Any) -> Any:
        return list(self.store.list(*args, **options))

    def committed(self, pending: Any) -> Any:
        return pending.committed.result(30)

    def save_captured(self, captured: Any) -> Any:
        return captured.save()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


Open = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open a local store (a new one in a temporary folder unless a URL is given); all are closed at the end."""
    opened: list[Any] = []

    def open_(url: str | None = None, config: StoreConfig | None = None, **options: Any) -> Any:
        door = (SyncDoor if request.param == "sync" else AsyncDoor)(
            url or str(tmp_path / "store"), config=config or StoreConfig(durability="os"), **options
        )
        opened.append(door)
        return door

    yield open_
    for door in opened:
        door.close()


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, open_store: Open) -> Any:
    """A new, empty store."""
    if request.param == "s3":
        server = seaweed.server()
        return open_store(server.new_url(), **server.options)
    return open_store("memory://" if request.param == "memory" else None)
