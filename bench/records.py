"""What a run leaves behind as JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from bench.verdicts import Verdict

__all__ = ["keep"]


def keep(path: str, module: str, arguments: Sequence[str], goals: Iterable[Verdict], **facts: Any) -> None:
    """Writes the command, the facts and what became of the goals to a file."""
    record = {
        "command": shlex.join(["python", "-m", module, *arguments]),
        **facts,
        "goals": [verdict.to_dict() for verdict in goals],
    }
    with open(path, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)
        file.write("\n")
