"""A start that ``load_policy`` names: a checkpoint, or the newest of a run or of a task, wherever it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ckptstore
from ckptstore.errors import CheckpointDeletedError, NotFoundError, StoreNotFoundError

from ..errors import CheckpointException
from ..scope import TaskIdentity, line, parse_pathspec
from ..storage.stores import Stores
from ..task_lines import known_task, lines_of
from .policies import OfKey, OfRun, OfTask, newest_of
from .runs import scope_of, some_task

__all__ = ["find_given"]

Found = tuple[ckptstore.Checkpoint, str | None]
"""A checkpoint, and where it is if that is not the task's own store."""


def find_given(policy: OfKey | OfRun | OfTask, identity: TaskIdentity, stores: Stores) -> Found:
    """Return what is named. Raises CheckpointException if it is not there: no start from nothing for that.

    The client is asked only for what the task's own store does not have.
    """
    if isinstance(policy, OfKey):
        return _of_key(policy.ref, stores)
    if isinstance(policy, OfRun):
        return _of_run(policy.flow, policy.run_id, identity, stores)
    return _of_task(policy.pathspec, identity, stores)


def _of_key(wanted: ckptstore.CheckpointRef, stores: Stores) -> Found:
    flow, _, rest = wanted.collection.partition("/")
    step = rest.partition("/")[0]
    reason = "it is neither in the task's own store nor in that of the run that saved it"
    for store, url in _places(stores, lambda: some_task(flow, wanted.run or "", step)):
        ref = ckptstore.CheckpointRef(store.store_id, wanted.collection, wanted.name, wanted.digest)
        try:
            return store.inspect(ref).checkpoint, url
        except CheckpointDeletedError:
            reason = "it was deleted (current.checkpoint.undelete brings it back for some hours)"
        except NotFoundError:
            pass
    raise CheckpointException(f"load_policy names a checkpoint that cannot be had: {reason}. It is {wanted}.")


def _of_run(flow: str, run_id: str, identity: TaskIdentity, stores: Stores) -> Found:
    def lines(scope: str) -> list[str]:
        return [line(flow, identity.step, scope, index) for index in identity.indexes]

    looked = lines(identity.scope)
    found = _newest(stores.list_own(one, run=run_id) for one in looked)
    if found is not None:
        return found, None
    task = some_task(flow, run_id, identity.step)
    scope = None if task is None else scope_of(task)
    looked = looked if scope is None else lines(scope)
    for store, url in _places(stores, lambda: task):
        found = _newest(store.list(one, run=run_id) for one in looked)
        if found is not None:
            return found, url
    raise CheckpointException(
        f"load_policy names run {flow}/{run_id}, which saved no checkpoint for step {identity.step!r} and "
        f"index {identity.index!r}, or only with latest=False (looked for {' and '.join(looked)})."
    )


def _of_task(pathspec: str, identity: TaskIdentity, stores: Stores) -> Found:
    flow, run_id, step, _ = parse_pathspec(pathspec)
    task = known_task(pathspec)
    noted: Sequence[str] = () if task is None else lines_of(task)
    looked = noted or [line(flow, step, identity.scope, index) for index in identity.indexes]
    for store, url in _places(stores, lambda: task):
        found = _newest(
            (one for one in store.list(at, run=run_id) if one.attributes.get("pathspec") == pathspec)
            for at in looked
        )
        if found is not None:
            return found, url
    raise CheckpointException(
        f"load_policy names task {pathspec}, which saved no checkpoint, or only with latest=False "
        f"(looked for {' and '.join(looked)})."
    )


def _newest(lines: Iterable[Iterable[ckptstore.Checkpoint]]) -> ckptstore.Checkpoint | None:
    return next((found for one in lines if (found := newest_of(one)) is not None), None)


def _places(
    stores: Stores, task: Callable[[], Any]
) -> Iterator[tuple[ckptstore.CheckpointStore, str | None]]:
    """Yield the task's own store, then that of another task, which is asked for when it is needed."""
    with contextlib.suppress(StoreNotFoundError):
        yield stores.own(create=False), None
    elsewhere = stores.of_task(task())
    if elsewhere is not None:
        yield elsewhere
