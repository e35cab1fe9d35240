"""The reference to a checkpoint that a flow keeps, passes on and lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ckptstore
from ckptstore.errors import CheckpointStoreError

from .errors import CheckpointArgumentError, CheckpointException
from .foreign import refuse_foreign
from .scope import is_shared

__all__ = ["STORAGE_FORMAT", "CheckpointArtifact", "format_key", "parse_key"]

STORAGE_FORMAT = "ckptstore-v1"

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "name": str,
    "pathspec": str,
    "attempt": int,
    "created_on": str,
    "size": int,
    "stored_bytes": int,
    "new_bytes": int,
    "version_id": str,
    "storage_format": str,
    "metadata": dict,
    "store_url": str,
    "ref": dict,
}
_DERIVED = ("type", "key", "url")


class CheckpointArtifact:
    """A checkpoint's name, facts and pinned content, small enough to be an artifact.

    It holds a reference that pins the checkpoint's content and no place or
    credential that a load would follow: ``url`` is for people. A background
    save gives one at once; whatever depends on the commit waits for it.
    """

    __slots__ = ("_commit", "_ended", "_failure", "_inspect", "_values")

    def __init__(
        self,
        values: Mapping[str, Any],
        *,
        commit: Callable[[], ckptstore.Checkpoint] | None = None,
        ended: Callable[[], bool] = lambda: True,
        inspect: Callable[[CheckpointArtifact], dict[str, Any]] | None = None,
    ) -> None:
        self._values: dict[str, Any] = dict(values)
        self._commit = commit
        self._ended = ended
        self._inspect = inspect
        self._failure: str | None = None

    @classmethod
    def from_checkpoint(
        cls,
        checkpoint: ckptstore.Checkpoint,
        *,
        store_url: str,
        inspect: Callable[[CheckpointArtifact], dict[str, Any]] | None = None,
    ) -> CheckpointArtifact:
        """Return the artifact of a committed checkpoint."""
        return cls(_values_of(checkpoint, store_url), inspect=inspect)

    @classmethod
    def hydrate(cls, data: Mapping[str, Any] | CheckpointArtifact) -> CheckpointArtifact:
        """Return the artifact that ``to_dict`` gave. Raises CheckpointArgumentError for anything else."""
        if isinstance(data, CheckpointArtifact):
            return data
        refuse_foreign(data)
        if not isinstance(data, Mapping):
            raise CheckpointArgumentError(
                f"a checkpoint's dict comes from to_dict(), this is {type(data).__name__}."
            )
        wrong = [
            name
            for name, kind in _FIELDS.items()
            if not isinstance(data.get(name), kind) or isinstance(data.get(name), bool)
        ]
        unknown = sorted(map(str, set(data) - set(_FIELDS) - set(_DERIVED)))
        if wrong or unknown:
            found = (f"missing or of another type: {', '.join(wrong)}" if wrong else "") + (
                f"{'; ' if wrong else ''}unknown: {', '.join(unknown)}" if unknown else ""
            )
            raise CheckpointArgumentError(f"this is not the dict of a checkpoint; {found}.")
        try:
            ckptstore.CheckpointRef.from_dict(data["ref"])
        except CheckpointStoreError as error:
            raise CheckpointArgumentError(f"this is not the dict of a checkpoint; ref: {error}.") from error
        return cls({name: data[name] for name in _FIELDS})

    def to_dict(self) -> dict[str, Any]:
        """Return all that ``hydrate`` needs, fit for JSON."""
        values = self._settled()
        return {
            "type": "checkpoint",
            "key": self.key,
            "url": self.url,
            **{name: values[name] for name in _FIELDS},
            "metadata": dict(values["metadata"]),
            "ref": dict(values["ref"]),
        }

    @property
    def name(self) -> str:
        """The name it was saved under."""
        return self._text("name")

    @property
    def pathspec(self) -> str:
        """The task that saved it."""
        return self._text("pathspec")

    @property
    def attempt(self) -> int:
        """The attempt that saved it, from 0."""
        return int(self._values["attempt"])

    @property
    def shared(self) -> bool:
        """Whether one rank of a @parallel step saved it for all of them."""
        return is_shared(self.ref.collection)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the user noted; numbers of numpy and torch have become Python's."""
        return dict(self._settled()["metadata"])

    @property
    def created_on(self) -> str:
        """When it was committed by the writer's clock, ISO 8601 in UTC. Nothing is ordered by it."""
        return str(self._settled()["created_on"])

    @property
    def size(self) -> int:
        """Bytes of its values before compression."""
        return int(self._settled()["size"])

    @property
    def stored_bytes(self) -> int:
        """Bytes of its values as stored, those shared with other checkpoints included."""
        return int(self._settled()["stored_bytes"])

    @property
    def new_bytes(self) -> int:
        """Bytes that saving it added to the store."""
        return int(self._settled()["new_bytes"])

    @property
    def version_id(self) -> str:
        """``epoch.seq``: its place in the order of its line, over all attempts and runs."""
        return str(self._settled()["version_id"])

    @property
    def storage_format(self) -> str:
        """The name and version of the store's format."""
        return STORAGE_FORMAT

    @property
    def ref(self) -> ckptstore.CheckpointRef:
        """The store's own reference, which pins the content."""
        return ckptstore.CheckpointRef.from_dict(self._settled()["ref"])

    @property
    def key(self) -> str:
        """A string that stands for the checkpoint in ``load`` and ``inspect``, and pins its content."""
        return format_key(self.ref)

    @property
    def url(self) -> str:
        """Where it was saved, for people: the store, ``#``, the key. No load follows it."""
        return f"{self._settled()['store_url']}#{self.key}"

    @property
    def implicit_manifest(self) -> dict[str, Any]:
        """What ``inspect`` tells of it, read from the store when asked for; in a task or anywhere else."""
        if self._inspect is not None:
            return self._inspect(self)
        from .client import Checkpoint  # it is built on this module

        client = Checkpoint()
        try:
            return client.inspect(self)
        finally:
            client.close()

    @property
    def is_pending(self) -> bool:
        """Whether nobody has seen the end of its background save yet."""
        return self._commit is not None

    @property
    def has_failed(self) -> bool:
        """Whether its background save is known to have failed."""
        return self._failure is not None

    def wait(self) -> CheckpointArtifact:
        """Wait until it is durable and return it. Raises what the save raised."""
        self._settled()
        return self

    def _settled(self) -> dict[str, Any]:
        """Return all values, after the commit of a background save."""
        if self._failure is not None:
            raise CheckpointException(f"checkpoint {self.name!r} was never saved: {self._failure}")
        if self._commit is not None:
            try:
                self._commit()
            finally:
                # The handler of a signal may raise while this waits, as @timeout's does: that is no
                # failure of the save, which goes on.
                if self._ended():
                    self._conclude(self._commit)
        return self._values

    def _conclude(self, commit: Callable[[], ckptstore.Checkpoint]) -> None:
        try:
            self._values = _values_of(commit(), self._values["store_url"])
        except Exception as error:  # noqa: BLE001  # whatever the save's own thread met
            self._failure = f"{type(error).__name__}: {error}"
        self._commit = None

    def _text(self, name: str) -> str:
        return str(self._values[name])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CheckpointArtifact):
            return NotImplemented
        return self is other or self.ref == other.ref

    def __hash__(self) -> int:
        return hash(self.ref)

    def __repr__(self) -> str:
        state = "pending" if self.is_pending else "failed" if self._failure else self._values["version_id"]
        return f"<CheckpointArtifact {self.name!r} of {self.pathspec} attempt {self.attempt}: {state}>"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._commit is not None:
            # A flow may keep the artifact of a save that failed: the state must stay picklable,
            # the error is raised where the artifact is used.
            try:
                self._settled()
            except Exception:
                if not self.has_failed:
                    raise
        return _revive, (self._values, self._failure)


def _revive(values: dict[str, Any], failure: str | None) -> CheckpointArtifact:
    artifact = CheckpointArtifact(values)
    artifact._failure = failure
    return artifact


def _values_of(checkpoint: ckptstore.Checkpoint, store_url: str) -> dict[str, Any]:
    noted = checkpoint.attributes
    return {
        "name": checkpoint.label or "",
        "pathspec": str(noted.get("pathspec", checkpoint.collection)),
        "attempt": int(noted.get("attempt", 0)),
        "created_on": checkpoint.created.isoformat(),
        "size": checkpoint.sizes.raw_bytes,
        "stored_bytes": checkpoint.sizes.stored_bytes,
        "new_bytes": checkpoint.sizes.new_bytes,
        "version_id": f"{checkpoint.epoch}.{checkpoint.seq}",
        "storage_format": STORAGE_FORMAT,
        "metadata": dict(checkpoint.metadata),
        "store_url": store_url,
        "ref": checkpoint.ref.to_dict(),
    }


def format_key(ref: ckptstore.CheckpointRef) -> str:
    """Return the string that ``parse_key`` reads back, in the store that holds the checkpoint."""
    return f"{ref.collection}/{ref.name}@{ref.digest}"


def parse_key(key: str, store_id: str) -> ckptstore.CheckpointRef:
    """Return the reference that a key means in this store. Raises CheckpointArgumentError."""
    refuse_foreign(key)
    path, at, digest = key.rpartition("@")
    collection, slash, name = path.rpartition("/")
    try:
        if not (at and slash):
            raise ValueError("it has no '/' or no '@'")
        return ckptstore.CheckpointRef(store_id, collection, name, digest)
    except ValueError as error:
        raise CheckpointArgumentError(
            f"{key!r} is not the key of a checkpoint ({error}). Keys come from CheckpointArtifact.key."
        ) from error
