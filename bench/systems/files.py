"""One file per checkpoint: torch.save, and pickle."""

from __future__ import annotations

import importlib
import pickle
from typing import Any

from bench.systems.base import System
from bench.workloads.compare import Values
from bench.workloads.existing import copy_over

__all__ = ["Pickle", "TorchSave"]


class Pickle(System):
    """`pickle.dump`, protocol 5, to a file."""

    def save(self, values: Values) -> None:
        with open(self.new_path(".pkl"), "wb") as file:
            pickle.dump(values, file, protocol=5)

    def load(self) -> Values:
        with open(self.last_path(".pkl"), "rb") as file:
            values: Values = pickle.load(file)
        return values


class TorchSave(System):
    """`torch.save` to a path, `torch.load` of everything; `mmap`: mapped, read when it is touched.

    ``weights_only=False``, the faster of torch's two unpicklers.
    """

    def __init__(self, directory: str, *, mmap: bool = False) -> None:
        super().__init__(directory)
        self._mmap = mmap
        self._torch: Any = importlib.import_module("torch")

    def save(self, values: Values) -> None:
        self._torch.save(values, self.new_path(".pt"))

    def load(self) -> Values:
        values: Values = self._torch.load(self.last_path(".pt"), weights_only=False, mmap=self._mmap)
        return values

    def load_into(self, destination: Values, *, inplace: bool = False) -> Values:
        return copy_over(destination, self.load())

    def load_one(self, field: str, key: str) -> Any:
        tensor = self.load()[field][key]
        return tensor.clone() if self._mmap else tensor
