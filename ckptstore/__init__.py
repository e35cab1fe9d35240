"""A checkpoint store for long jobs.

    async with await AsyncCheckpointStore.open("/data/checkpoints") as store:
        await store.save("exp/run1", {"model": model, "epoch": 3}, label="best")
        values = await store.load("exp/run1", trusted=True)

``CheckpointStore`` is the same, blocking. Importing this package imports
nothing but the standard library; the rest comes with the first name that is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ckptstore import errors as errors
    from ckptstore._blocking_handle import CheckpointHandle, SavedPart
    from ckptstore._captures import CapturedSave as AsyncCapturedSave
    from ckptstore._handle import CheckpointHandle as AsyncCheckpointHandle
    from ckptstore._handle import SavedPart as AsyncSavedPart
    from ckptstore._outcome import CapturedSave, PendingSave
    from ckptstore._pending import PendingSave as AsyncPendingSave
    from ckptstore._upload import Progress
    from ckptstore.backends.base import Backend, ObjectInfo
    from ckptstore.checkpoint import (
        Checkpoint,
        CheckpointRef,
        CodecUse,
        FieldInfo,
        LeafInfo,
        Manifest,
        Sizes,
        Skipped,
    )
    from ckptstore.config import Limits, StoreConfig
    from ckptstore.diff import Diff, FieldDiff, LeafDiff, MetadataDiff
    from ckptstore.errors import CheckpointStoreError
    from ckptstore.garbage import GCReport
    from ckptstore.retention import Keep, best, every, last, max_age
    from ckptstore.serializers import Registry
    from ckptstore.store import AsyncCheckpointStore
    from ckptstore.sync import CheckpointStore
    from ckptstore.verify import DamagedCheckpoint, Problem, VerifyReport

__version__ = "0.1.0"

# Metaflow ships this package to remote tasks because of this name, when an extension imports it.
METAFLOW_PACKAGE_POLICY = "include"

_HOMES = {
    "AsyncCapturedSave": "ckptstore._captures:CapturedSave",
    "AsyncCheckpointHandle": "ckptstore._handle:CheckpointHandle",
    "AsyncCheckpointStore": "ckptstore.store",
    "AsyncPendingSave": "ckptstore._pending:PendingSave",
    "AsyncSavedPart": "ckptstore._handle:SavedPart",
    "Backend": "ckptstore.backends.base",
    "CapturedSave": "ckptstore._outcome",
    "Checkpoint": "ckptstore.checkpoint",
    "CheckpointHandle": "ckptstore._blocking_handle",
    "CheckpointRef": "ckptstore.checkpoint",
    "CheckpointStore": "ckptstore.sync",
    "CheckpointStoreError": "ckptstore.errors",
    "CodecUse": "ckptstore.checkpoint",
    "DamagedCheckpoint": "ckptstore.verify",
    "Diff": "ckptstore.diff",
    "FieldDiff": "ckptstore.diff",
    "FieldInfo": "ckptstore.checkpoint",
    "GCReport": "ckptstore.garbage",
    "Keep": "ckptstore.retention",
    "LeafDiff": "ckptstore.diff",
    "LeafInfo": "ckptstore.checkpoint",
    "Limits": "ckptstore.config",
    "Manifest": "ckptstore.checkpoint",
    "MetadataDiff": "ckptstore.diff",
    "ObjectInfo": "ckptstore.backends.base",
    "PendingSave": "ckptstore._outcome",
    "Problem": "ckptstore.verify",
    "Progress": "ckptstore._upload",
    "Registry": "ckptstore.serializers",
    "SavedPart": "ckptstore._blocking_handle",
    "Sizes": "ckptstore.checkpoint",
    "Skipped": "ckptstore.checkpoint",
    "StoreConfig": "ckptstore.config",
    "VerifyReport": "ckptstore.verify",
    "best": "ckptstore.retention",
    "errors": "ckptstore.errors:",
    "every": "ckptstore.retention",
    "last": "ckptstore.retention",
    "max_age": "ckptstore.retention",
}

__all__ = [
    "AsyncCapturedSave",
    "AsyncCheckpointHandle",
    "AsyncCheckpointStore",
    "AsyncPendingSave",
    "AsyncSavedPart",
    "Backend",
    "CapturedSave",
    "Checkpoint",
    "CheckpointHandle",
    "CheckpointRef",
    "CheckpointStore",
    "CheckpointStoreError",
    "CodecUse",
    "DamagedCheckpoint",
    "Diff",
    "FieldDiff",
    "FieldInfo",
    "GCReport",
    "Keep",
    "LeafDiff",
    "LeafInfo",
    "Limits",
    "Manifest",
    "MetadataDiff",
    "ObjectInfo",
    "PendingSave",
    "Problem",
    "Progress",
    "Registry",
    "SavedPart",
    "Sizes",
    "Skipped",
    "StoreConfig",
    "VerifyReport",
    "best",
    "errors",
    "every",
    "last",
    "max_age",
]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module_name, colon, attribute = home.partition(":")
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] == "ckptstore":
            raise
        raise ModuleNotFoundError(
            f"ckptstore needs the package {exc.name!r}, which is not installed here: "
            "python -m pip install aiofiles blake3 msgpack zstandard",
            name=exc.name,
        ) from exc
    value = module if colon and not attribute else getattr(module, attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
