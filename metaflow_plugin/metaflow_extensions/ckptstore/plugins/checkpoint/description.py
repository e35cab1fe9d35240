"""What a checkpoint holds, as plain data."""

from __future__ import annotations

from typing import Any

import ckptstore

__all__ = ["describe"]

MANIFEST_VERSION = 1


def describe(manifest: ckptstore.Manifest) -> dict[str, Any]:
    """Return a mapping of plain values: ``version`` and ``fields``, see ``CurrentCheckpoint.inspect``."""
    return {
        "version": MANIFEST_VERSION,
        "fields": {name: _field(field) for name, field in manifest.fields.items()},
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
