"""The command run in this process, and a store to run it on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner

from ckptstore import Checkpoint, CheckpointStore, StoreConfig
from ckptstore.cli import command

CONFIG = StoreConfig(durability="os", chunk_bytes=8192, inline_bytes=64)


@dataclass
class Done:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[dict[str, Any]]:
        """What ``--json`` printed."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def one(self) -> dict[str, Any]:
        (line,) = self.lines
        return line


def ckptstore(*words: object) -> Done:
    """Run the command as a program would: nobody can be asked."""
    result = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    return Done(result.exit_code, result.stdout, result.stderr)


def values(seed: int) -> dict[str, Any]:
    return {
        "model": {
            "w": np.random.default_rng(seed).standard_normal(2000),
            "same": np.random.default_rng(0).integers(0, 256, 20_000, dtype="uint8"),
        },
        "epoch": seed,
    }


class Filled:
    """A local store with two collections: ``exp/run1`` with three checkpoints, ``other`` with one."""

    def __init__(self, folder: Path) -> None:
        self.url = folder
        with self.open() as store:
            self.saved = self._fill(store)

    def open(self, **options: Any) -> CheckpointStore:
        return CheckpointStore.open(str(self.url), config=CONFIG, **options)

    @property
    def newest(self) -> Checkpoint:
        return self.saved[2]

    def chunks(self) -> set[Path]:
        return {path for path in (self.url / "chunks").rglob("*.*") if path.is_file()}

    def manifest(self, checkpoint: Checkpoint) -> Path:
        (path,) = (self.url / "manifests").rglob(checkpoint.ref.name)
        return path

    @staticmethod
    def id(checkpoint: Checkpoint) -> str:
        return checkpoint.ref.name[-32:]

    def names(self, collection: str = "exp/run1") -> list[str]:
        with self.open() as store:
            return [checkpoint.ref.name for checkpoint in store.list(collection)]

    @staticmethod
    def _fill(store: CheckpointStore) -> list[Checkpoint]:
        first = store.save("exp/run1", values(1), label="best", run="r1", metadata={"loss": 0.5})
        second = store.save("exp/run1", values(2), run="r1", parent=first.ref)
        third = store.save("exp/run1", values(3), label="last", run="r2", parent=second.ref)
        return [first, second, third, store.save("other", {"n": 1})]
