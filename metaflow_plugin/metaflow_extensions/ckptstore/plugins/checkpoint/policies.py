"""Which checkpoint a task starts from: the load policies."""

from __future__ import annotations

import contextlib

import ckptstore
from ckptstore.errors import StoreNotFoundError

from .scope import TaskIdentity
from .stores import Stores

__all__ = ["find_start"]


def find_start(policy: str, identity: TaskIdentity, stores: Stores) -> ckptstore.Checkpoint | None:
    """Return the checkpoint that this attempt starts from, or None.

    ``fresh``: the newest that an earlier attempt of this very task wrote;
    ``eager``: the newest of this step and foreach branch in the namespace, of
    any run; ``none``: none. Those saved with ``latest=False`` never count.

    A retry opens its line now, so that whatever it saves sorts above all that
    its predecessor saves: Metaflow may have given that up while it still runs.
    """
    if identity.attempt > 0:
        with contextlib.suppress(StoreNotFoundError):
            stores.own(create=False).begin(identity.collection)
    if policy == "none" or (policy == "fresh" and identity.attempt == 0):
        return None
    run = identity.run if policy == "fresh" else None
    found = (
        checkpoint
        for checkpoint in stores.list_own(identity.collection, run=run)
        if checkpoint.attributes.get("latest") is True
    )
    return next(found, None)
