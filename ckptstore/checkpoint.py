"""What the store tells of a checkpoint without touching its data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ckptstore._keys import check_collection, parse_name
from ckptstore.errors import InvalidNameError

__all__ = [
    "Checkpoint",
    "CheckpointRef",
    "CodecUse",
    "FieldInfo",
    "LeafInfo",
    "Manifest",
    "Sizes",
    "Skipped",
]

_HEX32 = re.compile(r"[0-9a-f]{32}")
_HEX64 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CheckpointRef:
    """A checkpoint's name for good: it pins the content and holds no place, path or credential.

    ``store_id`` is the store's own id, ``digest`` the digest of the manifest
    (64 hex digits): a load through this reference gives these bytes or an error.
    Wrong parts raise InvalidNameError.
    """

    store_id: str
    collection: str
    name: str
    digest: str

    def __post_init__(self) -> None:
        for what in ("store_id", "collection", "name", "digest"):
            if not isinstance(getattr(self, what), str):
                raise InvalidNameError(f"a reference's {what} must be a string")
        check_collection(self.collection)
        if not _HEX32.fullmatch(self.store_id):
            raise InvalidNameError("a reference's store_id must be 32 hex digits")
        if parse_name(self.name) is None:
            raise InvalidNameError("a reference's name is not the name of a checkpoint")
        if not _HEX64.fullmatch(self.digest):
            raise InvalidNameError("a reference's digest must be 64 hex digits")

    @property
    def run(self) -> str | None:
        """Who wrote the checkpoint, as its name says."""
        name = parse_name(self.name)
        return None if name is None else name.run

    def to_dict(self) -> dict[str, str]:
        """Return the reference as a dict of four strings, fit for JSON."""
        return {
            "store_id": self.store_id,
            "collection": self.collection,
            "name": self.name,
            "digest": self.digest,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CheckpointRef:
        """Return the reference that ``to_dict`` gave. Raises InvalidNameError for anything else."""
        if not isinstance(data, Mapping) or set(data) != {"store_id", "collection", "name", "digest"}:
            found = type(data).__name__
            if isinstance(data, Mapping):
                found = ", ".join(sorted(repr(key)[:40] for key in data)[:8]) or "nothing"
            raise InvalidNameError(
                f"a reference has exactly store_id, collection, name and digest; found {found}"
            )
        return cls(**{key: data[key] for key in ("store_id", "collection", "name", "digest")})

    def __str__(self) -> str:
        return f"{self.collection}@{self.name}"


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of a checkpoint.

    ``raw_bytes`` before compression, ``stored_bytes`` as stored (shared chunks
    counted once), ``new_bytes`` what this save added to the store: the rest was
    there already. ``n_chunks`` counts the chunks, shared ones included.
    """

    raw_bytes: int
    stored_bytes: int
    new_bytes: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class Skipped:
    """A damaged checkpoint that a ``fallback`` passed over: its name, ``collection@name``, and what is wrong."""

    checkpoint: str
    reason: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One committed checkpoint.

    ``epoch`` and ``seq`` order the checkpoints of a collection, highest newest;
    ``created`` (UTC) is for people only. ``metadata`` is the user's,
    ``attributes`` what a layer above noted. ``parent`` is the checkpoint that
    the writer had resumed from. ``fields`` are the names of the saved values.
    ``skipped`` is what ``latest(fallback=n)`` passed over, newest first, to find
    this one; it is not stored, and not compared.
    """

    ref: CheckpointRef
    collection: str
    label: str | None
    run: str | None
    epoch: int
    seq: int
    created_ns: int
    metadata: dict[str, Any]
    attributes: dict[str, Any]
    parent: CheckpointRef | None
    sizes: Sizes
    fields: tuple[str, ...]
    skipped: tuple[Skipped, ...] = field(default=(), compare=False)

    @property
    def created(self) -> datetime:
        """When it was committed, by the writer's clock, in UTC."""
        return datetime.fromtimestamp(self.created_ns / 1e9, tz=timezone.utc)


class LeafInfo(NamedTuple):
    """One array or tensor of a field.

    ``path`` leads to it from the field (``""`` if the field is it), ``kind`` is
    ``numpy`` or ``torch``, ``nbytes`` its size in memory, ``block`` the number
    of the field's buffer that holds it (None: another field's, or none).
    """

    path: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    block: int | None = None


@dataclass(frozen=True, slots=True)
class FieldInfo:
    """One saved value.

    ``type_name`` is the class (``torch.nn.modules.linear.Linear``), ``kind`` is
    ``tree`` (plain data) or ``pickle``; ``globals`` are the classes and
    functions that a pickled part names, and ``untrusted`` those of them that a
    load without trust makes only if the program allows them (``store.allow``).
    A chunk that several fields share is counted in the first of them.
    """

    name: str
    type_name: str
    kind: str
    raw_bytes: int
    stored_bytes: int
    new_bytes: int
    globals: tuple[str, ...]
    leaves: tuple[LeafInfo, ...]
    untrusted: tuple[str, ...] = field(default=(), compare=False)

    @property
    def needs_trust(self) -> bool:
        """Whether a load needs ``trusted``, or classes that the program allows."""
        return bool(self.untrusted)


@dataclass(frozen=True, slots=True)
class CodecUse:
    """The chunks of a checkpoint that one codec holds: their bytes before it and after, and how many they are."""

    raw_bytes: int
    stored_bytes: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``inspect`` answers: the checkpoint, and each field with its arrays and tensors.

    ``signed_by`` is the id of the key that it says it is signed with, None if
    it is not signed; ``signature_verified`` whether that was checked, which
    takes a store with a ``signing_key``. ``codecs`` tells how the chunks are
    stored, by the id of the codec (``raw``, ``zstd``, ``planes4``, …), if
    ``inspect`` was asked for it, else it is None; a chunk is counted once, and
    small buffers that stand in the manifest itself are in none of them.
    """

    checkpoint: Checkpoint
    fields: dict[str, FieldInfo]
    signed_by: str | None = None
    signature_verified: bool = False
    codecs: dict[str, CodecUse] | None = None
