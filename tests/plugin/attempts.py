"""Attempts of one task, one after the other, and what is in their directories."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.session import Session
from sessions import Flow, begin_attempt


class Attempts:
    """Attempts of one task, each after the one before; ``log`` is that of all."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.sessions: list[Session] = []
        self.log: list[str] = []
        self.flow: Any = None

    def begin(self, **options: Any) -> CurrentCheckpoint:
        self.end()
        self.flow = Flow()
        session = begin_attempt(
            len(self.sessions), self._root / "datastore", self.flow, log=self.log.append, **options
        )
        self.sessions.append(session)
        return CurrentCheckpoint(session)

    def end(self) -> None:
        for session in self.sessions[-1:]:
            session.close()
            session.files.close()


def contents(directory: str | Path) -> dict[str, str]:
    root = Path(directory)
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}
