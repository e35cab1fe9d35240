"""What goes wrong between Metaflow and the store; the store's own errors pass through unchanged."""

from __future__ import annotations

from metaflow.exception import MetaflowException

__all__ = ["CheckpointArgumentError", "CheckpointException"]


class CheckpointException(MetaflowException):
    """A checkpoint could not be saved, found or restored."""

    headline = "Checkpoint failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)  # type: ignore[no-untyped-call]  # Metaflow's constructor is untyped


class CheckpointArgumentError(CheckpointException, ValueError):
    """An argument is wrong. Raised before anything was read or written."""

    headline = "Wrong argument to @checkpoint"
