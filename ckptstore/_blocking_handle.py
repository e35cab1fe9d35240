"""A checkpoint that is open for reading, as blocking code sees it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ckptstore import _handle
from ckptstore._loop import LoopThread
from ckptstore.checkpoint import Checkpoint, LeafInfo
from ckptstore.errors import ConfigError

__all__ = ["CheckpointHandle", "SavedPart"]


class SavedPart:
    """One place in a saved value: a field, or what indexing leads to from there through dicts, lists and tuples.

    Looking around reads nothing; ``load`` gets the data of this part alone.
    Where numpy wants an array, ``np.asarray(part)`` loads one.
    """

    def __init__(self, part: _handle.SavedPart, loop: LoopThread) -> None:
        self._part = part
        self._loop = loop

    @property
    def field(self) -> str:
        """The field that it belongs to."""
        return self._part.field

    @property
    def path(self) -> str:
        """The way from the field, as ``inspect`` shows it: ``['layers.0.weight']``; ``""`` for the field itself."""
        return self._part.path

    @property
    def kind(self) -> str:
        """``numpy`` or ``torch`` for an array or tensor, ``dict``, ``list``, ``tuple``, ``pickle``; else ``value``."""
        return self._part.kind

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of an array or tensor, None for anything else."""
        return self._part.shape

    @property
    def dtype(self) -> str | None:
        """The dtype of an array or tensor (``float32``), None for anything else."""
        return self._part.dtype

    @property
    def nbytes(self) -> int | None:
        """Bytes of the elements of an array or tensor, None for anything else."""
        return self._part.nbytes

    def keys(self) -> list[Any]:
        """See AsyncSavedPart.keys."""
        return self._part.keys()

    def __len__(self) -> int:
        return len(self._part)

    def __iter__(self) -> Iterator[Any]:
        """Iterate as the value would: over a dict's keys, over the parts in a list or tuple."""
        for item in self._part:
            yield SavedPart(item, self._loop) if isinstance(item, _handle.SavedPart) else item

    def __getitem__(self, key: Any) -> SavedPart:
        """Return what is under a key of a dict, or at a position of a list or tuple.

        Raises NotFoundError if nothing is; ConfigError inside anything else.
        """
        return SavedPart(self._part[key], self._loop)

    def load(self) -> Any:
        """See AsyncSavedPart.load."""
        return self._loop.call(self._part.load())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """Load it as a new numpy array. Raises as ``load``; ConfigError for what is no numpy array."""
        if self.kind != "numpy":
            raise ConfigError(f"{self!r} is no numpy array: load it")
        array = self.load()
        return array if dtype is None else array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return repr(self._part)


class CheckpointHandle:
    """A checkpoint that is open for reading, made by ``CheckpointStore.handle``.

    ``handle["model"]["layers.0.weight"]`` is a part of it; the data comes with
    ``part.load()``. It holds no connection and needs no closing; it gives the
    same values for good, until the checkpoint is collected.
    """

    def __init__(self, handle: _handle.CheckpointHandle, loop: LoopThread) -> None:
        self._handle = handle
        self._loop = loop

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint."""
        return self._handle.checkpoint

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that were opened."""
        return self._handle.fields

    def leaves(self, field: str) -> tuple[LeafInfo, ...]:
        """See AsyncCheckpointHandle.leaves."""
        return self._handle.leaves(field)

    def __getitem__(self, field: str) -> SavedPart:
        """Return a field. Raises CheckpointNotFoundError if it is not there or was not opened."""
        return SavedPart(self._handle[field], self._loop)

    def __len__(self) -> int:
        return len(self._handle)

    def __iter__(self) -> Iterator[str]:
        return iter(self._handle)

    def load(self, leaves: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
        """See AsyncCheckpointHandle.load."""
        return self._loop.call(self._handle.load(leaves))

    def __repr__(self) -> str:
        return repr(self._handle)
