"""Tasks that make the store of a datastore in the same moment: all must come to one id."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import seaweed
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint.storage.datastore_backend import DatastoreBackend
from test_datastore_backend import FOLDER, Bare, s3_storage

from ckptstore import CheckpointStore
from ckptstore.backends import open_backend
from ckptstore.config import StoreConfig

N_TASKS = 3


def test_tasks_that_make_a_store_at_once_make_one_store(tmp_path: Path, monkeypatch: Any) -> None:
    """Metaflow looks whether there is an object and stores it later: here every task looks before any stores."""
    all_have_looked = threading.Barrier(N_TASKS)
    save_bytes, stored = LocalStorage.save_bytes, []

    def late(self: Any, items: Any, overwrite: bool = False, len_hint: int = 0) -> None:
        for path, data in items:
            if path.endswith("ckptstore.json"):
                assert not overwrite
                stored.append(path)
                all_have_looked.wait(20)
                overwrite = True
            save_bytes(self, [(path, data)], overwrite=overwrite, len_hint=len_hint)

    monkeypatch.setattr(LocalStorage, "save_bytes", late)

    async def backend(executor: Any) -> DatastoreBackend:
        return DatastoreBackend(Bare(str(tmp_path / "root")), FOLDER, executor)

    def task(n: int) -> str:
        with CheckpointStore.open(backend) as store:
            store.save("c", {"n": n})
            return store.store_id

    with ThreadPoolExecutor(N_TASKS) as tasks:
        ids = set(tasks.map(task, range(N_TASKS)))
    assert len(stored) == N_TASKS
    with CheckpointStore.open(backend, create=False) as store:
        assert ids == {store.store_id}
        assert sorted(store.load(found)["n"] for found in store.list()) == list(range(N_TASKS))


@pytest.mark.parametrize("region", ["", ".amazonaws.com"])
def test_tasks_with_and_without_aiobotocore_give_a_store_the_same_id(monkeypatch: Any, region: str) -> None:
    storage = s3_storage(monkeypatch)
    endpoint = f"http://s3{region}.localhost:{seaweed.server().port}"
    monkeypatch.setattr(
        "metaflow.plugins.datatools.s3.s3util.DATATOOLS_CLIENT_PARAMS",
        {"endpoint_url": endpoint, "region_name": "us-east-1"},
    )
    url = f"{storage.datastore_root}/{FOLDER}"

    async def main() -> None:
        with ThreadPoolExecutor(1) as executor:
            ours = await open_backend(
                url, config=StoreConfig(), executor=executor, **seaweed.options_for(endpoint)
            )
            try:
                theirs = DatastoreBackend(storage, FOLDER, executor)
                assert theirs.identity == ours.identity == (url if region else f"{url} {endpoint}")
            finally:
                await ours.aclose()

    asyncio.run(main())
