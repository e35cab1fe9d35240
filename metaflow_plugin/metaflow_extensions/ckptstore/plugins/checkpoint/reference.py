"""What stands for a checkpoint wherever one is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from .artifact import CheckpointArtifact

__all__ = ["Reference", "TaskLike"]


@runtime_checkable
class TaskLike(Protocol):
    """What is asked of a Metaflow Task."""

    @property
    def pathspec(self) -> str:
        """``Flow/run_id/step/task_id``."""

    @property
    def metadata_dict(self) -> dict[str, str]:
        """What is noted with it."""


Reference = CheckpointArtifact | Mapping[str, Any] | str | TaskLike
"""An artifact, its dict, its key, or a task or its pathspec, which stand for the newest of it."""
