"""One save, from a snapshot to a committed checkpoint (protocol S0 to S8)."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ckptstore._clock import Clock, Reading
from ckptstore._commit import Deadline, commit
from ckptstore._line import Line, refresh
from ckptstore._snapshot import Snapshot
from ckptstore._summary import Draft
from ckptstore._table import NONCE_BYTES, ChunkEntry, ChunkTable
from ckptstore._tasks import in_worker, shielded
from ckptstore._upload import Engine, Progress, Upload, Urgency
from ckptstore.checkpoint import Checkpoint, CheckpointRef, FieldInfo, LeafInfo, Manifest
from ckptstore.errors import CommitUnknownError
from ckptstore.manifest import ManifestSource, decode_summary, encode
from ckptstore.retention import Keep

__all__ = ["Content", "MakeContent", "Request", "publish", "write"]

# Once the manifest was sent, a cancellation waits this long for the answer.
_COMMIT_GRACE_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is saved under which names; everything is checked and plain.

    ``keep`` is the retention that follows, ``protect`` are names that it leaves alone.
    """

    collection: str
    label: str | None
    run: str | None
    metadata: Mapping[str, Any]
    attributes: Mapping[str, Any]
    parent: CheckpointRef | None
    keep: Keep | None
    protect: frozenset[str]
    started: Reading
    progress: Progress = field(default_factory=Progress)


class Content(Protocol):
    """The chunks of one checkpoint on their way, whatever they come from."""

    async def run(self) -> ChunkTable:
        """Put what is new, wait for the barrier, and return the chunk table."""

    async def discard(self) -> None:
        """Delete the chunks that were put, as far as that works."""


MakeContent = Callable[[bytes, Mapping[bytes, ChunkEntry]], Content]
"""Given the nonce of the save and the chunks that are safe to reuse."""


async def write(
    engine: Engine,
    line: Line,
    request: Request,
    snapshot: Snapshot,
    *,
    store_id: str,
    clock: Clock,
    max_save_s: float,
    urgency: Urgency,
) -> Checkpoint:
    """Upload and commit; return the checkpoint, durable. Raises as ``publish``."""

    def content(nonce: bytes, known: Mapping[bytes, ChunkEntry]) -> Upload:
        return Upload(
            engine,
            snapshot,
            nonce=nonce,
            known=known,
            progress=request.progress,
            urgency=urgency,
        )

    manifest = await publish(
        engine,
        line,
        request,
        content,
        lambda table: _field_infos(snapshot, table),
        store_id=store_id,
        clock=clock,
        max_save_s=max_save_s,
    )
    engine.trust.saved(manifest.fields.values())
    return manifest.checkpoint


async def publish(
    engine: Engine,
    line: Line,
    request: Request,
    make_content: MakeContent,
    fields: Callable[[ChunkTable], list[FieldInfo]],
    *,
    store_id: str,
    clock: Clock,
    max_save_s: float,
    created_ns: int | None = None,
) -> Manifest:
    """Store the content and commit a manifest over it; return what that says. ``created_ns``: None is now.

    A failure or cancellation before the manifest is sent deletes the save's own
    chunks, as far as that works; afterwards nothing is deleted, and a save that
    is cancelled ends as it ends.

    Raises BackendError, SaveExpiredError, CommitUnknownError, LimitExceededError.
    """
    limits = engine.config.limits
    await refresh(engine, line, clock=clock, max_age_s=max_save_s / 2)
    base = line.base
    content = make_content(secrets.token_bytes(NONCE_BYTES), base.chunks if base else {})
    since = request.started
    if base is not None and base.known.boot_s < since.boot_s:
        since = base.known
    deadline = Deadline(clock, since, max_save_s)
    name = line.next_name(request.run, request.label)
    source = ManifestSource(store_id, request.collection, name.text)
    try:
        table = await content.run()
        draft = Draft(
            store_id=store_id,
            collection=request.collection,
            name=name,
            created_ns=time.time_ns() if created_ns is None else created_ns,
            parent=request.parent,
            metadata=request.metadata,
            attributes=request.attributes,
            fields=fields(table),
            table=table,
        )
        data = await in_worker(engine.workers, encode, draft, limits, engine.keyring)
        # Read back what will be committed: a manifest that nobody can read is never sent.
        manifest = await in_worker(engine.workers, decode_summary, data, source, limits, engine.keyring)
        deadline.check(f"the save of {source.key}")
    except BaseException:
        await shielded(content.discard(), _COMMIT_GRACE_S)
        raise

    async def finish() -> None:
        known = clock.read()
        await commit(engine.backend, source.key, data, deadline=deadline, chunks=table.chunks)
        line.committed(name.text, known, {chunk.digest: chunk for chunk in table.chunks})

    try:
        await shielded(finish(), _COMMIT_GRACE_S)
    except asyncio.CancelledError as exc:
        raise CommitUnknownError(
            f"the commit {source.key} was given up before its answer came: look for it with list() "
            "before saving again"
        ) from exc
    return manifest


def _field_infos(snapshot: Snapshot, table: ChunkTable) -> list[FieldInfo]:
    return [
        FieldInfo(
            name=dumped.name,
            type_name=dumped.type_name,
            kind=dumped.kind,
            raw_bytes=cost.raw_bytes,
            stored_bytes=cost.stored_bytes,
            new_bytes=cost.new_bytes,
            globals=tuple(dumped.globals),
            leaves=tuple(
                LeafInfo(leaf.path, leaf.kind, leaf.dtype, tuple(leaf.shape), leaf.nbytes, leaf.block)
                for leaf in dumped.leaves
            ),
        )
        for dumped, cost in zip(snapshot.fields, table.costs(), strict=True)
    ]
