"""``current.checkpoint``: what a step says to save its state and to get it back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from .artifact import CheckpointArtifact
from .errors import CheckpointArgumentError, CheckpointException
from .library import Reference, check_filters, choose_fields, of_attempt
from .saving import check_save
from .session import Session

__all__ = ["DEFAULT_NAME", "CurrentCheckpoint"]

DEFAULT_NAME = "mfchckpt"


class CurrentCheckpoint:
    """The checkpoints of the running task."""

    def __init__(self, session: Session) -> None:
        self._session = session

    @property
    def is_loaded(self) -> bool:
        """Whether a checkpoint was found for this task at its start; ``load()`` restores it."""
        return self._session.info is not None

    @property
    def info(self) -> CheckpointArtifact | None:
        """The checkpoint that was found at the task's start."""
        return self._session.info

    @property
    def task_identifier(self) -> str:
        """The line of checkpoints that this task continues: ``flow/step/scope/index``."""
        return self._session.identity.collection

    def save(
        self,
        name: str = DEFAULT_NAME,
        metadata: Mapping[str, Any] | None = None,
        latest: bool = True,
        *,
        wait: bool | None = None,
    ) -> CheckpointArtifact:
        """Save the step's attributes and return the checkpoint's artifact.

        ``name`` is any text, ``metadata`` plain values to note with it. With
        ``latest=False`` it is saved and listed but never chosen at a task's
        start. ``wait=True`` returns when it is durable, ``wait=False`` when all
        is captured: the attributes may then be changed at once, and the end of
        the step waits for the rest. The default is what ``@checkpoint`` says
        (``background``).

        Raises CheckpointArgumentError for a wrong argument, CheckpointException
        if nothing or not all of ``include`` is set, UnserializableError
        naming the path of a value that cannot be saved, ckptstore.errors.BackendError
        when the storage fails, and the error of an earlier background save.
        """
        check_save(name, metadata, latest, wait)
        wait = not self._session.options.background if wait is None else wait
        return self._session.saver.save(name, metadata=metadata, latest=latest, wait=wait)

    def load(self, reference: Reference | None = None, *, fields: Sequence[str] | None = None) -> None:
        """Set the attributes that a checkpoint holds on ``self``, all of them or none.

        ``reference`` is an artifact, its dict or its key; without one it is the
        checkpoint found at the task's start. ``fields``: only attributes of
        these names; what they share with others comes along inside them.
        Attributes that the checkpoint does not hold stay as they are. What is
        pickled in it is trusted, as Metaflow trusts its artifacts.

        Raises CheckpointException if none was found at the start, if a field
        would have to replace a parameter, a property or a step, or if the
        checkpoint holds no field of a name; the store's errors if it is gone or
        damaged. ``self`` is untouched then.
        """
        session = self._session
        store, ref = session.library.find(self._meant(reference))
        started = time.perf_counter()
        checkpoint = store.inspect(ref).checkpoint
        chosen = choose_fields(checkpoint, fields)
        session.state.check_restorable(chosen)
        session.state.restore(store.load(ref, fields=chosen, trusted=True))
        session.saver.parent = checkpoint.ref
        what = session.described(session.library.artifact(checkpoint))
        session.log(f"restored {what} in {time.perf_counter() - started:.2f} s: {', '.join(sorted(chosen))}")

    def inspect(self, reference: Reference | None = None) -> dict[str, Any]:
        """Return what a checkpoint holds, without reading its data.

        The mapping has ``version`` and ``fields``: name to a mapping with
        ``type``, ``format`` (``tree`` is plain data, ``pickle`` is not),
        ``bytes``, ``stored_bytes``, ``new_bytes``, ``globals`` (what a pickled
        part imports) and ``leaves`` (arrays and tensors with path, dtype, shape
        and bytes). Raises as ``load`` does.
        """
        return self._session.library.inspect(self._meant(reference))

    def list(
        self,
        name: str | None = None,
        task: object = None,
        attempt: int | None = None,
        full_namespace: bool = False,
    ) -> list[CheckpointArtifact]:
        """Return checkpoints, newest first in the store's own order.

        Without arguments those of this task, of every attempt. ``name`` and
        ``attempt`` narrow that; ``task`` (a Task or its pathspec, also one that
        still runs) asks for another task's; ``full_namespace=True`` for all of
        this step and foreach branch in the namespace, of every run.
        """
        check_filters(name, attempt)
        if task is not None and full_namespace:
            raise CheckpointArgumentError("task and full_namespace are mutually exclusive.")
        identity, library = self._session.identity, self._session.library
        if task is not None:
            found = library.of_task(task, name=name, scope=identity.scope)
        else:
            run = None if full_namespace else identity.run
            found = library.in_line(identity.collection, name=name, run=run)
        return of_attempt(found, attempt)

    def delete(self, reference: Reference) -> None:
        """Make a checkpoint invisible: it is not listed, found or loaded any more.

        Its data stays for the store's grace (a day); until half of that
        ``undelete`` brings it back. Idempotent. Raises as ``load`` does.
        """
        self._session.library.delete(reference)

    def undelete(self, reference: Reference) -> None:
        """Bring a deleted checkpoint back. Idempotent.

        Raises ckptstore.errors.CheckpointDeletedError if it is too late.
        """
        self._session.library.undelete(reference)

    def pin(self, reference: Reference) -> None:
        """Keep retention away from a checkpoint, whatever ``keep`` says. Idempotent. Raises as ``load`` does."""
        self._session.library.pin(reference)

    def unpin(self, reference: Reference) -> None:
        """Take the pin away. Idempotent. Raises as ``load`` does."""
        self._session.library.unpin(reference)

    def _meant(self, reference: Reference | None) -> Reference:
        if reference is not None:
            return reference
        if self._session.info is None:
            raise CheckpointException(
                "no checkpoint was found when this task started (current.checkpoint.is_loaded is "
                "False). Give one: an artifact, its dict or its key, from current.checkpoint.list()."
            )
        return self._session.info
