"""What a save is given, checked before anything is read or written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ckptstore._clock import Reading
from ckptstore._keys import check_collection, check_field, check_run_and_label
from ckptstore._metadata import plain_attributes, plain_metadata
from ckptstore._retention import check_keep, protected_names
from ckptstore._writer import Request
from ckptstore.checkpoint import Checkpoint, CheckpointRef
from ckptstore.config import Limits
from ckptstore.errors import ConfigError
from ckptstore.retention import Keep

__all__ = ["check_nbytes", "checked"]

_MOST_BYTES = 1 << 48


def check_nbytes(nbytes: object) -> int:
    """Return it if it is a number of bytes that memory could have. Raises ConfigError."""
    if type(nbytes) is not int or not 0 <= nbytes <= _MOST_BYTES:
        raise ConfigError(f"nbytes must be an int from 0 to 2**48, not {nbytes!r:.100}")
    return nbytes


def checked(
    collection: str,
    values: Mapping[str, object],
    *,
    label: str | None,
    run: str | None,
    metadata: Mapping[str, object] | None,
    attributes: Mapping[str, object] | None,
    parent: CheckpointRef | None,
    keep: Keep | None,
    protect: Iterable[Checkpoint | CheckpointRef],
    store_id: str,
    limits: Limits,
    started: Reading,
) -> tuple[Request, dict[str, object]]:
    """Return the request, and the values by the names of their fields.

    Raises InvalidNameError, InvalidPolicyError, ConfigError.
    """
    collection = check_collection(collection)
    run, label = check_run_and_label(run, label)
    if not isinstance(values, Mapping):
        raise ConfigError(f"values must be a mapping of names to values, not {type(values).__name__}")
    if parent is not None and not isinstance(parent, CheckpointRef):
        raise ConfigError(f"parent must be a CheckpointRef, not {type(parent).__name__}")
    protected = protected_names(protect, collection, store_id)
    if parent is not None:
        protected |= protected_names((parent,), collection, store_id)
    request = Request(
        collection=collection,
        run=run,
        label=label,
        metadata=plain_metadata("metadata", metadata, limits),
        attributes=plain_attributes(attributes, limits),
        parent=parent,
        keep=None if keep is None else check_keep(keep),
        protect=protected,
        started=started,
    )
    return request, {check_field(name): value for name, value in values.items()}
