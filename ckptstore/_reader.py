"""The load: plan, get, verify, and only then build (protocol 7)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ckptstore._download import Download, Wanted
from ckptstore._summaries import read_manifest
from ckptstore._tasks import in_worker
from ckptstore._trust import Trusted
from ckptstore._upload import Engine
from ckptstore.checkpoint import Manifest
from ckptstore.errors import CheckpointNotFoundError, ManifestCorruptError, UntrustedPickleError
from ckptstore.manifest import ManifestSource
from ckptstore.serializers import Registry, RestorePlan

__all__ = ["load"]


async def load(
    engine: Engine,
    source: ManifestSource,
    *,
    fields: Sequence[str] | None,
    trusted: Trusted,
    pinned: bool,
    device: str | None,
    registry: Registry,
) -> dict[str, Any]:
    """Return the values of a checkpoint, or of some fields: all of them whole, or an error.

    A field brings along what it shares with others, and only that. ``pinned``:
    the reference is the caller's own. See ``AsyncCheckpointStore.load`` for the
    errors.
    """
    limits = engine.config.limits
    manifest, table = await read_manifest(engine, source)
    names = list(manifest.fields) if fields is None else _chosen(manifest, fields)
    positions = {name: i for i, name in enumerate(manifest.fields)}
    download = Download(engine, manifest, table)
    runs = trusted if trusted != "verified" else pinned or manifest.signature_verified
    plan = RestorePlan(names, limits=limits, registry=registry, trusted=runs, allowed=engine.trust.allowed)
    while wanted := plan.wanted:
        if unknown := wanted - positions.keys():
            raise ManifestCorruptError(
                f"manifest {source.key}: a graph refers to fields that are not there: {sorted(unknown)[:3]!r:.200}"
            )
        graphs = await download.run(Wanted(name, 0) for name in sorted(wanted, key=positions.__getitem__))
        for key, graph in graphs.items():
            sizes = [buffer.nbytes for buffer in table.buffers[positions[key.field]][1:]]
            await in_worker(engine.workers, plan.add_graph, key.field, bytes(graph), sizes)

    if runs and plan.pickled:
        engine.trust.runs(engine.backend.url, plan.pickled)

    async def blocks_of(wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], memoryview]:
        loaded = await download.run(Wanted(field, block + 1) for field, block in wanted)
        return {(key.field, key.buffer - 1): view for key, view in loaded.items()}

    try:
        # What cannot be loaded without trust is told before the data is fetched.
        blocks = await blocks_of(plan.streams)
        await in_worker(engine.workers, plan.check_pickles, blocks)
        blocks |= await blocks_of(block for block in plan.blocks if block not in blocks)
        return await in_worker(engine.workers, lambda: plan.build(blocks, device=device))
    except UntrustedPickleError as exc:
        why = " (neither a reference of yours nor a signature verifies it)" if trusted == "verified" else ""
        raise UntrustedPickleError(f"checkpoint {source.key}{why}: {exc}") from exc


def _chosen(manifest: Manifest, fields: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(fields))
    missing = [name for name in names if name not in manifest.fields]
    if missing:
        raise CheckpointNotFoundError(
            f"checkpoint {manifest.checkpoint.ref} has no field {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(repr, manifest.fields)) or 'none'}"
        )
    return names
