"""Saving: what a task writes, in the foreground and in the background."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ckptstore
from ckptstore.errors import UnserializableError

from .artifact import CheckpointArtifact
from .errors import CheckpointArgumentError
from .library import Library
from .scope import TaskIdentity
from .stores import Stores

__all__ = ["Observer", "Saver", "check_save", "size_text"]


class Observer(Protocol):
    """Who is told of this process's saves, in the thread that saves; it must return at once."""

    def saved(self, artifact: CheckpointArtifact, *, blocked_s: float, background_s: float) -> None:
        """A checkpoint is durable."""

    def failed(self, name: str, error: BaseException) -> None:
        """A background save has failed."""


@dataclass(frozen=True, slots=True)
class _Flight:
    """A background save that is under way."""

    artifact: CheckpointArtifact
    started_s: float
    blocked_s: float


class Saver:
    """Saves the state of one attempt of a task, and knows what is still on its way."""

    def __init__(
        self,
        identity: TaskIdentity,
        stores: Stores,
        *,
        collect: Callable[[Path | None], Mapping[str, Any]],
        log: Callable[[str], None],
    ) -> None:
        self._identity = identity
        self._stores = stores
        self._collect = collect
        self._log = log
        self._flights: list[_Flight] = []
        self._library = Library(stores, settle=self.settle)
        self.observers: list[Observer] = []
        self.parent: ckptstore.CheckpointRef | None = None
        """The checkpoint that the state was restored from."""

    def save(
        self,
        name: str,
        *,
        metadata: Mapping[str, Any] | None,
        latest: bool,
        wait: bool,
        path: Path | None = None,
        shared: bool = False,
    ) -> CheckpointArtifact:
        """Save the state as it is now, see ``CurrentCheckpoint.save``."""
        collection = self._identity.line_to_save(shared)
        self.settle()
        request = self._request(name, metadata, latest, path)
        request["collection"] = collection
        started_s = time.perf_counter()
        if not wait:
            return self._save_in_background(name, request, started_s)
        with _attribute_paths():
            saved = self._stores.own(create=True).save(**request, wait=True)
        artifact = self._library.artifact(saved)
        blocked_s = time.perf_counter() - started_s
        self._log(_saved(artifact, f"{blocked_s:.2f} s"))
        for observer in self.observers:
            observer.saved(artifact, blocked_s=blocked_s, background_s=0.0)
        return artifact

    def settle(self) -> None:
        """Wait for the background saves and raise the first error that nobody has seen."""
        errors = self.finish()
        if errors:
            raise errors[0]

    def finish(self) -> Sequence[Exception]:
        """Wait for the background saves, tell of each, and return the errors that nobody has seen.

        Raises nothing else but what the handler of a signal raises meanwhile, as @timeout's
        does: the saves go on, and can be waited for again.
        """
        errors: Sequence[Exception] = []
        while self._flights:
            flight = self._flights[0]
            seen = flight.artifact.has_failed
            try:
                flight.artifact.wait()
            except Exception as error:
                if not flight.artifact.has_failed:
                    raise
                self._log(f"NOT saved {flight.artifact.name!r}: {type(error).__name__}: {error}")
                errors = errors if seen else [*errors, error]
                for observer in self.observers:
                    observer.failed(flight.artifact.name, error)
            else:
                self._log(_saved(flight.artifact, f"in the background, {flight.blocked_s:.2f} s blocked"))
                background_s = time.perf_counter() - flight.started_s - flight.blocked_s
                for observer in self.observers:
                    observer.saved(flight.artifact, blocked_s=flight.blocked_s, background_s=background_s)
            self._flights.pop(0)
        return errors

    def _request(
        self, name: str, metadata: Mapping[str, Any] | None, latest: bool, path: Path | None
    ) -> dict[str, Any]:
        return {
            "collection": self._identity.collection,
            "values": self._collect(path),
            "label": name,
            "run": self._identity.run,
            "metadata": dict(metadata or {}),
            "attributes": {
                "pathspec": self._identity.pathspec,
                "attempt": self._identity.attempt,
                "latest": latest,
            },
            "parent": self.parent,
        }

    def _save_in_background(self, name: str, request: dict[str, Any], started_s: float) -> CheckpointArtifact:
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
            ended=pending.done,
            inspect=self._library.inspect,
        )
        self._flights.append(_Flight(artifact, started_s, time.perf_counter() - started_s))
        return artifact


def check_save(name: object, metadata: object, latest: object, wait: object) -> None:
    """Raise CheckpointArgumentError unless these are arguments of a save."""
    if not isinstance(name, str) or not name:
        raise CheckpointArgumentError(f"a checkpoint's name must be a text, not {name!r}.")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise CheckpointArgumentError(f"metadata must be a mapping, not {type(metadata).__name__}.")
    if not isinstance(latest, bool):
        raise CheckpointArgumentError(f"latest must be True or False, not {latest!r}.")
    if wait is not None and not isinstance(wait, bool):
        raise CheckpointArgumentError(f"wait must be True, False or None, not {wait!r}.")


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
    return f"saved {artifact.name!r}: {size_text(artifact.size)}, {size_text(artifact.new_bytes)} new, {how}"


def size_text(n_bytes: int) -> str:
    """Return a number of bytes for people."""
    power = max(0, min(4, (n_bytes.bit_length() - 1) // 10))
    unit = ("B", "KiB", "MiB", "GiB", "TiB")[power]
    return f"{n_bytes / 1024**power:.{1 if power else 0}f} {unit}"
