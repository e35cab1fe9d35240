"""Formats of the torch world: distributed checkpoint, torchsnapshot, safetensors."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

from bench.systems.flat import Format, Slot, allocate
from bench.workloads.compare import is_tensor

__all__ = ["DistributedCheckpoint", "Safetensors", "TorchSnapshot"]


class Safetensors(Format):
    """One file: `save_file`, and `load_file`, which maps it and reads lazily."""

    def __init__(self) -> None:
        importlib.import_module("safetensors")

    def write(self, path: str, tensors: dict[str, Any]) -> None:
        self._is_torch = any(is_tensor(tensor) for tensor in tensors.values())
        self._module(self._is_torch).save_file(tensors, path)

    def read(self, path: str, slots: Sequence[Slot]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._module(any(slot.is_torch for slot in slots)).load_file(path)
        return found

    def names(self, path: str) -> Sequence[str]:
        with self._open(path) as file:
            found: list[str] = list(file.keys())
        return found

    def read_one(self, path: str, name: str) -> Any:
        with self._open(path) as file:
            tensor = file.get_tensor(name)
        return tensor.clone() if self._is_torch else tensor.copy()

    def _open(self, path: str) -> Any:
        framework = "pt" if self._is_torch else "np"
        return importlib.import_module("safetensors").safe_open(path, framework=framework)

    def _module(self, is_torch: bool) -> Any:
        return importlib.import_module("safetensors.torch" if is_torch else "safetensors.numpy")


class DistributedCheckpoint(Format):
    """`torch.distributed.checkpoint` in one process without a group; its writer fsyncs each file by default.

    `background`: `async_save` with its defaults.
    """

    def __init__(self, *, background: bool = False) -> None:
        self._dcp: Any = importlib.import_module("torch.distributed.checkpoint")
        self._background = background
        self._answer: Any = None

    def write(self, path: str, tensors: dict[str, Any]) -> None:
        if self._background:
            self._answer = self._dcp.async_save(tensors, checkpoint_id=path, no_dist=True)
        else:
            self._dcp.save(tensors, checkpoint_id=path, no_dist=True)

    def is_done(self) -> bool:
        return self._answer is None or bool(self._answer.done())

    def finish(self) -> None:
        if self._answer is not None:
            self._answer.result()
            self._answer = None

    def read(self, path: str, slots: Sequence[Slot]) -> Mapping[str, Any]:
        tensors = allocate(slots)
        self.read_into(path, tensors)
        return tensors

    def read_into(self, path: str, tensors: dict[str, Any]) -> None:
        self._dcp.load(tensors, checkpoint_id=path, no_dist=True)

    def close(self) -> None:
        self.finish()


class TorchSnapshot(Format):
    """`Snapshot.take`, or `async_take` in the `background`; restored into new tensors."""

    def __init__(self, *, background: bool = False) -> None:
        self._module: Any = importlib.import_module("torchsnapshot")
        self._background = background
        self._pending: Any = None

    def write(self, path: str, tensors: dict[str, Any]) -> None:
        state = {"state": self._module.StateDict(**tensors)}
        if self._background:
            self._pending = self._module.Snapshot.async_take(path, state)
        else:
            self._module.Snapshot.take(path, state)

    def is_done(self) -> bool:
        return self._pending is None or bool(self._pending.done())

    def finish(self) -> None:
        if self._pending is not None:
            self._pending.wait()
            self._pending = None

    def read(self, path: str, slots: Sequence[Slot]) -> Mapping[str, Any]:
        return self._restored(path, allocate(slots))

    def read_into(self, path: str, tensors: dict[str, Any]) -> None:
        # It copies into tensors that it finds there.
        self._restored(path, tensors)

    def _restored(self, path: str, tensors: dict[str, Any]) -> Mapping[str, Any]:
        state = self._module.StateDict(**tensors)
        self._module.Snapshot(os.path.abspath(path)).restore({"state": state})
        restored: Mapping[str, Any] = state.state_dict()
        return restored

    def close(self) -> None:
        self.finish()
