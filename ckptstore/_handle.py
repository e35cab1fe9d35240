"""A checkpoint that is open for reading: what is in it is known, its data comes when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ckptstore._reader import Reading
from ckptstore.checkpoint import Checkpoint, LeafInfo
from ckptstore.errors import CheckpointNotFoundError, ConfigError, NotFoundError
from ckptstore.serializers import LeafSpec, Spot, step_text

__all__ = ["CheckpointHandle", "SavedPart"]

_SHOWN = 5


class SavedPart:
    """One place in a saved value: a field, or what indexing leads to from there through dicts, lists and tuples.

    Looking around reads nothing; ``load`` gets the data of this part alone.
    """

    def __init__(self, handle: CheckpointHandle, field: str, path: str, spot: Spot) -> None:
        self._handle = handle
        self._field = field
        self._path = path
        self._spot = spot
        self._leaf: LeafSpec | None = handle._outline.leaf(spot)
        self._entries: dict[Any, Spot] | list[Spot] | None = None

    @property
    def field(self) -> str:
        """The field that it belongs to."""
        return self._field

    @property
    def path(self) -> str:
        """The way from the field, as ``inspect`` shows it: ``['layers.0.weight']``; ``""`` for the field itself."""
        return self._path

    @property
    def kind(self) -> str:
        """``numpy`` or ``torch`` for an array or tensor, ``dict``, ``list``, ``tuple``, ``pickle``; else ``value``."""
        if self._leaf is not None:
            return self._leaf.kind
        return _KINDS.get(self._handle._outline.tag(self._spot), "value")

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The shape of an array or tensor, None for anything else."""
        return None if self._leaf is None else self._leaf.shape

    @property
    def dtype(self) -> str | None:
        """The dtype of an array or tensor (``float32``), None for anything else."""
        return None if self._leaf is None else self._leaf.dtype

    @property
    def nbytes(self) -> int | None:
        """Bytes of the elements of an array or tensor, None for anything else."""
        return None if self._leaf is None else self._leaf.nbytes

    def keys(self) -> list[Any]:
        """Return the keys of a dict, or the positions of a list or tuple.

        Keys of a kind that the data must tell (strings of more than 256
        characters, objects) are left out. Raises ConfigError for anything else.
        """
        entries = self._inside()
        return list(entries) if isinstance(entries, dict) else list(range(len(entries)))

    def __len__(self) -> int:
        return len(self._inside())

    def __iter__(self) -> Iterator[Any]:
        """Iterate as the value would: over a dict's keys, over the parts in a list or tuple."""
        entries = self._inside()
        if isinstance(entries, dict):
            return iter(list(entries))
        return iter([self[at] for at in range(len(entries))])

    def __getitem__(self, key: Any) -> SavedPart:
        """Return what is under a key of a dict, or at a position of a list or tuple.

        Raises NotFoundError if nothing is; ConfigError inside anything else.
        """
        entries = self._inside()
        if isinstance(entries, dict):
            try:
                spot = entries[key]
            except (KeyError, TypeError):
                known = ", ".join(f"{name!r:.80}" for name in list(entries)[:_SHOWN])
                more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
                raise NotFoundError(
                    f"{self._name()} has no key {key!r:.80}; it has {known or 'none'}{more}"
                ) from None
        else:
            if isinstance(key, bool) or not isinstance(key, int) or not -len(entries) <= key < len(entries):
                raise NotFoundError(
                    f"{self._name()} has {len(entries)} elements, and none at {key!r:.80}: "
                    "a position is an int within them"
                )
            key %= len(entries)
            spot = entries[key]
        return SavedPart(self._handle, self._field, self._path + step_text(key, spot.at), spot)

    async def load(self) -> Any:
        """Return the value of this part, new and verified; what is shared inside it stays shared.

        Reads the chunks that hold it and no others. Raises as ``load`` of the
        store, and StoreClosedError.
        """
        self._handle._check_open()
        if self._spot.ref is None:
            return self._spot.value
        return (await self._handle._reading.nodes([self._spot.ref]))[self._spot.ref]

    def __repr__(self) -> str:
        what = f" {self.dtype} {self.shape}" if self._leaf is not None else ""
        return f"<{self._name()}: {self.kind}{what}>"

    def _name(self) -> str:
        return f"field {self._field!r}" + (f" at {self._path!r}" if self._path else "")

    def _inside(self) -> dict[Any, Spot] | list[Spot]:
        if self._entries is None:
            entries = self._handle._outline.entries(self._spot)
            if entries is None:
                if self.kind == "pickle":
                    raise ConfigError(
                        f"{self._name()} is a pickled object, and what is in it cannot be read without it: load it "
                        "whole, and save what you want to read alone in dicts (a module's state_dict())"
                    )
                raise ConfigError(f"{self._name()} is no dict, list or tuple ({self.kind}): load it")
            self._entries = entries
        return self._entries


_KINDS = {
    "dict": "dict",
    "odict": "dict",
    "list": "list",
    "tuple": "tuple",
    "pickle": "pickle",
    "member": "pickle",
}


class CheckpointHandle:
    """A checkpoint that is open for reading, made by ``AsyncCheckpointStore.handle``.

    ``handle["model"]["layers.0.weight"]`` is a part of it; the data comes with
    ``await part.load()``. It holds no connection and needs no closing; it
    gives the same values for good, until the checkpoint is collected.
    """

    def __init__(self, reading: Reading, fields: Sequence[str], check_open: Callable[[], None]) -> None:
        self._reading = reading
        self._outline = reading.plan.outline()
        self._fields = tuple(fields)
        self._check_open = check_open

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint."""
        return self._reading.manifest.checkpoint

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that were opened."""
        return self._fields

    def leaves(self, field: str) -> tuple[LeafInfo, ...]:
        """Return the arrays and tensors of a field, also those in pickled objects. Raises CheckpointNotFoundError."""
        return self._reading.manifest.fields[self._known(field)].leaves

    def __getitem__(self, field: str) -> SavedPart:
        """Return a field. Raises CheckpointNotFoundError if it is not there or was not opened."""
        return SavedPart(self, field, "", self._outline.root(self._known(field)))

    def __len__(self) -> int:
        return len(self._fields)

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    async def load(self, leaves: Mapping[str, Sequence[str]]) -> dict[str, dict[str, Any]]:
        """Return some arrays and tensors of some fields, by field and path, in one go.

        The paths are those of ``leaves`` and ``inspect``; what several of them
        share stays shared, and each chunk is read once. Raises as ``load`` of
        the store; NotFoundError for a path that is not there, ConfigError for
        one inside a pickled object.
        """
        self._check_open()
        spots = {field: dict(self._resolve(field, paths)) for field, paths in check_leaves(leaves).items()}
        refs = [spot.ref for found in spots.values() for spot in found.values() if spot.ref is not None]
        values = await self._reading.nodes(refs)
        return {
            field: {path: values[spot.ref] for path, spot in found.items() if spot.ref is not None}
            for field, found in spots.items()
        }

    def _resolve(self, field: str, paths: Sequence[str]) -> Iterator[tuple[str, Spot]]:
        known = self._outline.leaves(self._known(field))
        for path in paths:
            spot = known.get(path)
            if spot is not None:
                yield path, spot
            elif path in known or any(leaf.path == path for leaf in self.leaves(field)):
                raise ConfigError(
                    f"what field {field!r} has at {path!r} cannot be read alone, because it is inside a pickled "
                    f"object or shares its path with another: load the field, fields=[{field!r}]"
                )
            else:
                raise NotFoundError(
                    f"field {field!r} of checkpoint {self.checkpoint.ref} has no array or tensor at {path!r}; its "
                    "paths are those that inspect shows"
                )

    def _known(self, field: str) -> str:
        if field not in self._fields:
            raise CheckpointNotFoundError(
                f"checkpoint {self.checkpoint.ref} has no field {field!r:.80} open for reading; "
                f"it has {', '.join(map(repr, self._fields)) or 'none'}"
            )
        return field

    def __repr__(self) -> str:
        return f"<checkpoint {self.checkpoint.ref}: {', '.join(self._fields)}>"


def check_leaves(leaves: object) -> dict[str, list[str]]:
    """Return the paths asked for, by field. Raises ConfigError."""
    if not isinstance(leaves, Mapping) or not all(
        isinstance(field, str)
        and not isinstance(paths, str)
        and isinstance(paths, Sequence)
        and all(isinstance(path, str) for path in paths)
        for field, paths in leaves.items()
    ):
        raise ConfigError(
            f"leaves must be a mapping of field names to lists of paths, not {leaves!r:.120}: "
            "leaves={'model': [\"['layers.0.weight']\"]}"
        )
    return {field: list(dict.fromkeys(paths)) for field, paths in leaves.items()}
