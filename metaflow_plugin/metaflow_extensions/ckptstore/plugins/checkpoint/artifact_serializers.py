"""Values that a serializer of Metaflow's own handles: Metaflow asks these before it pickles an artifact, and so do we.

Metaflow has them from 2.19.26. A value that one of them claims is saved as the
bytes it gives. What it shares with other attributes is not shared any more
after a load, as between Metaflow's artifacts.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaflow.exception import MetaflowException

import ckptstore
from ckptstore.errors import UntrustedPickleError

from .errors import CheckpointException
from .reserved import is_attribute

__all__ = ["NOTED", "Serialized", "make_registry", "noted", "restored", "serialized"]

NOTED = "serialized"
"""The attribute of a checkpoint that tells what serializers made."""

_NAME = "metaflow.artifact"
_PICKLE = "pickle"

# The store saves these itself: they load without trust, chunk by chunk.
_PLAIN = frozenset(
    {type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset}
)
_ARRAYS = frozenset({"numpy.ndarray", "torch.Tensor", "torch.nn.parameter.Parameter"})


@dataclass(frozen=True, slots=True)
class Serialized:
    """What a serializer made of one value."""

    encoding: str
    obj_type: str
    info: dict[str, Any]
    blobs: list[bytes]


def make_registry() -> ckptstore.Registry:
    """Return what a store needs to save and load ``Serialized``; that itself runs no foreign code."""
    registry = ckptstore.Registry()
    registry.register(Serialized, _NAME, dump=_to_plain, restore=_from_plain)
    return registry


def serialized(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a save, each attribute that a serializer claims as what that makes of it.

    Raises CheckpointException naming the attribute if that fails.
    """
    serializers = _serializers()
    if not serializers:
        return dict(fields)
    return {
        name: _serialize(name, value, serializers) if is_attribute(name) else value
        for name, value in fields.items()
    }


def restored(values: Mapping[str, Any], *, trusted: bool) -> dict[str, Any]:
    """Return loaded values with those that a serializer made given back by it.

    It may run any code, as unpickling does. Raises UntrustedPickleError without
    trust, CheckpointException if it is not there or fails.
    """
    if not trusted:
        claimed = [name for name, value in values.items() if isinstance(value, Serialized)]
        if claimed:
            raise UntrustedPickleError(
                f"{', '.join(claimed)}: saved by a serializer of Metaflow's, which may run any code. If you trust "
                "who wrote the checkpoint, load it with trusted=True."
            )
    return {
        name: _deserialize(name, value) if isinstance(value, Serialized) else value
        for name, value in values.items()
    }


def _serialize(name: str, value: object, serializers: Sequence[Any]) -> object:
    kind = type(value)
    if kind in _PLAIN or f"{kind.__module__}.{kind.__qualname__}" in _ARRAYS:
        return value
    serializer = next((one for one in serializers if _claims(one.can_serialize, value)), None)
    if serializer is None or serializer.TYPE == _PICKLE:
        return value
    try:
        blobs, metadata = serializer.serialize(value)
    except MetaflowException:
        raise
    except Exception as error:
        raise CheckpointException(
            f"{name} cannot be saved by the serializer {serializer.__name__}, which claims it: "
            f"{type(error).__name__}: {error}"
        ) from error
    if any(blob.is_reference for blob in blobs):
        raise CheckpointException(
            f"{name} cannot be saved: the serializer {serializer.__name__} gives a reference to what is stored "
            "elsewhere, and a checkpoint holds all of its values."
        )
    return Serialized(
        str(metadata.encoding),
        str(metadata.obj_type),
        {"source": _source(serializer), **(metadata.serializer_info or {})},
        [blob.value for blob in blobs],
    )


def _deserialize(name: str, value: Serialized) -> Any:
    serializers = _serializers()
    serializer = None
    if serializers:
        size = sum(map(len, value.blobs))
        metadata = _module().SerializationMetadata(value.obj_type, size, value.encoding, dict(value.info))
        claiming = (one for one in serializers if _claims(one.can_deserialize, metadata))
        serializer = next((one for one in claiming if one.TYPE != _PICKLE), None)
    if serializer is None:
        raise CheckpointException(
            f"{name} was saved as {value.encoding!r} by a serializer of {value.info.get('source') or 'an extension'}, "
            "which is not installed or not active here: install it, or load other fields."
        )
    try:
        return serializer.deserialize(list(value.blobs), metadata)
    except Exception as error:
        raise CheckpointException(
            f"{name} cannot be restored by the serializer {serializer.__name__}: {type(error).__name__}: {error}"
        ) from error


def _serializers() -> Sequence[Any]:
    """Return Metaflow's serializers in the order in which it asks them; none if it has but pickle, or is older."""
    try:
        found: Sequence[Any] = _module().SerializerStore.get_ordered_serializers()
    except ModuleNotFoundError:
        return ()
    return found if any(one.TYPE != _PICKLE for one in found) else ()


def _module() -> Any:
    return importlib.import_module("metaflow.datastore.artifacts.serializer")


def noted(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what to note with a checkpoint of the values that serializers made, for ``inspect``."""
    made = {
        name: {"type": value.obj_type.removeprefix("<class '").removesuffix("'>"), "format": value.encoding}
        for name, value in values.items()
        if isinstance(value, Serialized)
    }
    return {NOTED: made} if made else {}


def _claims(asked: Callable[[Any], bool], what: object) -> bool:
    try:
        return asked(what)
    except Exception:  # noqa: BLE001  # Metaflow passes over such a serializer too, and warns of it at the step's end
        return False


def _source(serializer: Any) -> str:
    return str(_module().SerializerStore.get_source_for(serializer) or serializer.__module__)


def _to_plain(value: Serialized) -> dict[str, Any]:
    return {"encoding": value.encoding, "type": value.obj_type, "info": value.info, "blobs": value.blobs}


def _from_plain(plain: Any) -> Serialized:
    value = Serialized(plain["encoding"], plain["type"], plain["info"], plain["blobs"])
    texts = isinstance(value.encoding, str) and isinstance(value.obj_type, str)
    if not texts or not isinstance(value.info, dict) or not all(type(blob) is bytes for blob in value.blobs):
        raise ValueError("it is not what a serializer of Metaflow's made")
    return value
