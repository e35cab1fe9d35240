"""What the child measures: a contestant and its row in the registry."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from bench.workloads.compare import Values

__all__ = ["Extra", "System", "SystemSpec", "Unavailable", "flush"]

Extra = Literal["into", "inplace", "inspect", "one"]
"""What some systems can besides saving and loading everything."""


class Unavailable(Exception):  # noqa: N818 - no error: the system is skipped, with this reason
    """This system cannot run here."""


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

    def is_settled(self) -> bool:
        """Whether the last save is done, without waiting."""
        return True

    def settle(self) -> None:
        """Returns when the last save is done."""

    def reopen(self) -> None:
        """Forgets what saves left in this process."""

    def load(self) -> Values | None:
        """The state last saved, as new objects; None from a reference that rebuilds no state."""
        raise NotImplementedError

    def load_into(self, destination: Values, *, inplace: bool = False) -> Values:
        """The state last saved, its tensors in the memory of `destination`, which has the same structure.

        `inplace`: without a copy of it all beside, if the system has that choice.
        """
        raise NotImplementedError

    def inspect(self) -> object:
        """What the last checkpoint holds: names, shapes, dtypes; none of its data is needed."""
        raise NotImplementedError

    def load_one(self, field: str, key: str) -> Any:
        """``values[field][key]`` of the last checkpoint, in memory of its own, and nothing else of it."""
        raise NotImplementedError

    def close(self) -> None:
        """Lets go of everything; files stay."""

    def stored_bytes(self) -> int:
        """Sizes of all that is stored by now."""
        return sum(
            os.lstat(os.path.join(folder, name)).st_size
            for folder, _, names in os.walk(self.directory)
            for name in names
        )

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
    make: Callable[..., System]
    """Takes the directory; a system on S3 also the ``endpoint_url``."""
    durable: bool = False
    """A save that is done survives a power cut."""
    verified: bool = False
    """A load checks every byte."""
    needs: tuple[str, ...] = ()
    """Packages without which it is skipped."""
    torch_only: bool = False
    """Runs on workloads of torch tensors only."""
    tensors_only: bool = False
    """Runs on workloads of tensors or arrays only."""
    loads: bool = True
    on_s3: bool = False
    """Runs against an S3 server, not on the local disk."""
    background: bool = False
    """A save gives the caller its thread back before it is done."""
    reference: bool = False
    """A physical limit, not a way to keep checkpoints."""
    extras: tuple[Extra, ...] = ()
    """Which of these it can."""


def flush(path: str) -> None:
    """Makes a file's bytes, or a directory's names, durable, whichever descriptor wrote them."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
