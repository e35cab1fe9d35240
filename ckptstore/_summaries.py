"""Reading manifests: the summary by one ranged get, or all of it."""

from __future__ import annotations

from dataclasses import replace

from ckptstore._table import ChunkTable
from ckptstore._tasks import in_worker
from ckptstore._upload import Engine
from ckptstore.backends.base import Backend
from ckptstore.checkpoint import Manifest
from ckptstore.errors import CheckpointNotFoundError, LimitExceededError, ObjectNotFoundError
from ckptstore.manifest import (
    HEADER_BYTES,
    ManifestSource,
    decode_summary,
    decode_table,
    key_id_of,
    summary_end,
)

__all__ = ["read_manifest", "read_summary_of", "read_with_codecs"]

_FIRST_READ_BYTES = 256 * 1024
"""Holds the summary of ten thousand arrays; a larger one takes a second get."""
_QUICK_BYTES = 16 * 1024
"""Decoded on the loop in less time than a hop to a worker and back takes."""


async def read_summary_of(engine: Engine, source: ManifestSource) -> Manifest:
    """Return the summary.

    Raises CheckpointNotFoundError, BackendError, FormatError, IntegrityError, SignatureError.
    """
    backend, limits = engine.backend, engine.config.limits
    data = await _get(backend, source, _FIRST_READ_BYTES)
    await _fetch_key(engine, data)
    if len(data) >= HEADER_BYTES:
        end = summary_end(data, source, limits, engine.keyring)
        if end > len(data) == _FIRST_READ_BYTES:
            data = await _get(backend, source, end)
    if len(data) < _QUICK_BYTES:
        return decode_summary(data, source, limits, engine.keyring)
    return await in_worker(engine.workers, decode_summary, data, source, limits, engine.keyring)


async def read_manifest(engine: Engine, source: ManifestSource) -> tuple[Manifest, ChunkTable]:
    """Return the whole manifest. Raises as ``read_summary_of``."""
    limits = engine.config.limits
    limit = limits.max_manifest_stored_bytes
    data = await _get(engine.backend, source, limit + 1)
    if len(data) > limit:
        raise LimitExceededError(
            f"manifest {source.key} is larger than {limit} bytes (Limits.max_manifest_stored_bytes)"
        )

    await _fetch_key(engine, data)

    def decode() -> tuple[Manifest, ChunkTable]:
        manifest = decode_summary(data, source, limits, engine.keyring)
        return manifest, decode_table(data, manifest, source, limits, engine.keyring)

    return decode() if len(data) < _QUICK_BYTES else await in_worker(engine.workers, decode)


async def read_with_codecs(engine: Engine, source: ManifestSource) -> Manifest:
    """Return the summary with its ``codecs``, by one get of the whole manifest. Raises as ``read_summary_of``."""
    manifest, table = await read_manifest(engine, source)
    return replace(manifest, codecs=await in_worker(engine.workers, table.codec_uses))


async def _fetch_key(engine: Engine, head: bytes) -> None:
    """Have the key that a manifest names, where a function has to be asked for it."""
    key_id = key_id_of(head)
    if engine.keyring is not None and key_id is not None and engine.keyring.lacks(key_id):
        await in_worker(engine.workers, engine.keyring.fetch, key_id)


async def _get(backend: Backend, source: ManifestSource, length: int) -> bytes:
    try:
        return await backend.get(source.key, length=length)
    except ObjectNotFoundError as exc:
        raise CheckpointNotFoundError(
            f"there is no checkpoint {source.name} in collection {source.collection!r} of {backend.url}"
        ) from exc
