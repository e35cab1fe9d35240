"""``current.checkpoint``: what a step says to save its state and to get it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Metaflow's generator of stubs keeps the parameters of these, and drops those of `list` and collections.abc.
from typing import Any, Dict, Iterable, List, TypeVar, overload  # noqa: UP035

import ckptstore

from .artifact import CheckpointArtifact, format_key
from .cadence import Every
from .destination import Destination
from .errors import CheckpointException
from .loops.loop import Loop, LoopMetadata
from .reference import Reference
from .save_arguments import StrPath, check_save, check_storage_format, name_and_path
from .session import Session

__all__ = ["DEFAULT_NAME", "CurrentCheckpoint"]

DEFAULT_NAME = "mfchckpt"

T = TypeVar("T")


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

    @property
    def directory(self) -> str:
        """A private temporary directory whose files are saved with the attributes.

        It is made when this is first used, with the files of the checkpoint
        that was last loaded, or else of the one that was found at the task's
        start; ``load()`` need not have been called. Its path stays the same
        until the task ends, which removes it. Nothing in it is shared with the
        store: what is overwritten here stays as it is in older checkpoints.

        Raises CheckpointException if it cannot be made or the files are not
        sound, and the store's errors if they cannot be loaded.
        """
        return self._session.files.directory

    @property
    def preempted(self) -> bool:
        """Whether the machine is about to go away: Metaflow's notice came, or SIGTERM where it is heard."""
        return self._session.preemption.is_noticed

    @overload
    def save(
        self,
        name_or_path: StrPath | None = None,
        /,
        metadata: Mapping[str, Any] | None = None,
        latest: bool | None = None,
        storage_format: str | None = None,
        *,
        name: str | None = None,
        path: StrPath | None = None,
        wait: bool | None = None,
        shared: bool = False,
        every: None = None,
    ) -> CheckpointArtifact: ...
    @overload
    def save(
        self,
        name_or_path: StrPath | None = None,
        /,
        metadata: Mapping[str, Any] | None = None,
        latest: bool | None = None,
        storage_format: str | None = None,
        *,
        name: str | None = None,
        path: StrPath | None = None,
        wait: bool | None = None,
        shared: bool = False,
        every: Every,
    ) -> CheckpointArtifact | None: ...
    def save(
        self,
        name_or_path: StrPath | None = None,
        /,
        metadata: Mapping[str, Any] | None = None,
        latest: bool | None = None,
        storage_format: str | None = None,
        *,
        name: str | None = None,
        path: StrPath | None = None,
        wait: bool | None = None,
        shared: bool = False,
        every: Every | None = None,
    ) -> Any:  # Metaflow's stubs have only this signature: None there would make every plain save doubtful
        """Save the step's attributes and files, and return the checkpoint's artifact.

        ``name`` is any text (``mfchckpt`` if not given), ``metadata`` plain
        values to note with it. With ``latest=False`` it is saved and listed but
        never chosen at a task's start. So it is by default in the body of a
        ``loop``, whose own saves are what a task goes on from; with
        ``latest=True`` there the iteration that is under way begins again with
        the attributes as they are now. ``wait=True`` returns when it is
        durable, ``wait=False`` when all is captured: attributes and files may
        then be changed at once, and the end of the step waits for the rest. The
        default is what ``@checkpoint`` says (``background``).

        The files are those of ``directory``, if it was used; with ``path``
        instead those of that directory, or that one file, which is then what
        ``directory`` begins with. They are read into memory for the time of the
        save, all of them each time. The first argument is the name, or a path
        if it is a path object, if ``name`` is given too, or if it starts with
        ``/``, ``./`` or ``../``.

        In a @parallel step every rank has a line of its own; with
        ``shared=True`` this rank saves its state for all: at its start, a rank
        that has nothing of its own finds the newest of these, whatever its
        time. Where all ranks must go on from one state, save nothing else.

        ``every`` makes a call cheap that is made often: a count saves at each
        so many-th call, a duration such as ``"30 s"``, ``"5 min"`` or ``"1 h"``
        when that long has passed since the call's last save, at first since its
        first call. Any other call returns None at once, and so does one that
        would have to wait for a background save unless ``wait=True``: the next
        one saves then. Calls are told apart by name and ``every``. After a notice
        that the machine goes away the next one saves.

        ``storage_format`` is there for calls that were written for
        metaflow-checkpoint: its formats are accepted, and the log says that
        there is one format here.

        Raises CheckpointArgumentError for a wrong argument, CheckpointException
        if nothing or not all of ``include`` is set, or for a file that cannot
        be saved or does not stop changing, UnserializableError
        naming the path of a value that cannot be saved, ckptstore.errors.BackendError
        when the storage fails, and the error of an earlier background save.
        """
        session = self._session
        occasion, is_due = None, True
        if every is not None:
            occasion = session.recurring.occasion((name_or_path, name, path), every)
            is_new = occasion.is_new
            is_due = occasion.comes(is_preempted=self.preempted)
            # The first call is checked though it does not save: wrong arguments are told then.
            if not is_due and not is_new:
                return None
        name, files = name_and_path(
            name_or_path, name=name, path=path, default=DEFAULT_NAME, log=session.files.tell_once
        )
        check_save(name, metadata, latest, wait)
        check_storage_format(storage_format, session.files.tell_once)
        wait = not session.options.background if wait is None else wait
        if not is_due or (occasion is not None and not wait and session.saver.is_saving):
            return None
        artifact = session.saver.save(
            name, metadata=metadata, latest=latest, wait=wait, path=files, shared=shared
        )
        if occasion is not None:
            occasion.saved(is_preempted=self.preempted)
        return artifact

    def loop(
        self,
        iterable: Iterable[T],
        *,
        every: Every = 1,
        name: str | None = None,
        metadata: LoopMetadata | None = None,
        wait: bool = False,
    ) -> Loop[T]:
        """Return the iterable for a ``for`` that goes on where an earlier attempt was, with its attributes.

        ``for self.epoch in current.checkpoint.loop(range(10)):`` is all it takes.
        When the ``for`` begins, the checkpoint that was found at the task's
        start is restored (not again if ``load()`` was called before it) and what
        it had finished is skipped. Between two iterations the attributes are
        saved together with the number of finished iterations: ``every`` so many,
        or when so long has passed (``"5 min"``) since a loop last saved; and at
        the loop's end, also by ``break``. After a kill everything since the last
        save is done again, on the attributes as they were then; after an
        exception too, as attributes that may be half changed are not saved.

        ``iterable``: a sequence is read from where it goes on, anything else
        iterated up to there; its order must be the same in all attempts. It may
        be longer or shorter than before. ``name`` names the checkpoints, and the
        loop: one of several without a name is known by its number. A loop in
        another's body is restored with it. ``metadata``: plain values to note
        with each save, or a function that returns them. With ``wait=False`` the
        saves go on in the background; one that is due while another is in
        flight comes after the next iteration. With ``wait=True`` none is put
        off. After a notice that the machine goes away the next save is made
        after the iteration that is under way, and waited for.

        Raises CheckpointArgumentError for a wrong argument; the ``for`` raises
        what ``load`` and ``save`` do.
        """
        label = DEFAULT_NAME if name is None else name
        return self._session.loops.make(
            iterable, every=every, name=name, label=label, metadata=metadata, wait=wait
        )

    def mark(self, name: str = DEFAULT_NAME, metadata: Mapping[str, Any] | None = None) -> None:
        """Say that the attributes and files are consistent now, and hold a copy of them in memory.

        It replaces the mark before it and stores nothing. Where
        ``@checkpoint(on_preemption="save")`` is set, the last mark is saved when
        the machine is about to go away, unless what was saved since is newer;
        an attempt that starts from it begins with what was marked, whatever the
        attributes were in that moment.

        Raises as ``save`` does, for what concerns the arguments and the attributes.
        """
        check_save(name, metadata, True, None)
        self._session.marks.take(name, metadata)
        self._session.preemption.marked()

    def load(
        self,
        reference: Reference | None = None,
        *,
        fields: Sequence[str] | None = None,
        into: Mapping[str, Any] | None = None,
        inplace: bool = False,
        device: str | None = None,
    ) -> None:
        """Set the attributes that a checkpoint holds on ``self``, and its files: all of it or nothing.

        ``reference`` is an artifact, its dict or its key; without one it is the
        checkpoint found at the task's start. ``fields``: only attributes of
        these names; what they share with others comes along inside them.
        Attributes that the checkpoint does not hold stay as they are. Without
        ``fields``, ``directory`` gets the checkpoint's files and no others, at
        once if it is in use, else when it first is; if the checkpoint was saved
        without a directory, it stays as it is. What is pickled in it is
        trusted, as Metaflow trusts its artifacts.

        ``into``: what takes the values of some attributes instead of new
        objects, by their names, such as ``into={"model": self.model}``: arrays,
        tensors, torch modules, and dicts and lists of these, of the same shapes
        and dtypes. They stay the objects that they are, on their device, and
        are what ``self`` has under these names afterwards. Nothing of them
        changes unless all is verified and fits. An attribute that shares
        objects with one of them, as an optimizer does with its model, must be
        there too, or left out by ``fields``: save ``optimizer.state_dict()`` to
        go on with the optimizer that you have. ``inplace=True`` decodes right
        into arrays on the CPU and takes no memory beside them: an error while
        data is read leaves their content undefined. ``device``: where tensors
        go that were saved from another device than the CPU and are not in
        ``into``; None is the CPU, "saved" for each the device that it was on.

        Raises CheckpointException if none was found at the start, if a field
        would have to replace a parameter, a property or a step, or if the
        checkpoint holds no field of a name; the store's errors if it is gone or
        damaged, DestinationError naming all of ``into`` that does not fit.
        ``self`` is untouched then; but what is in ``into`` was filled already if
        at the end a serializer of Metaflow's fails, or the files cannot be moved in.
        """
        destination = Destination(into=into, inplace=inplace, device=device)
        self._session.restore(self._meant(reference), fields, destination)

    def handle(
        self,
        reference: Reference | None = None,
        *,
        fields: Sequence[str] | None = None,
        device: str | None = None,
    ) -> ckptstore.CheckpointHandle:
        """Open a checkpoint to look around in it, and to load single arrays and tensors of its attributes.

        ``handle()["model"]["layers.0.weight"].load()`` reads the data of this
        one. It serves until the task ends. The arguments are those of ``load``;
        files are not in it, nor what a serializer of Metaflow's made. Raises as ``load``.
        """
        meant = self._meant(reference)
        return self._session.library.handle(meant, fields=fields, trusted=True, device=device)

    def inspect(self, reference: Reference | None = None) -> Dict[str, Any]:  # noqa: UP006
        """Return what a checkpoint holds, without reading its data.

        The mapping has ``version`` and ``fields``: name to a mapping with
        ``type``, ``format`` (``tree`` is plain data, ``pickle`` is not),
        ``bytes``, ``stored_bytes``, ``new_bytes``, ``globals`` (what a pickled
        part imports) and ``leaves`` (arrays and tensors with path, dtype, shape
        and bytes); and ``files``: relative path to a mapping with ``bytes``,
        ``stored_bytes``, ``new_bytes``, ``mode`` and ``link`` (where a link
        leads to, None for a file). Raises as ``load`` does.
        """
        return self._session.library.inspect(self._meant(reference))

    def list(
        self,
        name: str | None = None,
        task: object = None,
        attempt: int | None = None,
        full_namespace: bool = False,
        *,
        shared: bool | None = None,
    ) -> List[CheckpointArtifact]:  # noqa: UP006
        """Return checkpoints, newest first in the store's own order.

        Without arguments those of this task, of every attempt. ``name`` and
        ``attempt`` narrow that; ``task`` (a Task, also one that still runs, a
        Step, a Run or a pathspec of one) asks for those of other tasks;
        ``full_namespace=True`` for all of this step and foreach branch in the
        namespace, of every run. Between tasks the writers' clocks decide.

        In a @parallel step those of this rank come first, then what any rank
        saved with ``shared=True`` (``artifact.shared``), each newest first;
        ``shared`` narrows it to the one or the other.
        """
        session = self._session
        return session.library.listed(
            session.identity,
            name=name,
            task=task,
            attempt=attempt,
            full_namespace=full_namespace,
            shared=shared,
        )

    def diff(self, a: Reference, b: Reference) -> ckptstore.Diff:
        """Return what changed from checkpoint ``a`` to ``b``: exactly, and almost without reading data.

        Print it, or look at its ``fields``: each with its state (``added``,
        ``removed``, ``changed``, ``same``), its sizes and its arrays and
        tensors. Raises as ``load`` does.
        """
        return self._session.library.diff(a, b)

    def delete(self, reference: Reference) -> None:
        """Make a checkpoint invisible: it is not listed, found or loaded any more.

        Its data stays for the store's grace (a day); until half of that
        ``undelete`` brings it back. Idempotent. Raises as ``load`` does.
        """
        ref = self._session.library.delete(reference)
        self._session.board.deleted(format_key(ref))

    def undelete(self, reference: Reference) -> None:
        """Bring a deleted checkpoint back. Idempotent.

        Raises ckptstore.errors.CheckpointDeletedError if it is too late.
        """
        ref = self._session.library.undelete(reference)
        self._session.board.undeleted(format_key(ref))

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
