"""What a garbage collection found and did."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["GCReport"]


@dataclass(slots=True)
class GCReport:
    """What a garbage collection deleted, or with ``dry_run`` would delete, and what it left.

    Bytes are those that are stored: after compression, and what several
    checkpoints share is counted once.
    """

    run: str
    """The id of this run, 32 hex digits."""
    dry_run: bool
    n_checkpoints: int = 0
    """Kept: live ones, and deleted ones that are not yet due."""
    n_purged: int = 0
    """Deleted checkpoints that were due."""
    purged_bytes: int = 0
    """Of their manifests; their data is garbage unless another checkpoint shares it."""
    n_chunks: int = 0
    """All pieces of data that were found, garbage included."""
    chunk_bytes: int = 0
    n_garbage: int = 0
    """Pieces of data that no checkpoint needs."""
    garbage_bytes: int = 0
    n_unfinished: int = 0
    """Files that interrupted writes left behind."""
    unfinished_bytes: int = 0
    n_foreign: int = 0
    """Objects that are none of the store's; they are left alone."""
    foreign: list[str] = field(default_factory=list)
    """Keys of some of them."""
    n_failed: int = 0
    """What could not be deleted, and is not counted above: the next run tries again."""
    failed: dict[str, str] = field(default_factory=dict)
    """Keys of some of that, and why."""

    @property
    def freed_bytes(self) -> int:
        """All bytes that were deleted, or with ``dry_run`` would be."""
        return self.purged_bytes + self.garbage_bytes + self.unfinished_bytes
