"""Which line of checkpoints a task continues, and who it is.

A line is one collection of the store: ``flow/step/scope/index``.

- *scope* is the @project branch, or else the namespace of whoever runs the flow:
  ``project:fraud:user.ada``, ``user:ada``, ``production:token``. It does not
  depend on tags, nor on the namespace that the client is set to.
- *index* is the way through the foreach nesting by positions, never by values:
  ``_`` outside a foreach, ``3`` in its fourth branch, ``3.0`` one level deeper.
  So equal or unprintable values are told apart.

The run and the task are not part of the line, they are in each checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from .errors import CheckpointArgumentError

__all__ = ["NO_INDEX", "TaskIdentity", "index_path", "namespace_scope", "parse_pathspec"]

NO_INDEX = "_"


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """One attempt of one task, and the line of checkpoints it continues."""

    flow: str
    run_id: str
    step: str
    task_id: str
    attempt: int
    scope: str
    index: str

    @property
    def collection(self) -> str:
        return f"{self.flow}/{self.step}/{self.scope}/{self.index}"

    @property
    def run(self) -> str:
        """Who writes, as the store's keys name it: within a line, a run has one task of all attempts."""
        return self.run_id

    @property
    def pathspec(self) -> str:
        return f"{self.flow}/{self.run_id}/{self.step}/{self.task_id}"


def namespace_scope(namespace: str, project: str | None, branch: str | None) -> str:
    """Return the scope as one part of a collection's name; different scopes never share one."""
    scope = f"project:{project}:{branch}" if project else namespace
    return quote(scope, safe=":@+=,!()' ")


def index_path(foreach_stack: Iterable[Any]) -> str:
    """Return the positions in the foreach nesting, outermost first.

    The control task of a @parallel step has no position of its own and is rank 0.
    """
    return ".".join(str(frame.index or 0) for frame in foreach_stack) or NO_INDEX


def parse_pathspec(task: object) -> tuple[str, str, str, str]:
    """Return flow, run, step and task id of a Metaflow Task or its pathspec."""
    pathspec = getattr(task, "pathspec", task)
    parts = pathspec.split("/") if isinstance(pathspec, str) else []
    if len(parts) != 4 or not all(parts):
        raise CheckpointArgumentError(
            f"task must be a Task or its pathspec 'Flow/run_id/step/task_id', not {task!r}."
        )
    return parts[0], parts[1], parts[2], parts[3]
