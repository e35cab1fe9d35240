"""Where the checkpoints of a task are: in the datastore of its run, beside the flows."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any
from urllib.parse import quote

from metaflow.exception import MetaflowException

import ckptstore

from ..artifact_serializers import make_registry
from ..errors import CheckpointException
from ..requirements import ON_DISK
from .datastore_backend import DatastoreBackend
from .s3_client import has_aiobotocore, s3_options

__all__ = [
    "STORE_FOLDER",
    "Place",
    "configured_place",
    "place_at",
    "place_of_attempt",
    "place_of_origin",
    "place_of_task",
]

# Beside the flows' folders. No flow can have this name, and the folder has none of the
# files by which Metaflow's local metadata provider knows a flow.
STORE_FOLDER = "mf.ckptstore"

_BLOCKING_WORKERS = 8
"""Threads of a store whose requests block: each holds one for as long as the storage takes."""


class Place:
    """The folder for checkpoints in one datastore, given one of Metaflow's DataStoreStorage objects.

    A local datastore, and that of `spin`, is a local store, an S3 one an S3
    store with a client configured as Metaflow's. Everything else, and S3 where
    aiobotocore is not installed, is reached through Metaflow's own code.
    """

    def __init__(self, storage: Any, log: Callable[[str], None]) -> None:
        self._storage = storage
        self._log = log
        self.kind: str = storage.TYPE
        self.root = root = str(storage.datastore_root).rstrip("/")
        self.url: str
        """For people, and to tell two places apart."""
        if storage.TYPE in ON_DISK:
            self.url = f"{os.path.abspath(root)}/{STORE_FOLDER}"
        elif "://" in root:
            self.url = f"{root}/{STORE_FOLDER}"
        else:
            self.url = f"{storage.TYPE}:{root}/{STORE_FOLDER}"

    def open(self, *, create: bool) -> ckptstore.CheckpointStore:
        """Open the store; ``create``: make it if there is none. Raises what CheckpointStore.open raises."""
        url, options = self.opening()
        return ckptstore.CheckpointStore.open(url, create=create, registry=make_registry(), **options)

    def opening(
        self,
    ) -> tuple[str | Callable[[Executor], Awaitable[ckptstore.Backend]], dict[str, Any]]:
        """Return what a store is opened with: a URL or a function that makes the backend, and options."""
        if self._storage.TYPE in ON_DISK:
            return self.url, {"config": _config()}
        if self._storage.TYPE == "s3":
            if has_aiobotocore():
                scheme, _, path = self.url.partition("://")
                return f"{scheme}://{quote(path)}", {
                    "config": _config(),
                    **s3_options(_client(self._storage)),
                }
            self._log(
                "aiobotocore is not installed here: checkpoints go through Metaflow's own S3 client, which is "
                'slower; python -m pip install "ckptstore[s3]"'
            )
        config = _config(encode_workers=_BLOCKING_WORKERS)
        return functools.partial(_backend, self._storage), {"config": config}


def place_of_attempt(task_datastore: Any, log: Callable[[str], None]) -> Place:
    """Return the place of a running task's checkpoints: the datastore of its run.

    A `spin` that persists no artifacts keeps no checkpoints either: they are in
    a folder that goes when the process ends.
    """
    if getattr(task_datastore, "_persist", True):
        return Place(task_datastore._storage_impl, log)
    from metaflow.plugins.datastores.local_storage import LocalStorage

    folder = tempfile.mkdtemp(prefix="ckptstore-spin-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    log("nothing is persisted by this spin: its checkpoints go when the task ends; spin --persist keeps them")
    return Place(LocalStorage(folder), log)  # type: ignore[no-untyped-call]  # Metaflow's


def place_of_origin(inputs: Sequence[Any] | None, log: Callable[[str], None]) -> Place | None:
    """Return where the run is whose step is tried out by `spin`, given the task's inputs; else None.

    The client cannot tell: in such a task it knows no other run than spin's.
    """
    origin = getattr(inputs[0], "orig_datastore", None) if inputs else None
    return None if origin is None else Place(origin._storage_impl, log)


def place_of_task(task: object, log: Callable[[str], None]) -> Place | None:
    """Return the place of a task's checkpoints by what its metadata says; None if there is no such task.

    ``task`` is a Metaflow Task or a pathspec. Raises CheckpointException if its
    datastore is of a kind that is not installed here.
    """
    from metaflow.client.core import Task
    from metaflow.exception import MetaflowNotFound

    if isinstance(task, str):
        try:
            task = Task(task, _namespace_check=False)
        except MetaflowNotFound:
            return None
    noted = getattr(task, "metadata_dict", {})
    kind, root = noted.get("ds-type"), noted.get("ds-root")
    if not kind or not root:
        return None
    return place_at(kind, root, log, whose=str(getattr(task, "pathspec", task)))


def place_at(kind: str, root: str, log: Callable[[str], None], *, whose: str) -> Place:
    """Return the place of checkpoints in the datastore of a kind and root; ``whose`` they are, for people.

    Raises CheckpointException if that kind is not installed here.
    """
    try:
        return Place(_storage_class(kind, whose)(root), log)
    except MetaflowException as error:  # its client is not installed
        raise CheckpointException(
            f"the checkpoints of {whose} are in {root}, which cannot be opened here: {error}"
        ) from error


def configured_place(log: Callable[[str], None], *, kind: str | None, root: str | None) -> Place:
    """Return the place of checkpoints in the datastore that Metaflow is configured for, or in the one given.

    Raises CheckpointException if there is none.
    """
    from metaflow.metaflow_config import DEFAULT_DATASTORE

    kind = DEFAULT_DATASTORE if kind is None else kind
    if root is None:
        root = _storage_class(kind, "this configuration").get_datastore_root_from_config(
            lambda *args, **kwargs: None, create_on_absent=False
        )
    if root is None:
        raise CheckpointException(
            f"no {kind!r} datastore is configured here, and none was found. Give one: "
            "Checkpoint(datastore='s3', datastore_root='s3://bucket/metaflow'), or a task of a run."
        )
    return place_at(kind, root, log, whose="this configuration")


def _storage_class(kind: str, whose: str) -> Any:
    from metaflow.plugins import DATASTORES

    storage = next((found for found in DATASTORES if kind == found.TYPE), None)
    if storage is None:
        raise CheckpointException(
            f"the checkpoints of {whose} are in a {kind!r} datastore, which is not installed here."
        )
    return storage


def _config(**options: Any) -> ckptstore.StoreConfig:
    """What a flow loads it trusts, as Metaflow trusts artifacts: no save warns of what will need trust."""
    return ckptstore.StoreConfig(warn_untrusted=False, **options)


async def _backend(storage: Any, executor: Executor) -> DatastoreBackend:
    return DatastoreBackend(storage, STORE_FOLDER, executor)


def _client(storage: Any) -> Any:
    holder = getattr(storage, "s3_client", None)
    if holder is not None:
        return holder.client
    from metaflow.plugins.datatools.s3.s3util import get_s3_client

    return get_s3_client()[0]  # type: ignore[no-untyped-call]  # Metaflow's
