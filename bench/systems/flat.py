"""Formats that know named tensors only: what their users write around them to keep a nested state."""

from __future__ import annotations

import importlib
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.systems.base import System
from bench.workloads.compare import Values, is_tensor

__all__ = ["Flat", "Format", "Slot", "allocate", "join", "split", "to_numpy"]

REST = "rest.pkl"


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in the nested state where a tensor was."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    is_torch: bool


class Format:
    """One way to write named tensors into a directory that is new and empty."""

    def write(self, path: str, tensors: dict[str, Any]) -> None:
        """Writes; returns when the caller may change its tensors."""
        raise NotImplementedError

    def is_done(self) -> bool:
        """Whether the last write is done."""
        return True

    def finish(self) -> None:
        """Returns when the last write is done."""

    def read(self, path: str, slots: Sequence[Slot]) -> Mapping[str, Any]:
        """The tensors by name, new ones, as numpy arrays or torch tensors."""
        raise NotImplementedError

    def read_into(self, path: str, tensors: dict[str, Any]) -> None:
        """Fills the tensors, which are there."""
        raise NotImplementedError

    def names(self, path: str) -> Sequence[str]:
        """The names of the tensors."""
        raise NotImplementedError

    def read_one(self, path: str, name: str) -> Any:
        """One tensor, in memory of its own."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of threads."""


class Flat(System):
    """A format for the tensors, a pickle beside it for the rest, in a directory a checkpoint."""

    def __init__(self, directory: str, *, make: Callable[[], Format]) -> None:
        super().__init__(directory)
        self._format = make()

    def save(self, values: Values) -> None:
        tensors, rest = split(values)
        path = self.new_path("")
        os.makedirs(path)
        with open(os.path.join(path, REST), "wb") as file:
            file.write(rest)
        self._format.write(os.path.join(path, "tensors"), tensors)

    def is_settled(self) -> bool:
        return self._format.is_done()

    def settle(self) -> None:
        self._format.finish()

    def load(self) -> Values:
        skeleton, slots = self._rest()
        values: Values = join(skeleton, self._format.read(self._tensors(), slots))
        return values

    def load_into(self, destination: Values, *, inplace: bool = False) -> Values:
        skeleton, _ = self._rest()
        tensors, _ = split(destination)
        self._format.read_into(self._tensors(), tensors)
        values: Values = join(skeleton, tensors)
        return values

    def inspect(self) -> object:
        return self._format.names(self._tensors())

    def load_one(self, field: str, key: str) -> Any:
        return self._format.read_one(self._tensors(), f"{field}.{key}")

    def _rest(self) -> tuple[Any, list[Slot]]:
        with open(os.path.join(self.last_path(""), REST), "rb") as file:
            skeleton, slots = pickle.load(file)
        return skeleton, slots

    def _tensors(self) -> str:
        return os.path.join(self.last_path(""), "tensors")

    def close(self) -> None:
        self._format.close()


def split(values: Values) -> tuple[dict[str, Any], bytes]:
    """The tensors by name, not copied, and the pickle of all else."""
    tensors: dict[str, Any] = {}
    slots: list[Slot] = []

    def walk(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            return {key: walk(item, f"{name}.{key}" if name else str(key)) for key, item in value.items()}
        is_torch = is_tensor(value)
        if is_torch or (isinstance(value, np.ndarray) and value.dtype != object):
            dtype = str(value.dtype).removeprefix("torch.")
            slot = Slot(name, tuple(value.shape), dtype, is_torch)
            tensors[name] = value
            slots.append(slot)
            return slot
        return value

    skeleton = walk(values, "")
    return tensors, pickle.dumps((skeleton, slots), protocol=5)


def join(skeleton: Any, tensors: Mapping[str, Any]) -> Any:
    """The nested state again."""
    if isinstance(skeleton, Slot):
        return _as_saved(tensors[skeleton.name], skeleton)
    if isinstance(skeleton, dict):
        return {key: join(item, tensors) for key, item in skeleton.items()}
    return skeleton


def to_numpy(tensor: Any) -> Any:
    """The same memory as an array; numpy has no bfloat16, so its bits as int16."""
    if not is_tensor(tensor):
        return tensor
    torch: Any = importlib.import_module("torch")
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _as_saved(tensor: Any, slot: Slot) -> Any:
    if not slot.is_torch or is_tensor(tensor):
        return tensor
    torch: Any = importlib.import_module("torch")
    return torch.from_numpy(tensor).view(getattr(torch, slot.dtype))


def allocate(slots: Sequence[Slot]) -> dict[str, Any]:
    """New torch tensors, as a model that was just built has them, for formats that load into what is there."""
    torch: Any = importlib.import_module("torch")
    return {slot.name: torch.empty(slot.shape, dtype=getattr(torch, slot.dtype)) for slot in slots}
