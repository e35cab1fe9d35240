"""The checkpoints of tasks, in whichever datastore they are."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import ckptstore

from .scope import NO_INDEX, line, parse_pathspec
from .storage.stores import Stores
from .task_lines import known_task, lines_of, tasks_of

__all__ = ["Found", "found_of_task", "found_of_tasks", "merged"]

Found = tuple[ckptstore.Checkpoint, str | None]
"""A checkpoint, and where it is if that is not the own store."""


def found_of_task(stores: Stores, task: object, *, name: str | None, scope: str | None) -> Sequence[Found]:
    """Return the checkpoints of a task, newest first, wherever its datastore is.

    ``task`` is a Task or its pathspec; ``scope`` is where it most likely ran.
    """
    flow, run_id, step, task_id = parse_pathspec(task)
    pathspec = "/".join((flow, run_id, step, task_id))

    def own(at: str | None) -> list[Found]:
        return [(one, None) for one in _of(pathspec, stores.list_own(at, label=name, run=run_id))]

    if scope is not None and (found := own(line(flow, step, scope, NO_INDEX))):
        return found
    known = known_task(task)
    lines: Sequence[str | None] = (None,) if known is None else lines_of(known)
    elsewhere = None if known is None else stores.of_task(known)
    if elsewhere is None:
        # Without a line, for a task that the client does not know, this goes through the whole store.
        listed = [own(one) for one in lines]
        if any(listed) or known is not None:
            return merged(listed)
        elsewhere = stores.of_task(task)
    if elsewhere is None:
        return []
    store, url = elsewhere
    return merged(
        [(one, url) for one in _of(pathspec, store.list(at, label=name, run=run_id))] for at in lines
    )


def found_of_tasks(stores: Stores, what: object, *, name: str | None, scope: str | None) -> Sequence[Found]:
    """Return the checkpoints of a task, of all tasks of a step or of a run, newest first.

    Those of one task are in the store's own order; only between tasks the
    writers' clocks decide. ``what`` is a Task, a Step, a Run or a pathspec.
    """
    return merged(found_of_task(stores, task, name=name, scope=scope) for task in tasks_of(what))


def merged(listed: Iterable[Sequence[Found]]) -> list[Found]:
    """Return what several lines or tasks have, newest first by their clocks; the order within each is kept."""
    dated: list[tuple[int, Found]] = []
    for one in listed:
        # None may pass a newer one of its own sequence, whatever its clock says.
        dates = itertools.accumulate((checkpoint.created_ns for checkpoint, _ in one), min)
        dated += zip(dates, one, strict=True)
    return [found for _, found in sorted(dated, key=lambda pair: pair[0], reverse=True)]


def _of(pathspec: str, found: Iterable[ckptstore.Checkpoint]) -> list[ckptstore.Checkpoint]:
    return [checkpoint for checkpoint in found if checkpoint.attributes.get("pathspec") == pathspec]
