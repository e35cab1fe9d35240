"""Our store, through its public names, as a training loop would use it."""

from __future__ import annotations

from typing import Literal

import ckptstore
from bench.systems.base import System
from bench.workloads import Values

__all__ = ["Ours"]

COLLECTION = "bench/run"


class Ours(System):
    """`CheckpointStore` on a local directory; `background` saves with ``wait=False``."""

    def __init__(
        self,
        directory: str,
        *,
        background: bool = False,
        codec: Literal["planes", "raw"] = "planes",
        durability: Literal["full", "os"] = "full",
    ) -> None:
        super().__init__(directory)
        self._background = background
        self._config = ckptstore.StoreConfig(codec=codec, durability=durability)
        self._store = ckptstore.CheckpointStore.open(directory, config=self._config)
        self._pending: ckptstore.PendingSave | None = None

    def save(self, values: Values) -> None:
        if self._background:
            self._pending = self._store.save(COLLECTION, values, wait=False)
        else:
            self._store.save(COLLECTION, values)

    def settle(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def reopen(self) -> None:
        self._store.close()
        self._store = ckptstore.CheckpointStore.open(self.directory, config=self._config)

    def load(self) -> Values:
        return self._store.load(COLLECTION, trusted=True)

    def close(self) -> None:
        self._store.close()
