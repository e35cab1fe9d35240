"""The load: plan, get, verify, and only then build (protocol 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ckptstore._download import Download, Wanted
from ckptstore._pause import collector_paused
from ckptstore._summaries import read_manifest
from ckptstore._tasks import in_worker
from ckptstore._trust import Trusted
from ckptstore._upload import Engine
from ckptstore.checkpoint import Manifest
from ckptstore.errors import CheckpointNotFoundError, ManifestCorruptError, UntrustedPickleError
from ckptstore.manifest import ManifestSource
from ckptstore.serializers import Ref, Registry, RestorePlan

__all__ = ["Blocks", "ReadOptions", "Reading", "load", "read"]

T = TypeVar("T")

Blocks = dict[tuple[str, int], memoryview]
"""The bytes of blocks, by field and number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How a checkpoint is read. ``pinned``: the reference is the caller's own."""

    trusted: Trusted
    pinned: bool
    device: str | None
    registry: Registry


class Reading:
    """A checkpoint whose manifest and graphs were read, and whose data can be. See ``read``."""

    def __init__(
        self,
        engine: Engine,
        source: ManifestSource,
        manifest: Manifest,
        download: Download,
        plan: RestorePlan,
        options: ReadOptions,
    ) -> None:
        self.engine = engine
        self.manifest = manifest
        self.plan = plan
        self._source = source
        self._download = download
        self.options = options

    async def values(self) -> dict[str, Any]:
        """Return the values of the fields: all of them whole, or an error."""
        plan, device = self.plan, self.options.device
        return await self.build(plan, lambda blocks: plan.build(blocks, device=device))

    async def nodes(self, refs: Iterable[Ref]) -> dict[Ref, Any]:
        """Return the values of some nodes; what these share stays shared."""
        refs, device = list(refs), self.options.device
        part = self.plan.part(refs)
        return await self.build(part, lambda blocks: part.build_nodes(refs, blocks, device=device))

    async def build(
        self,
        plan: RestorePlan,
        build: Callable[[Blocks], T],
        places: Mapping[tuple[str, int], memoryview] | None = None,
    ) -> T:
        """Return what ``build``, in a worker, makes of the blocks of ``plan``; ``places`` is memory for some."""
        engine = self.engine

        async def blocks_of(wanted: Iterable[tuple[str, int]]) -> Blocks:
            with collector_paused():
                found = {Wanted(field, block + 1): (field, block) for field, block in wanted}
                into = {key: places[name] for key, name in found.items() if name in places} if places else {}
            loaded = await self._download.run(found, into)
            with collector_paused():
                return {found[key]: view for key, view in loaded.items()}

        if plan.trusted and plan.pickled:
            engine.trust.runs(engine.backend.url, plan.pickled)
        try:
            # What cannot be loaded without trust is told before the data is fetched.
            blocks = await blocks_of(plan.streams)
            await in_worker(engine.workers, plan.check_pickles, blocks)
            blocks |= await blocks_of(block for block in plan.blocks if block not in blocks)
            return await in_worker(engine.workers, build, blocks)
        except UntrustedPickleError as exc:
            verified = self.options.trusted == "verified"
            why = " (neither a reference of yours nor a signature verifies it)" if verified else ""
            raise UntrustedPickleError(f"checkpoint {self._source.key}{why}: {exc}") from exc


async def read(
    engine: Engine, source: ManifestSource, *, options: ReadOptions, fields: Sequence[str] | None
) -> Reading:
    """Return a checkpoint with the graphs of some ``fields``, or of all, and of what these share with others."""
    limits = engine.config.limits
    manifest, table = await read_manifest(engine, source)
    names = list(manifest.fields) if fields is None else _chosen(manifest, fields)
    positions = {name: i for i, name in enumerate(manifest.fields)}
    download = Download(engine, manifest, table)
    trusted = options.trusted
    plan = RestorePlan(
        names,
        limits=limits,
        registry=options.registry,
        trusted=trusted if trusted != "verified" else options.pinned or manifest.signature_verified,
        allowed=engine.trust.allowed,
    )
    while wanted := plan.wanted:
        if unknown := wanted - positions.keys():
            raise ManifestCorruptError(
                f"manifest {source.key}: a graph refers to fields that are not there: {sorted(unknown)[:3]!r:.200}"
            )
        graphs = await download.run(Wanted(name, 0) for name in sorted(wanted, key=positions.__getitem__))
        for key, graph in graphs.items():
            sizes = [buffer.nbytes for buffer in table.buffers[positions[key.field]][1:]]
            await in_worker(engine.workers, plan.add_graph, key.field, bytes(graph), sizes)
    return Reading(engine, source, manifest, download, plan, options)


async def load(
    engine: Engine, source: ManifestSource, *, options: ReadOptions, fields: Sequence[str] | None
) -> dict[str, Any]:
    """Return the values of a checkpoint, or of some fields: all of them whole, or an error.

    A field brings along what it shares with others, and only that. See
    ``AsyncCheckpointStore.load`` for the errors.
    """
    reading = await read(engine, source, options=options, fields=fields)
    return await reading.values()


def _chosen(manifest: Manifest, fields: Iterable[str]) -> list[str]:
    names = list(dict.fromkeys(fields))
    missing = [name for name in names if name not in manifest.fields]
    if missing:
        raise CheckpointNotFoundError(
            f"checkpoint {manifest.checkpoint.ref} has no field {', '.join(map(repr, missing))}; "
            f"it has {', '.join(map(repr, manifest.fields)) or 'none'}"
        )
    return names
