"""Our store, through its public names, as a training loop would use it."""

from __future__ import annotations

from typing import Any

import ckptstore
from bench.systems.base import System, Unavailable
from bench.workloads.compare import Values, raw_buffers
from ckptstore.errors import ConfigError

__all__ = ["Ours"]

COLLECTION = "bench/run"


class Ours(System):
    """`CheckpointStore` on a local directory, or at a `url`; `background` saves with ``wait=False``.

    `reserve` has the memory of background saves made ready, outside the timing.
    `config` are options of `StoreConfig`, the defaults but for them.
    """

    def __init__(
        self,
        directory: str,
        *,
        background: bool = False,
        reserve: bool = False,
        url: str | None = None,
        options: dict[str, Any] | None = None,
        **config: Any,
    ) -> None:
        super().__init__(directory)
        self._background = background
        self._reserve = reserve
        try:
            self._config = ckptstore.StoreConfig(**config)
        except ConfigError as error:
            raise Unavailable(f"this version does not know it: {error}") from error
        if reserve and not hasattr(ckptstore.CheckpointStore, "reserve"):
            raise Unavailable("this version reserves no memory")
        self._url = url or directory
        self._options = options or {}
        self._store = self._open()
        self._pending: ckptstore.PendingSave | None = None
        self._last: ckptstore.Checkpoint | None = None

    def prepare(self, values: Values) -> None:
        if self._reserve:
            self._store.reserve(sum(buffer.nbytes for buffer in raw_buffers(values)))

    def save(self, values: Values) -> None:
        if self._background:
            self._pending = self._store.save(COLLECTION, values, wait=False)
        else:
            self._last = self._store.save(COLLECTION, values)

    def is_settled(self) -> bool:
        return self._pending is None or self._pending.done()

    def settle(self) -> None:
        if self._pending is not None:
            self._last = self._pending.result()
            self._pending = None

    def reopen(self) -> None:
        self._store.close()
        self._store = self._open()

    def load(self) -> Values:
        return self._store.load(COLLECTION, trusted=True)

    def load_into(self, destination: Values, *, inplace: bool = False) -> Values:
        # A number that is a field of its own has no place to be loaded into.
        into = {name: value for name, value in destination.items() if not isinstance(value, int | float)}
        return self._store.load(COLLECTION, into=into, inplace=inplace, trusted=True)

    def inspect(self) -> object:
        return self._store.inspect(self._reference())

    def load_one(self, field: str, key: str) -> Any:
        path = f"[{key!r}]"
        return self._store.load(self._reference(), leaves={field: [path]})[field][path]

    def _reference(self) -> ckptstore.CheckpointRef:
        """Of the last save: what a user keeps who knows which checkpoint it shall be."""
        if self._last is None:
            raise AssertionError("nothing was saved")
        return self._last.ref

    def close(self) -> None:
        self._store.close()

    def _open(self) -> ckptstore.CheckpointStore:
        return ckptstore.CheckpointStore.open(self._url, config=self._config, **self._options)
