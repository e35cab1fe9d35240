"""What a checkpoint holds, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ckptstore

from .artifact_serializers import NOTED
from .reserved import attributes_of

__all__ = ["describe"]

MANIFEST_VERSION = 1


def describe(manifest: ckptstore.Manifest, files: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping of plain values, see ``CurrentCheckpoint.inspect``; ``files`` are part of it."""
    made = manifest.checkpoint.attributes.get(NOTED, {})
    return {
        "version": MANIFEST_VERSION,
        "fields": {
            name: _field(manifest.fields[name]) | made.get(name, {})
            for name in attributes_of(manifest.fields)
        },
        "files": dict(files),
    }


def _field(field: ckptstore.FieldInfo) -> dict[str, Any]:
    return {
        "type": field.type_name,
        "format": field.kind,
        "bytes": field.raw_bytes,
        "stored_bytes": field.stored_bytes,
        "new_bytes": field.new_bytes,
        "globals": list(field.globals),
        "leaves": [
            {
                "path": leaf.path,
                "kind": leaf.kind,
                "dtype": leaf.dtype,
                "shape": list(leaf.shape),
                "bytes": leaf.nbytes,
            }
            for leaf in field.leaves
        ],
    }
