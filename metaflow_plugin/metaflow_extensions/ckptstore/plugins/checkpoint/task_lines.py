"""Where the checkpoints of a task are, as noted in its metadata: no listing of a whole store is needed to find them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from metaflow.exception import MetaflowException, MetaflowNotFound
from metaflow.metadata_provider.metadata import MetaDatum

from .errors import CheckpointArgumentError
from .scope import TaskIdentity

__all__ = ["known_task", "lines_of", "note_lines", "tasks_of"]


_FIELD = "checkpoint-lines"


def note_lines(metadata: Any, identity: TaskIdentity) -> None:
    """Note the task's lines with its metadata, given Metaflow's metadata provider."""
    datum = MetaDatum(
        field=_FIELD,
        value=json.dumps(identity.lines),
        type=_FIELD,
        tags=[f"attempt_id:{identity.attempt}"],
    )
    metadata.register_metadata(identity.run_id, identity.step, identity.task_id, [datum])


def lines_of(task: Any) -> tuple[str, ...]:
    """Return the lines that a Metaflow Task noted, none if it ran without @checkpoint."""
    noted = task.metadata_dict.get(_FIELD)
    return () if noted is None else tuple(json.loads(noted))


def known_task(task: object) -> Any:
    """Return the Metaflow Task of a Task or its pathspec, of any namespace; None if the client knows none."""
    from metaflow.client.core import Task

    if isinstance(task, Task):
        return task
    with contextlib.suppress(MetaflowNotFound):
        return Task(str(task), _namespace_check=False)
    return None


def tasks_of(what: object) -> Iterator[object]:
    """Yield the tasks that a Run or a Step has so far, or else the task that a Task or a pathspec names.

    Raises CheckpointArgumentError for anything else, and if there is no such run or step.
    """
    from metaflow.client.core import Run, Step

    pathspec: Any = getattr(what, "pathspec", what)
    parts = pathspec.split("/") if isinstance(pathspec, str) else []
    if not 2 <= len(parts) <= 4 or not all(parts):
        raise CheckpointArgumentError(
            "task must be a Task, a Step, a Run or a pathspec such as 'Flow/run_id/step/task_id', "
            f"not {what!r}."
        )
    if len(parts) == 4:
        yield what
        return
    try:
        one_step = len(parts) == 3
        steps = (
            [Step(pathspec, _namespace_check=False)] if one_step else Run(pathspec, _namespace_check=False)
        )
    except MetaflowException as error:
        raise CheckpointArgumentError(
            f"there is no {pathspec}: {error}. A task's pathspec is 'Flow/run_id/step/task_id'."
        ) from error
    for step in steps:
        yield from step
