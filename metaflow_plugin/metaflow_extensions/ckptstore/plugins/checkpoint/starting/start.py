"""The checkpoint that an attempt starts from: where its load policy says to look, in the store and beyond."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import ckptstore
from ckptstore.errors import StoreNotFoundError

from ..scope import TaskIdentity
from ..storage.stores import Stores
from .given import find_given
from .policies import (
    Best,
    Lookup,
    OfKey,
    OfRun,
    OfTask,
    Policy,
    best_of,
    newest_of,
    origin_lookups,
    parse_policy,
    plan,
)
from .runs import origin_of, scope_of, some_task

__all__ = ["Start", "find_start"]


@dataclass(frozen=True, slots=True)
class Start:
    """What was found, if anything, and what it is or where it was looked for, for people."""

    checkpoint: ckptstore.Checkpoint | None
    what: str
    store_url: str | None = None
    """Where it is, if not in the task's own store."""


def find_start(
    policy_text: str, identity: TaskIdentity, stores: Stores, *, log: Callable[[str], None]
) -> Start:
    """Return the checkpoint that this attempt starts from.

    ``fresh``: the newest that an earlier attempt of this very task wrote; in a
    resumed run, if there is none, the newest that this very task wrote in the
    run that it resumes, or in the one that that run resumed, and so on.
    ``eager``: the newest of this step and foreach branch in the namespace, of
    any run. ``none``: none. ``best:<metric>``: the best of this step and branch
    in the namespace. What is given (a checkpoint, a run, a task): as ``fresh``,
    and where that finds nothing, the given one. In a @parallel step what the
    rank saved itself goes before what was shared. Those saved with
    ``latest=False`` are never chosen, unless one is given itself.

    Raises CheckpointException if what is given is not there; the store's errors
    if there is one that cannot be read: never a start from nothing for that.

    A retry opens its lines now, so that whatever it saves sorts above all that
    its predecessor saves: Metaflow may have given that up while it still runs.
    """
    if identity.attempt > 0:
        with contextlib.suppress(StoreNotFoundError):
            for collection in identity.lines:
                stores.own(create=False).begin(collection)
    policy = parse_policy(policy_text)
    if isinstance(policy, Best):
        return _best(policy, identity, stores)
    looked: list[str] = []
    for lookup in itertools.chain(plan(policy, identity), _origins(policy, identity, log)):
        looked.append(lookup.what)
        found = newest_of(stores.list_own(lookup.collection, run=lookup.run))
        if found is not None:
            return Start(found, f"the newest of {lookup.what}")
    if isinstance(policy, (OfKey, OfRun, OfTask)):
        given, store_url = find_given(policy, identity, stores)
        return Start(given, f"which load_policy names ({policy_text})", store_url)
    return Start(None, ", then ".join(looked))


def _best(policy: Best, identity: TaskIdentity, stores: Stores) -> Start:
    found = best_of((one for collection in identity.lines for one in stores.list_own(collection)), policy)
    which = f"the {'largest' if policy.maximize else 'smallest'} {policy.metric!r}"
    where = " and ".join(identity.lines)
    if found is None:
        return Start(None, f"one with a number for {policy.metric!r} in {where}")
    return Start(found, f"{which} of any run ({where}): {found.metadata[policy.metric]}")


def _origins(policy: Policy, identity: TaskIdentity, log: Callable[[str], None]) -> Iterator[Lookup]:
    """Yield where this very task may be in the runs that this one resumes, beyond its own line.

    The line of the run resumed first was looked through before. Only from here
    on the client is asked: a run may have run in another scope, and may itself
    be a resumed one. What the client fails with is only logged.
    """
    if policy in ("eager", "none") or identity.origin_run_id is None:
        return
    seen: set[str] = set()
    run_id: str | None = identity.origin_run_id
    while run_id is not None and run_id not in seen:
        if seen:
            yield from origin_lookups(identity, run_id)
        seen.add(run_id)
        try:
            task = some_task(identity.flow, run_id, identity.step)
            scope = None if task is None else scope_of(task)
            origin = origin_of(identity.flow, run_id)
        except Exception as error:  # noqa: BLE001  # the client's provider may raise anything
            log(f"cannot tell more of run {run_id}, which is resumed: {type(error).__name__}: {error}")
            return
        if scope is not None and scope != identity.scope:
            yield from origin_lookups(identity.in_scope(scope), run_id)
        run_id = origin
