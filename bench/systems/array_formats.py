"""Formats of the array world: orbax (over tensorstore) and zarr."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bench.systems.flat import Format, Slot, to_numpy

__all__ = ["Orbax", "Zarr"]


class Orbax(Format):
    """`StandardCheckpointer` with its defaults: a save copies, and is written in the background."""

    def __init__(self) -> None:
        # Without it, jax looks for accelerators, and says at length that there is none.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        importlib.import_module("jax")
        module: Any = importlib.import_module("orbax.checkpoint")
        self._checkpointer = module.StandardCheckpointer()
        self._pool = ThreadPoolExecutor(1)
        self._pending: Future[None] | None = None

    def write(self, path: str, tensors: dict[str, Any]) -> None:
        arrays = {name: to_numpy(tensor) for name, tensor in tensors.items()}
        self._checkpointer.save(os.path.abspath(path), arrays)
        # It cannot be asked whether it is done, only be waited for.
        self._pending = self._pool.submit(self._checkpointer.wait_until_finished)

    def is_done(self) -> bool:
        return self._pending is None or self._pending.done()

    def finish(self) -> None:
        if self._pending is not None:
            self._pending.result()
            self._pending = None

    def read(self, path: str, slots: Sequence[Slot]) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self._checkpointer.restore(os.path.abspath(path))
        return found

    def close(self) -> None:
        self._pool.shutdown()
        self._checkpointer.close()


class Zarr(Format):
    """A group of arrays with zarr's defaults: its own chunks, its own compression, in threads."""

    def __init__(self) -> None:
        self._zarr: Any = importlib.import_module("zarr")

    def write(self, path: str, tensors: dict[str, Any]) -> None:
        group = self._zarr.open_group(path, mode="w")
        for name, tensor in tensors.items():
            group.create_array(name, data=to_numpy(tensor))

    def read(self, path: str, slots: Sequence[Slot]) -> Mapping[str, Any]:
        group = self._zarr.open_group(path, mode="r")
        return {slot.name: group[slot.name][...] for slot in slots}
