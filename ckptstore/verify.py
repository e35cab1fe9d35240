"""What ``verify`` finds: how much was looked at, what is damaged, and what to load instead.

    report = store.verify("exp/run1")
    if not report.ok:
        print(report)

A checkpoint is named ``collection@name`` here, as ``str(checkpoint.ref)`` and
the ``ckptstore`` command name it: one whose manifest cannot be read has no
reference that could pin it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

__all__ = ["DamagedCheckpoint", "Problem", "ProblemKind", "VerifyReport"]

ProblemKind = Literal["missing", "corrupt", "unreadable"]
"""``unreadable``: as it was written, as far as can be told, but not for this release, its limits or its keys."""

_MAX_LINES = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One object of the storage that is not what was saved.

    ``key`` is a manifest's (``manifests/…``) or a chunk's (``chunks/…``),
    ``detail`` says what was found. ``checkpoints`` are all of its collections
    that need it. ``copy`` is the key of another whole copy of a chunk's bytes:
    a load takes them from there.
    """

    key: str
    kind: ProblemKind
    detail: str
    checkpoints: tuple[str, ...]
    copy: str | None = None

    def __str__(self) -> str:
        heals = f"; a load takes its bytes from {self.copy}" if self.copy else ""
        return f"{self.key}  {self.kind}  {self.detail}{heals}"


@dataclass(frozen=True, slots=True)
class DamagedCheckpoint:
    """One checkpoint that a problem touches.

    ``heals``: it can be loaded all the same, from copies. ``older`` is the
    newest one before it in its collection that is whole, None if there is none.
    """

    checkpoint: str
    heals: bool
    older: str | None

    def __str__(self) -> str:
        if self.heals:
            return f"{self.checkpoint}  can be loaded, from copies"
        return f"{self.checkpoint}  cannot be loaded whole; before it, whole: {self.older or 'none'}"


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification looked at and found.

    Every manifest was read; of ``n_chunks`` chunks (``chunk_bytes`` bytes as
    they are stored, what several checkpoints share counted once) ``n_checked``
    (``checked_bytes``). ``sample`` and ``seed`` are those of a random sample,
    None if all were checked.
    """

    n_checkpoints: int
    n_chunks: int
    chunk_bytes: int
    n_checked: int
    checked_bytes: int
    sample: float | None
    seed: int | None
    problems: tuple[Problem, ...]
    damaged: tuple[DamagedCheckpoint, ...]

    @property
    def ok(self) -> bool:
        """True if no problem was found."""
        return not self.problems

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        part = "" if self.sample is None else f", a sample of {self.sample:g} with seed {self.seed}"
        yield (
            f"{self.n_checkpoints} checkpoints, {self.n_checked} of {self.n_chunks} chunks "
            f"({self.checked_bytes} of {self.chunk_bytes} bytes{part}) checked: "
            f"{len(self.problems) or 'no'} problem{'' if len(self.problems) == 1 else 's'}"
        )
        for items in (self.problems, self.damaged):
            for item in items[:_MAX_LINES]:
                yield f"  {item}"
            if len(items) > _MAX_LINES:
                yield f"  and {len(items) - _MAX_LINES} more"
