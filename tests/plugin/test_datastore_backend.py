"""The contract of backends over Metaflow's own storages: the one suite, and what the interface alone can do."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import seaweed
from cloud_emulators import azure_storage, gs_storage
from metaflow.datastore.datastore_storage import DataStoreStorage
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow.plugins.datastores.s3_storage import S3Storage
from metaflow_extensions.ckptstore.plugins.checkpoint.storage.datastore_backend import DatastoreBackend

from ckptstore import CheckpointStore
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    ObjectNotFoundError,
    StoreFullError,
    StoreNotFoundError,
    UnavailableError,
)

SUITE = str(Path(__file__).parents[1] / "backends")
sys.path.insert(0, SUITE)
pytest.register_assert_rewrite("test_conformance", "test_conformance_concurrency")
from test_conformance import *  # noqa: E402, F403
from test_conformance_concurrency import *  # noqa: E402, F403

sys.path.remove(SUITE)

FOLDER = "mf.ckptstore"


class Bare(DataStoreStorage):
    """A storage of an extension: Metaflow's interface, and nothing that is known of it."""

    TYPE = "bare"

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self._inner = LocalStorage(root)

    def __getattribute__(self, name: str) -> Any:
        if name in {"size_file", "list_content", "save_bytes", "load_bytes"}:
            return getattr(super().__getattribute__("_inner"), name)
        return super().__getattribute__(name)


@dataclass(frozen=True)
class Storage:
    """One storage for one test, as the suite wants it; every ``open`` gives another backend over it."""

    name: str
    open: Callable[[], AbstractAsyncContextManager[Any]]
    exact: bool = False


def s3_storage(monkeypatch: pytest.MonkeyPatch) -> S3Storage:
    server = seaweed.server()
    monkeypatch.setattr(
        "metaflow.plugins.datatools.s3.s3util.DATATOOLS_CLIENT_PARAMS",
        {"endpoint_url": server.endpoint_url, "region_name": "us-east-1"},
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.SECRET_KEY)
    return S3Storage(f"s3://{seaweed.BUCKET}/{server.new_prefix()}")


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4, thread_name_prefix="ckptstore-test") as pool:
        yield pool


@pytest.fixture(
    params=[
        "local",
        "s3",
        pytest.param("gs", marks=pytest.mark.soak),
        pytest.param("azure", marks=pytest.mark.soak),
    ]
)
def storage(request, tmp_path, monkeypatch, executor) -> Storage:
    # Metaflow's S3 client makes a temporary folder here for each of its calls.
    monkeypatch.setattr("metaflow.plugins.datastores.s3_storage.ARTIFACT_LOCALROOT", str(tmp_path))
    kind = request.param
    if kind == "local":
        theirs = LocalStorage(str(tmp_path / "root"))
    else:
        theirs = {"s3": s3_storage, "gs": gs_storage, "azure": azure_storage}[kind](monkeypatch)

    @contextlib.asynccontextmanager
    async def opener() -> AsyncIterator[DatastoreBackend]:
        backend = DatastoreBackend(theirs, FOLDER, executor)
        try:
            yield backend
        finally:
            await backend.aclose()

    return Storage(kind, opener)


def bare(tmp_path: Path, executor: ThreadPoolExecutor) -> DatastoreBackend:
    return DatastoreBackend(Bare(str(tmp_path / "root")), FOLDER, executor)


def test_the_interface_alone_is_enough_to_save_list_and_load(tmp_path):
    async def backend(executor):
        return bare(tmp_path, executor)

    with CheckpointStore.open(backend) as store:
        for epoch in range(3):
            saved = store.save("a/b", {"epoch": epoch, "data": bytes(10_000)}, label=f"e{epoch}")
        assert [checkpoint.label for checkpoint in store.list()] == ["e2", "e1", "e0"]
        assert store.load(saved.ref)["epoch"] == 2
        store.delete(saved)
        assert store.load("a/b") == {"epoch": 1, "data": bytes(10_000)}
    with CheckpointStore.open(backend, create=False) as store:
        assert store.latest("a/b").label == "e1"


def test_what_the_interface_cannot_do_is_said(tmp_path, executor):
    async def scenario():
        backend = bare(tmp_path, executor)
        await backend.put("a/b", b"x")
        with pytest.raises(
            BackendError, match="'bare' datastore has no way to delete: unpin and undelete"
        ) as e:
            await backend.delete("a/b")
        assert not e.value.transient
        assert await backend.get("a/b") == b"x"

    asyncio.run(scenario())


def test_the_interface_alone_reads_parts_and_misses_what_is_not_there(tmp_path, executor):
    async def scenario():
        backend = bare(tmp_path, executor)
        await backend.put("a/b", b"0123456789")
        assert await backend.get("a/b", start=3, length=4) == b"3456"
        assert (await backend.put("a/b", b"other", if_absent=True)).size == 10
        for attempt in (backend.get("a/c"), backend.head("a/c")):
            with pytest.raises(ObjectNotFoundError, match="a/c"):
                await attempt
        assert [(info.key, info.size) async for info in backend.list("a")] == [("a/b", 10)]

    asyncio.run(scenario())


class HTTPFailure(Exception):
    """As the clients of Google and Azure fail; its text repeats a secret."""

    def __init__(self, status: int) -> None:
        super().__init__("https://account/?sig=secret")
        self.status_code = status


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (HTTPFailure(403), AccessDeniedError),
        (HTTPFailure(500), UnavailableError),
        (PermissionError(13, "no"), AccessDeniedError),
        (OSError(28, "full"), StoreFullError),
        (ConnectionResetError(), UnavailableError),
    ],
    ids=repr,
)
def test_failures_are_told_in_our_words_without_the_clients_text(
    failure, expected, tmp_path, executor, monkeypatch
):
    async def scenario():
        backend = bare(tmp_path, executor)

        def fail(*args, **kwargs):
            raise failure

        monkeypatch.setattr(LocalStorage, "save_bytes", fail)
        with pytest.raises(expected, match="cannot write a/b in bare:") as caught:
            await backend.put("a/b", b"x")
        assert "secret" not in str(caught.value)
        assert caught.value.__cause__ is failure

    asyncio.run(scenario())


def test_a_missing_bucket_is_no_empty_store(monkeypatch, executor):
    storage = s3_storage(monkeypatch)
    storage.datastore_root = "s3://no-such-bucket/x"

    async def scenario():
        backend = DatastoreBackend(storage, FOLDER, executor)
        with pytest.raises((StoreNotFoundError, AccessDeniedError)):
            await backend.get("a/b")

    asyncio.run(scenario())
