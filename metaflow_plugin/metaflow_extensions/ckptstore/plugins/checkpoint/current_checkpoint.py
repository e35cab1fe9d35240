"""``current.checkpoint``: what a step says to save its state and to get it back."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metaflow.flowspec import FlowSpec

import ckptstore
from ckptstore.errors import StoreNotFoundError, UnserializableError

from .artifact import CheckpointArtifact, parse_key
from .errors import CheckpointArgumentError, CheckpointException
from .flow_state import FlowState
from .options import Options
from .place import Place
from .scope import NO_INDEX, TaskIdentity, parse_pathspec
from .stores import Stores

__all__ = ["DEFAULT_NAME", "CurrentCheckpoint"]

DEFAULT_NAME = "mfchckpt"
MANIFEST_VERSION = 1

Reference = CheckpointArtifact | Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class _Flight:
    """A background save that is under way."""

    artifact: CheckpointArtifact
    blocked_s: float


class CurrentCheckpoint:
    """The checkpoints of the running task.

    Created by the decorator. The store is opened when it is first needed, so a
    step that never uses this pays nothing.
    """

    def __init__(
        self,
        flow: FlowSpec,
        *,
        identity: TaskIdentity,
        options: Options,
        place: Place,
        log: Callable[[str], None],
    ) -> None:
        self._identity = identity
        self._background = options.background
        self._stores = Stores(place, log)
        self._log = log
        self._state = FlowState(flow, include=options.include, exclude=options.exclude, warn=log)
        self._flights: list[_Flight] = []
        self._info: CheckpointArtifact | None = None
        self._parent: ckptstore.CheckpointRef | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether a checkpoint was found for this task at its start; ``load()`` restores it."""
        return self._info is not None

    @property
    def info(self) -> CheckpointArtifact | None:
        """The checkpoint that was found at the task's start."""
        return self._info

    @property
    def task_identifier(self) -> str:
        """The line of checkpoints that this task continues: ``flow/step/scope/index``."""
        return self._identity.collection

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
        naming the path of a value that cannot be saved, ckptstore.BackendError
        when the storage fails, and the error of an earlier background save.
        """
        self._check_save(name, metadata, latest, wait)
        self._settle()
        request: dict[str, Any] = {
            "collection": self._identity.collection,
            "values": self._state.collect(),
            "label": name,
            "run": self._identity.run,
            "metadata": dict(metadata or {}),
            "attributes": {
                "pathspec": self._identity.pathspec,
                "attempt": self._identity.attempt,
                "latest": latest,
            },
            "parent": self._parent,
        }
        if self._background if wait is None else not wait:
            return self._save_in_background(name, request)
        started = time.perf_counter()
        with _attribute_paths():
            saved = self._stores.own(create=True).save(**request, wait=True)
        artifact = self._artifact(saved)
        self._log(_saved(artifact, f"{time.perf_counter() - started:.2f} s"))
        return artifact

    def load(self, reference: Reference | None = None) -> None:
        """Set the attributes that a checkpoint holds on ``self``, all of them or none.

        ``reference`` is an artifact, its dict or its key; without one it is the
        checkpoint found at the task's start. Attributes that the checkpoint
        does not hold stay as they are. What is pickled in it is trusted, as
        Metaflow trusts its artifacts.

        Raises CheckpointException if none was found at the start, or if a field
        would have to replace a parameter, a property or a step; the store's
        errors if the checkpoint is gone or damaged. ``self`` is untouched then.
        """
        self._settle()
        store, ref = self._find(reference)
        started = time.perf_counter()
        checkpoint = store.inspect(ref).checkpoint
        self._state.check_restorable(checkpoint.fields)
        self._state.restore(store.load(ref, trusted=True))
        self._parent = checkpoint.ref
        names = ", ".join(sorted(checkpoint.fields))
        what = self._described(self._artifact(checkpoint))
        self._log(f"restored {what} in {time.perf_counter() - started:.2f} s: {names}")

    def inspect(self, reference: Reference | None = None) -> dict[str, Any]:
        """Return what a checkpoint holds, without reading its data.

        The mapping has ``version`` and ``fields``: name to a mapping with
        ``type``, ``format`` (``tree`` is plain data, ``pickle`` is not),
        ``bytes``, ``stored_bytes``, ``new_bytes``, ``globals`` (what a pickled
        part imports) and ``leaves`` (arrays and tensors with path, dtype, shape
        and bytes). Raises as ``load`` does.
        """
        self._settle()
        store, ref = self._find(reference)
        manifest = store.inspect(ref)
        return {
            "version": MANIFEST_VERSION,
            "fields": {
                name: {
                    "type": field.type_name,
                    "format": field.kind,
                    "bytes": field.raw_bytes,
                    "stored_bytes": field.stored_bytes,
                    "new_bytes": field.new_bytes,
                    "globals": list(field.globals),
                    "leaves": [
                        {
                            "path": leaf.path,
                            "kind": leaf.kind,
                            "dtype": leaf.dtype,
                            "shape": list(leaf.shape),
                            "bytes": leaf.nbytes,
                        }
                        for leaf in field.leaves
                    ],
                }
                for name, field in manifest.fields.items()
            },
        }

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
        if attempt is not None and (type(attempt) is not int or attempt < 0):
            raise CheckpointArgumentError(f"attempt must be a number from 0, not {attempt!r}.")
        if name is not None and not isinstance(name, str):
            raise CheckpointArgumentError(f"name must be a string, not {name!r}.")
        if task is not None and full_namespace:
            raise CheckpointArgumentError("task and full_namespace are mutually exclusive.")
        self._settle()
        if task is not None:
            artifacts = self._list_task(task, name)
        else:
            run = None if full_namespace else self._identity.run
            found = self._stores.list_own(self._identity.collection, label=name, run=run)
            artifacts = [self._artifact(checkpoint) for checkpoint in found]
        return [artifact for artifact in artifacts if attempt is None or artifact.attempt == attempt]

    def find(self, policy: str) -> None:
        """Look for the checkpoint that this attempt starts from; the decorator calls it once.

        ``fresh``: the newest that an earlier attempt of this very task wrote;
        ``eager``: the newest of this step and foreach branch in the namespace,
        of any run; ``none``: none. Those saved with ``latest=False`` never count.

        A retry opens its line now, so that whatever it saves sorts above all that
        its predecessor saves: Metaflow may have given that up while it still runs.
        """
        if self._identity.attempt > 0:
            with contextlib.suppress(StoreNotFoundError):
                self._stores.own(create=False).begin(self._identity.collection)
        if policy == "none" or (policy == "fresh" and self._identity.attempt == 0):
            return
        run = self._identity.run if policy == "fresh" else None
        found = (
            checkpoint
            for checkpoint in self._stores.list_own(self._identity.collection, run=run)
            if checkpoint.attributes.get("latest") is True
        )
        newest = next(found, None)
        if newest is None:
            where = "this task's earlier attempts" if policy == "fresh" else self._identity.collection
            self._log(f"no checkpoint of {where} was found")
            return
        self._info = self._artifact(newest)
        self._log(f"found {self._described(self._info)}; current.checkpoint.load() restores it")

    def close(self) -> None:
        """Finish the background saves and close the store; a later use opens it again.

        Raises the first error of a background save that nobody has seen.
        """
        try:
            self._settle()
        finally:
            self._stores.close()

    def close_after_error(self) -> None:
        """Close while an exception is on its way: what fails is told on the log and hides nothing."""
        self._finish()
        try:
            self.close()
        except Exception as error:  # noqa: BLE001  # the step's own exception goes on
            self._log(f"failed as the step ended: {type(error).__name__}: {error}")

    def _check_save(self, name: object, metadata: object, latest: object, wait: object) -> None:
        if not isinstance(name, str) or not name:
            raise CheckpointArgumentError(f"a checkpoint's name must be a text, not {name!r}.")
        if metadata is not None and not isinstance(metadata, Mapping):
            raise CheckpointArgumentError(f"metadata must be a mapping, not {type(metadata).__name__}.")
        if not isinstance(latest, bool):
            raise CheckpointArgumentError(f"latest must be True or False, not {latest!r}.")
        if wait is not None and not isinstance(wait, bool):
            raise CheckpointArgumentError(f"wait must be True, False or None, not {wait!r}.")

    def _save_in_background(self, name: str, request: dict[str, Any]) -> CheckpointArtifact:
        started = time.perf_counter()
        with _attribute_paths():
            pending = self._stores.own(create=True).save(**request, wait=False)
        artifact = CheckpointArtifact(
            {
                "name": name,
                "pathspec": self._identity.pathspec,
                "attempt": self._identity.attempt,
                "store_url": self._stores.url,
            },
            commit=pending.result,
            inspect=self.inspect,
        )
        self._flights.append(_Flight(artifact, time.perf_counter() - started))
        return artifact

    def _settle(self) -> None:
        """Wait for the background saves and raise the first error that nobody has seen."""
        errors = self._finish()
        if errors:
            raise errors[0]

    def _finish(self) -> Sequence[Exception]:
        """Wait for the background saves, tell of each, and return the errors that nobody has seen."""
        errors: Sequence[Exception] = []
        while self._flights:
            flight = self._flights[0]
            seen = flight.artifact.has_failed
            try:
                flight.artifact.wait()
                self._log(_saved(flight.artifact, f"in the background, {flight.blocked_s:.2f} s blocked"))
            except Exception as error:  # noqa: BLE001  # whatever the save's own thread met
                self._log(f"NOT saved {flight.artifact.name!r}: {type(error).__name__}: {error}")
                errors = errors if seen else [*errors, error]
            self._flights.pop(0)
        return errors

    def _artifact(self, checkpoint: ckptstore.Checkpoint, store_url: str | None = None) -> CheckpointArtifact:
        return CheckpointArtifact.from_checkpoint(
            checkpoint, store_url=store_url or self._stores.url, inspect=self.inspect
        )

    def _find(self, reference: Reference | None) -> tuple[ckptstore.CheckpointStore, ckptstore.CheckpointRef]:
        if reference is None:
            if self._info is None:
                raise CheckpointException(
                    "no checkpoint was found when this task started (current.checkpoint.is_loaded is "
                    "False). Give one: an artifact, its dict or its key, from current.checkpoint.list()."
                )
            reference = self._info
        if isinstance(reference, str):
            store = self._stores.own(create=False)
            return store, parse_key(reference, store.store_id)
        artifact = CheckpointArtifact.hydrate(reference)
        return self._stores.holding(artifact), artifact.ref

    def _described(self, artifact: CheckpointArtifact) -> str:
        task = "" if artifact.pathspec == self._identity.pathspec else f"{artifact.pathspec}, "
        return f"{artifact.name!r} of {task}attempt {artifact.attempt} ({_size(artifact.size)})"

    def _list_task(self, task: object, name: str | None) -> Iterable[CheckpointArtifact]:
        flow, run_id, step, task_id = parse_pathspec(task)
        pathspec = "/".join((flow, run_id, step, task_id))
        run = f"{run_id}/{task_id}"
        likely = f"{flow}/{step}/{self._identity.scope}/{NO_INDEX}"
        found = list(self._stores.list_own(likely, label=name, run=run))
        # A task of a foreach or of somebody else: the store's keys tell, at the price of a full listing.
        found = found or _of(pathspec, self._stores.list_own(None, label=name, run=run))
        if found:
            return [self._artifact(checkpoint) for checkpoint in found]
        elsewhere = self._stores.of_task(task)
        if elsewhere is None:
            return []
        store, url = elsewhere
        return [self._artifact(one, url) for one in _of(pathspec, store.list(label=name, run=run))]


def _of(pathspec: str, found: Iterable[ckptstore.Checkpoint]) -> list[ckptstore.Checkpoint]:
    return [checkpoint for checkpoint in found if checkpoint.attributes.get("pathspec") == pathspec]


@contextlib.contextmanager
def _attribute_paths() -> Iterator[None]:
    """Let the path of a value that cannot be saved start at ``self``."""
    try:
        yield
    except UnserializableError as error:
        raise UnserializableError(
            f"self.{error.path} cannot be saved: {error}",
            field=error.field,
            path=f"self.{error.path}",
            type_name=error.type_name,
        ) from error


def _saved(artifact: CheckpointArtifact, how: str) -> str:
    return f"saved {artifact.name!r}: {_size(artifact.size)}, {_size(artifact.new_bytes)} new, {how}"


def _size(n_bytes: int) -> str:
    power = max(0, min(4, (n_bytes.bit_length() - 1) // 10))
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{n_bytes / 1024**power:.{1 if power else 0}f} {unit}"
