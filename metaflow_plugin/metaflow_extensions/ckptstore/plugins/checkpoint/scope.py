"""Which line of checkpoints a task continues, and who it is.

A line is one collection of the store: ``flow/step/scope/index``.

- *scope* is made of the run's ``checkpoint:`` tags, if it was started with any:
  ``checkpoint:a+b``, sorted. Else it is the @project branch, or the identity of
  whoever runs the flow: ``project:fraud:user.ada``, ``user:ada``,
  ``production:token``. Neither other tags nor the namespace that the client is
  set to (``namespace(None)``, ``--namespace``) change it.
- *index* is the way through the foreach nesting by positions, never by values:
  ``_`` outside a foreach, ``3`` in its fourth branch, ``3.0`` one level deeper.
  So equal or unprintable values are told apart. A step that goes back to itself
  adds its iteration: ``i2``, ``3.i2``. In a @parallel step the last position is
  the rank; what one rank saves for all is in ``shared``, ``3.shared``.

A part that is too long for a key keeps its beginning, and a digest of all of it
follows behind a ``~``, which is in no other part.

The run and the task are not part of the line, they are in each checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from metaflow.unbounded_foreach import UBF_CONTROL, UBF_TASK

from .errors import CheckpointArgumentError

__all__ = [
    "NO_INDEX",
    "TaskIdentity",
    "identify",
    "index_path",
    "is_shared",
    "line",
    "namespace_scope",
    "parse_pathspec",
    "shared_index_path",
]

NO_INDEX = "_"
SHARED = "shared"
TAG_PREFIX = "checkpoint:"

# Neither "," nor "=": Metaflow takes the arguments of `--with` apart at these.
_PLAIN_IN_SCOPE = ":@!()' "

# What each part may take of the 255 bytes that a key has for a line, "/" being 3 of them.
_MAX_BYTES = {"flow": 84, "step": 60, "scope": 68, "index": 34}
_CUT = "~"
_DIGEST_DIGITS = 20


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
    shared_index: str | None = None
    """Where one rank of a @parallel step saves for all; None for the tasks of other steps."""
    origin_run_id: str | None = None
    """The run that this one resumes."""
    is_control: bool = True
    """Whether it speaks for its step, as all tasks do but the workers of a @parallel step."""

    @property
    def collection(self) -> str:
        return line(self.flow, self.step, self.scope, self.index)

    @property
    def shared_collection(self) -> str | None:
        """The line of what one rank of a @parallel step saved for all."""
        if self.shared_index is None:
            return None
        return line(self.flow, self.step, self.scope, self.shared_index)

    @property
    def indexes(self) -> tuple[str, ...]:
        """Its own, then the one that it shares with other ranks."""
        return (self.index,) if self.shared_index is None else (self.index, self.shared_index)

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines that this task reads: its own, then the one that it shares with other ranks."""
        return tuple(line(self.flow, self.step, self.scope, index) for index in self.indexes)

    def line_to_save(self, shared: bool) -> str:
        """Return the line of a save. Raises CheckpointArgumentError for what only a @parallel step can do."""
        return self.lines[self._place_in_lines(shared)]

    def lines_listed(self, shared: bool | None) -> tuple[str, ...]:
        """Return the lines of a listing: one, or all if that is None. Raises as ``line_to_save``."""
        return self.lines if shared is None else (self.lines[self._place_in_lines(shared)],)

    def _place_in_lines(self, shared: bool) -> int:
        if not isinstance(shared, bool):
            raise CheckpointArgumentError(f"shared must be True or False, not {shared!r}.")
        if shared and self.shared_index is None:
            raise CheckpointArgumentError(
                f"shared=True is for the ranks of a @parallel step, and {self.step!r} is none: its tasks share "
                "nothing. Leave it out."
            )
        return int(shared)

    def in_scope(self, scope: str) -> TaskIdentity:
        """Return the same task as it would be in another scope."""
        return replace(self, scope=scope)

    @property
    def run(self) -> str:
        """Who writes, as the store's keys name it: within a line, a run has one task of all attempts."""
        return self.run_id

    @property
    def pathspec(self) -> str:
        return f"{self.flow}/{self.run_id}/{self.step}/{self.task_id}"


def identify(
    flow: Any, current: Any, *, step: str, run_id: str, task_id: str, attempt: int, ubf_context: str | None
) -> TaskIdentity:
    """Return who a task is by what its process knows: the flow, and Metaflow's ``current``.

    It asks no metadata service. ``current.tags`` are the tags that the run was
    started with: those that are added to it later are not seen.
    """
    stack = getattr(flow, "_foreach_stack", None) or ()
    return TaskIdentity(
        flow=flow.name,
        run_id=run_id,
        step=step,
        task_id=task_id,
        attempt=attempt,
        scope=namespace_scope(
            current.namespace,
            project=current.get("project_name"),
            branch=current.get("branch_name"),
            tags=current.get("tags") or (),
        ),
        index=index_path(stack, getattr(flow, "_iteration_stack", None) or ()),
        shared_index=shared_index_path(stack) if ubf_context in (UBF_CONTROL, UBF_TASK) else None,
        origin_run_id=current.get("origin_run_id"),
        is_control=ubf_context != UBF_TASK,
    )


def line(flow: str, step: str, scope: str, index: str) -> str:
    """Return the name of a line, which is a collection of the store; different lines never share one."""
    parts = {"flow": flow, "step": step, "scope": scope, "index": index}
    return "/".join(_fitted(part, _MAX_BYTES[kind]) for kind, part in parts.items())


def namespace_scope(
    namespace: str, *, project: str | None = None, branch: str | None = None, tags: Iterable[str] = ()
) -> str:
    """Return the scope as one part of a line's name; different scopes never share one."""
    names = sorted({tag.removeprefix(TAG_PREFIX) for tag in tags if tag.startswith(TAG_PREFIX)})
    if names:
        return TAG_PREFIX + "+".join(map(_quoted, names))
    return _quoted(f"project:{project}:{branch}" if project else namespace)


def index_path(foreach_stack: Iterable[Any], iterations: Iterable[int] = ()) -> str:
    """Return the positions in the foreach nesting, outermost first, and the iteration.

    The control task of a @parallel step has no position of its own and is rank 0.
    """
    positions = [str(frame.index or 0) for frame in foreach_stack]
    return ".".join([*positions, *(f"i{iteration}" for iteration in iterations)]) or NO_INDEX


def shared_index_path(foreach_stack: Iterable[Any]) -> str:
    """Return the index that stands for all ranks of a @parallel step."""
    positions = [str(frame.index or 0) for frame in foreach_stack]
    return ".".join([*positions[:-1], SHARED])


def is_shared(collection: str) -> bool:
    """Return whether this is the line that the ranks of a @parallel step share."""
    return collection.rpartition("/")[2].rpartition(".")[2] == SHARED


def parse_pathspec(task: object) -> tuple[str, str, str, str]:
    """Return flow, run, step and task id of a Metaflow Task or its pathspec."""
    pathspec = getattr(task, "pathspec", task)
    parts = pathspec.split("/") if isinstance(pathspec, str) else []
    if len(parts) != 4 or not all(parts):
        raise CheckpointArgumentError(
            f"task must be a Task or its pathspec 'Flow/run_id/step/task_id', not {task!r}."
        )
    return parts[0], parts[1], parts[2], parts[3]


def _quoted(text: str) -> str:
    # quote() lets "~" stand, which marks what was cut.
    return quote(text, safe=_PLAIN_IN_SCOPE).replace(_CUT, "%7E")


def _fitted(part: str, max_bytes: int) -> str:
    if sum(map(_key_bytes, part)) <= max_bytes:
        return part
    left = max_bytes - _key_bytes(_CUT) - _DIGEST_DIGITS
    kept = ""
    for char in part:
        left -= _key_bytes(char)
        if left < 0:
            break
        kept += char
    return kept + _CUT + hashlib.sha256(part.encode()).hexdigest()[:_DIGEST_DIGITS]


def _key_bytes(char: str) -> int:
    """Return what a character takes in a key: letters in upper case twice, others three times a byte."""
    if char.isascii() and (char.islower() or char.isdigit() or char in "._-"):
        return 1
    return 2 if char.isascii() and char.isupper() else 3 * len(char.encode())
