"""What one attempt of a task works with, made of what Metaflow tells of the task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from metaflow.flowspec import FlowSpec
from metaflow.metaflow_current import current

from .card import CardWriter
from .current_checkpoint import CurrentCheckpoint
from .options import Options
from .requirements import check_installed
from .scope import TaskIdentity, identify
from .session import Session
from .storage.place import place_of_attempt, place_of_origin

__all__ = ["session_of_attempt"]


def session_of_attempt(
    flow: FlowSpec,
    *,
    step: str,
    run_id: str,
    task_id: str,
    number: int,
    is_fallback: bool,
    ubf_context: Any,
    options: Options,
    task_datastore: Any,
    inputs: Any,
    log: Callable[[str], None],
) -> Session:
    """Return the session of an attempt; ``current.checkpoint`` is its face from here on.

    A fallback of @catch needs neither a checkpoint nor the packages. Raises
    CheckpointException if one of these is missing.
    """
    if not is_fallback:
        check_installed(step, task_datastore.TYPE)
    identity = identify(
        flow, current, step=step, run_id=run_id, task_id=task_id, attempt=number, ubf_context=ubf_context
    )
    session = Session(
        flow,
        identity=identity,
        options=options,
        place=place_of_attempt(task_datastore, log),
        origin=place_of_origin(inputs, log),
        log=log,
        card=None if is_fallback else _card(options, identity, task_datastore, log),
    )
    current._update_env(  # type: ignore[no-untyped-call]  # Metaflow's
        {"checkpoint": CurrentCheckpoint(session)}
    )
    return session


def _card(
    options: Options, identity: TaskIdentity, task_datastore: Any, log: Callable[[str], None]
) -> CardWriter | None:
    # A spin that persists nothing has no place in which a card could be looked for.
    is_kept = getattr(task_datastore, "_persist", True)
    if not (options.show_card and identity.is_control and is_kept):
        return None
    return CardWriter(task_datastore._storage_impl, identity.pathspec, log=log)
