"""Reading manifests: the summary by one ranged get, or all of it."""

from __future__ import annotations

from ckptstore._table import ChunkTable
from ckptstore.backends.base import Backend
from ckptstore.checkpoint import Manifest
from ckptstore.config import Limits
from ckptstore.errors import CheckpointNotFoundError, LimitExceededError, ObjectNotFoundError
from ckptstore.manifest import HEADER_BYTES, ManifestSource, decode_summary, decode_table, summary_end

__all__ = ["read_manifest", "read_summary_of"]

_FIRST_READ_BYTES = 256 * 1024
"""Holds the summary of ten thousand arrays; a larger one takes a second get."""


async def read_summary_of(backend: Backend, source: ManifestSource, limits: Limits) -> Manifest:
    """Return the summary. Raises CheckpointNotFoundError, BackendError, FormatError, IntegrityError."""
    data = await _get(backend, source, _FIRST_READ_BYTES)
    if len(data) >= HEADER_BYTES:
        end = summary_end(data, source, limits)
        if end > len(data) == _FIRST_READ_BYTES:
            data = await _get(backend, source, end)
    return decode_summary(data, source, limits)


async def read_manifest(
    backend: Backend, source: ManifestSource, limits: Limits
) -> tuple[Manifest, ChunkTable]:
    """Return the whole manifest. Raises as ``read_summary_of``."""
    limit = limits.max_manifest_stored_bytes
    data = await _get(backend, source, limit + 1)
    if len(data) > limit:
        raise LimitExceededError(
            f"manifest {source.key} is larger than {limit} bytes (Limits.max_manifest_stored_bytes)"
        )
    manifest = decode_summary(data, source, limits)
    return manifest, decode_table(data, manifest, source, limits)


async def _get(backend: Backend, source: ManifestSource, length: int) -> bytes:
    try:
        return await backend.get(source.key, length=length)
    except ObjectNotFoundError as exc:
        raise CheckpointNotFoundError(
            f"there is no checkpoint {source.name} in collection {source.collection!r} of {backend.url}"
        ) from exc
