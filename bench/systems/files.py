"""One file per checkpoint: torch.save, and pickle."""

from __future__ import annotations

import importlib
import os
import pickle
from typing import Any

from bench.systems.base import System, flush_directory
from bench.workloads import Values

__all__ = ["Pickle", "TorchSave"]


class Pickle(System):
    """`pickle.dump`, protocol 5, to a file. `flush`: fsync of the file and its directory."""

    def __init__(self, directory: str, *, flush: bool = False) -> None:
        super().__init__(directory)
        self._flush = flush

    def save(self, values: Values) -> None:
        with open(self.new_path(".pkl"), "wb") as file:
            pickle.dump(values, file, protocol=5)
            if self._flush:
                file.flush()
                os.fsync(file.fileno())
                flush_directory(self.directory)

    def load(self) -> Values:
        with open(self.last_path(".pkl"), "rb") as file:
            values: Values = pickle.load(file)
        return values


class TorchSave(System):
    """`torch.save` to a path, `torch.load` of everything. `flush`: fsync of the file and its directory.

    ``weights_only=False``, the faster of torch's two unpicklers.
    """

    def __init__(self, directory: str, *, flush: bool = False) -> None:
        super().__init__(directory)
        self._flush = flush
        self._torch: Any = importlib.import_module("torch")

    def save(self, values: Values) -> None:
        path = self.new_path(".pt")
        self._torch.save(values, path)
        if self._flush:
            # fsync flushes the file's pages, whichever descriptor wrote them.
            with open(path, "rb") as file:
                os.fsync(file.fileno())
            flush_directory(self.directory)

    def load(self) -> Values:
        values: Values = self._torch.load(self.last_path(".pt"), weights_only=False)
        return values
