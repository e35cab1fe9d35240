"""What the child measures: a contestant and its row in the registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from bench.workloads import Values

__all__ = ["System", "SystemSpec", "flush_directory"]


class System:
    """One way to save and load a state, as its users would, inside one directory of its own.

    Not timed are `prepare` and `reopen`: imports, an open store, warm memory,
    what a training loop has behind it when it comes to its save.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.n_saves = 0

    def prepare(self, values: Values) -> None:
        """Gets ready for saves of `values`."""

    def save(self, values: Values) -> None:
        """Saves; returns when the caller may go on and change its state."""
        raise NotImplementedError

    def settle(self) -> None:
        """Returns when the last save is done."""

    def reopen(self) -> None:
        """Forgets what saves left in this process."""

    def load(self) -> Values | None:
        """The state last saved, as new objects; None from a reference that rebuilds no state."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of everything; files stay."""

    def new_path(self, suffix: str) -> str:
        """A path for the next save: a checkpoint is never written over another."""
        self.n_saves += 1
        return self.last_path(suffix)

    def last_path(self, suffix: str) -> str:
        return os.path.join(self.directory, f"checkpoint-{self.n_saves}{suffix}")


@dataclass(frozen=True, slots=True)
class SystemSpec:
    """A row of the registry: a name, and all that tells whether and how to run it."""

    name: str
    about: str
    make: Callable[[str], System]
    durable: bool
    """A save that is done survives a power cut."""
    verified: bool = False
    """A load checks every byte."""
    needs: tuple[str, ...] = ()
    """Packages without which it is skipped."""
    torch_only: bool = False
    """Runs on workloads of torch tensors only."""
    loads: bool = True
    reference: bool = False
    """A physical limit, not a way to keep checkpoints."""


def flush_directory(path: str) -> None:
    """Makes new names in the directory `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
