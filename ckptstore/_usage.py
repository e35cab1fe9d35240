"""How much storage a store's collections take, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from ckptstore._listing import collections
from ckptstore._manifests import Read, Unread, each_manifest, live_entries, sized
from ckptstore._tally import ChunkTally
from ckptstore._tasks import in_worker
from ckptstore._upload import Engine
from ckptstore.manifest import ManifestSource

__all__ = ["Usage", "measure"]


@dataclass(slots=True)
class Usage:
    """What the checkpoints of one collection take, deleted ones left out.

    ``raw_bytes`` before compression and sharing; ``stored_bytes`` as stored,
    what they share counted once, manifests included; ``unique_bytes`` what of
    that no other collection needs: so much is freed, a grace later, if all are
    deleted.
    """

    collection: str
    n_checkpoints: int = 0
    raw_bytes: int = 0
    stored_bytes: int = 0
    unique_bytes: int = 0

    @property
    def ratio(self) -> float | None:
        """How many bytes of values one stored byte holds."""
        return self.raw_bytes / self.stored_bytes if self.stored_bytes else None


async def measure(engine: Engine, store_id: str) -> tuple[list[Usage], Usage, list[str]]:
    """Return what each collection takes, what all do together, and what could not be read.

    Raises BackendError.
    """
    found: list[Usage] = []
    unread: list[str] = []
    tally = ChunkTally()

    async with aclosing(collections(engine.backend)) as names:
        async for name in names:
            live = await live_entries(engine, name)
            if live:
                usage, owner = Usage(name), len(found)
                found.append(usage)

                async def count(
                    _: ManifestSource, read: Read | Unread, usage: Usage = usage, owner: int = owner
                ) -> None:
                    if isinstance(read, Unread):
                        unread.append(read.detail)
                        return
                    usage.raw_bytes += read.manifest.checkpoint.sizes.raw_bytes
                    await tally.add_all(engine.workers, owner, read.table.chunks)

                usage.n_checkpoints = len(live)
                usage.stored_bytes = usage.unique_bytes = sum(entry.info.size for entry in live)
                await each_manifest(engine, [sized(entry, store_id) for entry in live], count)
    total = await in_worker(engine.workers, _add_chunks, found, tally)
    return found, total, unread


def _add_chunks(found: Sequence[Usage], tally: ChunkTally) -> Usage:
    total = Usage("")
    for usage in found:
        total.n_checkpoints += usage.n_checkpoints
        total.raw_bytes += usage.raw_bytes
        total.stored_bytes += usage.stored_bytes
    for chunk, owners in tally:
        total.stored_bytes += chunk.stored_bytes
        for owner in owners:
            found[owner].stored_bytes += chunk.stored_bytes
            if len(owners) == 1:
                found[owner].unique_bytes += chunk.stored_bytes
    total.unique_bytes = total.stored_bytes
    return total
