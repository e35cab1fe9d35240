"""What the client knows of other runs, for what a task cannot know by itself; nothing here is asked at every start."""

from __future__ import annotations

import itertools
from typing import Any

from metaflow.exception import MetaflowNotFound

from ..task_lines import lines_of

__all__ = ["origin_of", "scope_of", "some_task"]

_ASKED = 8
"""Tasks that are asked at most: only one that was killed in its first moment has no note of its lines."""


def some_task(flow: str, run_id: str, step: str) -> Any:
    """Return a Metaflow Task of a run's step, one that noted its lines if there is one; None if it has no task."""
    from metaflow.client.core import Step

    try:
        tasks = list(itertools.islice(Step(f"{flow}/{run_id}/{step}", _namespace_check=False), _ASKED))
    except MetaflowNotFound:
        return None
    return next(filter(lines_of, tasks), tasks[0] if tasks else None)


def scope_of(task: Any) -> str | None:
    """Return the scope in which a Metaflow Task ran, None if it did not note its lines."""
    lines = lines_of(task)
    return lines[0].split("/")[2] if lines else None


def origin_of(flow: str, run_id: str) -> str | None:
    """Return the run that a run resumed, or None."""
    from metaflow.client.core import Run

    try:
        run = Run(f"{flow}/{run_id}", _namespace_check=False)
    except MetaflowNotFound:
        return None
    # Every task that was run or taken over in a resumed run has noted it, as "None" in another run.
    for step in run:
        if step.task is not None:
            origin = step.task.metadata_dict.get("origin-run-id")
            return None if origin == "None" else origin
    return None
