"""Runs hostile streams in a process of its own, under an audit hook that notes whatever they touch.

    python tripwire.py gadgets FOLDER [UNSAFE TITLE ...]
    python tripwire.py fuzz N_EXAMPLES SEED

The first prints a JSON object: title -> error, message, and the events that
were seen. With titles, ``pickle`` itself runs those gadgets, to show that the
wire trips.
"""

from __future__ import annotations

import json
import pickle
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gadgets import CANARY, GADGETS
from gadgets_inside import INSIDE
from streams import load

from ckptstore.errors import CheckpointStoreError
from ckptstore.serializers import _safe_numpy, _safe_stdlib, _safe_torch

# What making harmless objects does: numpy and torch look around, and so does the interpreter.
HARMLESS = frozenset(
    {"builtins.id", "object.__getattr__", "object.__setattr__", "sys._getframe", "array.__new__"}
)

_armed = threading.local()
seen: list[str] = []


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if getattr(_armed, "on", False) and event not in HARMLESS:
        seen.append(f"{event} {args!r:.100}")


@contextmanager
def armed() -> Iterator[list[str]]:
    """Note every audit event of this thread."""
    seen.clear()
    _armed.on = True
    try:
        yield seen
    finally:
        _armed.on = False


def prepare() -> None:
    """Import what the allowlist would, so that no import of its own is taken for a hostile one."""
    for names in (_safe_stdlib.NAMES, _safe_numpy.NAMES, _safe_torch.NAMES):
        for (module, name), maker in names.items():
            try:
                maker(module, name)
            except (CheckpointStoreError, ImportError):
                continue
    sys.addaudithook(_hook)


def _gadgets(folder: Path, unsafe: list[str]) -> None:
    path = str(folder) + "/"
    canary = path + "c" * (len(CANARY) - len(path))
    report: dict[str, Any] = {}
    for title, gadget in {**GADGETS, **INSIDE}.items():
        if unsafe and title not in unsafe:
            continue
        stream = gadget.stream.replace(CANARY.encode(), canary.encode())
        error, message = "", ""
        with armed() as events:
            try:
                pickle.loads(stream) if unsafe else load(stream)
            except Exception as exc:  # noqa: BLE001  # whatever it is, the test judges it
                error, message = type(exc).__name__, str(exc)
        report[title] = [error, message, list(events)]
    json.dump({"report": report, "left": [entry.name for entry in folder.iterdir()]}, sys.stdout)


if __name__ == "__main__":
    prepare()
    if sys.argv[1] == "gadgets":
        _gadgets(Path(sys.argv[2]), sys.argv[3:])
    else:
        from fuzz_streams import fuzz

        fuzz(int(sys.argv[2]), int(sys.argv[3]), armed)
