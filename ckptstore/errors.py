"""Every error this package raises, and what each one asks of the caller.

    CheckpointStoreError
    ├ ConfigError(ValueError)       an argument or option is wrong; nothing was read or written
    │ ├ InvalidNameError            a collection, run, label or field name
    │ ├ InvalidURLError             a store URL
    │ ├ InvalidPolicyError          a load or retention policy
    │ └ DestinationError            what is to be loaded into does not fit the checkpoint
    ├ BackendError(OSError)         the storage failed; ``transient`` says whether a retry may help
    │ ├ UnavailableError            unreachable, broken connection, 5xx
    │ ├ ThrottledError              the storage asked for fewer requests
    │ ├ AccessDeniedError           the storage refused: permissions
    │ ├ CredentialsError            no or expired credentials
    │ ├ ClockSkewError              the clocks of client and storage are too far apart
    │ ├ StoreFullError              no space or quota left
    │ └ BackendProtocolError        the storage's answer breaks the contract
    ├ NotFoundError(LookupError)
    │ ├ ObjectNotFoundError         no object under a key (backends)
    │ ├ StoreNotFoundError          there is no store at the URL
    │ ├ CheckpointNotFoundError     no such checkpoint, or none yet
    │ └ CheckpointDeletedError      it was deleted
    ├ FormatError(ValueError)       bytes that are not what the format says
    │ ├ UnsupportedVersionError     written by a newer ckptstore
    │ ├ ManifestCorruptError        a manifest is damaged
    │ └ LimitExceededError          larger than a configured limit
    ├ IntegrityError                data contradicts its manifest
    │ ├ ChunkCorruptError           a chunk's bytes are wrong
    │ ├ ChunkMissingError           a chunk is gone
    │ └ StoreMismatchError          a reference to another store
    ├ SecurityError
    │ ├ UntrustedPickleError        loading would run a pickle and nobody said it is trusted
    │ └ SignatureError              a signature is missing or wrong
    ├ SaveError                     the save did not happen, or nobody can tell
    │ ├ UnserializableError         a value cannot be saved; names its path
    │ ├ SaveExpiredError            the save took longer than the store allows
    │ ├ SaveCancelledError          the save was cancelled before its commit
    │ ├ CommitUnknownError          the commit was sent and its answer never came
    │ └ BusyError                   another save is running and ``on_busy="error"``
    ├ GCAbortedError                garbage collection was unsure and deleted nothing
    ├ ForkedProcessError            used in a child process that inherited it by fork
    ├ WrongThreadError              a blocking call from the store's own loop thread
    └ StoreClosedError              used after close

Foreign exceptions are mapped to these once, where they enter, and kept as
``__cause__``. No message holds a credential, a query string or payload bytes.
"""

from __future__ import annotations

__all__ = [
    "AccessDeniedError",
    "BackendError",
    "BackendProtocolError",
    "BusyError",
    "CheckpointDeletedError",
    "CheckpointNotFoundError",
    "CheckpointStoreError",
    "ChunkCorruptError",
    "ChunkMissingError",
    "ClockSkewError",
    "CommitUnknownError",
    "ConfigError",
    "CredentialsError",
    "DestinationError",
    "ForkedProcessError",
    "FormatError",
    "GCAbortedError",
    "IntegrityError",
    "InvalidNameError",
    "InvalidPolicyError",
    "InvalidURLError",
    "LimitExceededError",
    "ManifestCorruptError",
    "NotFoundError",
    "ObjectNotFoundError",
    "SaveCancelledError",
    "SaveError",
    "SaveExpiredError",
    "SecurityError",
    "SignatureError",
    "StoreClosedError",
    "StoreFullError",
    "StoreMismatchError",
    "StoreNotFoundError",
    "ThrottledError",
    "UnavailableError",
    "UnserializableError",
    "UnsupportedVersionError",
    "UntrustedPickleError",
    "WrongThreadError",
]


class CheckpointStoreError(Exception):
    """The root of every error of this package."""


class ConfigError(CheckpointStoreError, ValueError):
    """An argument or option is wrong. Raised before any I/O."""


class InvalidNameError(ConfigError):
    """A collection, run, label or field name cannot be used."""


class InvalidURLError(ConfigError):
    """A store URL cannot be used."""


class InvalidPolicyError(ConfigError):
    """A load or retention policy is not one we know, or contradicts itself."""


class DestinationError(ConfigError):
    """What a load is to fill does not fit what the checkpoint holds; names each place where it does not."""


class BackendError(CheckpointStoreError, OSError):
    """The storage failed.

    ``transient`` is decided where the error is born: True means that the same
    request may succeed later, and that a write may nevertheless have landed.
    False means a definite refusal: the request had no effect.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class UnavailableError(BackendError):
    """The storage could not be reached or answered with a failure of its own."""

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message, transient=transient)


class ThrottledError(BackendError):
    """The storage asked for fewer requests."""

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message, transient=transient)


class AccessDeniedError(BackendError):
    """The storage refused the request for lack of permission."""


class CredentialsError(BackendError):
    """There are no usable credentials."""


class ClockSkewError(BackendError):
    """The clocks of this machine and of the storage are too far apart."""


class StoreFullError(BackendError):
    """The storage has no space, or no quota, left."""


class BackendProtocolError(BackendError):
    """The storage's answer breaks the contract, so nothing is concluded from it."""


class NotFoundError(CheckpointStoreError, LookupError):
    """Something that was asked for is not there."""


class ObjectNotFoundError(NotFoundError):
    """A backend has no object under a key."""


class StoreNotFoundError(NotFoundError):
    """There is no store at the URL."""


class CheckpointNotFoundError(NotFoundError):
    """There is no such checkpoint, or none in the collection yet."""


class CheckpointDeletedError(NotFoundError):
    """The checkpoint was deleted."""


class FormatError(CheckpointStoreError, ValueError):
    """Bytes are not what the format says they must be."""


class UnsupportedVersionError(FormatError):
    """The data was written by a version of the format this release cannot read."""


class ManifestCorruptError(FormatError):
    """A manifest is damaged or contradicts itself."""


class LimitExceededError(FormatError):
    """Something is larger than a configured limit."""


class IntegrityError(CheckpointStoreError):
    """Stored data contradicts the manifest that names it."""


class ChunkCorruptError(IntegrityError):
    """The bytes of a chunk are wrong."""


class ChunkMissingError(IntegrityError):
    """A chunk that a manifest names is gone."""


class StoreMismatchError(IntegrityError):
    """A reference or manifest belongs to another store."""


class SecurityError(CheckpointStoreError):
    """Doing this would trust what nobody said is trusted."""


class UntrustedPickleError(SecurityError):
    """Loading would run a pickle, and the caller did not pass ``trusted=True``."""


class SignatureError(SecurityError):
    """A signature is missing or wrong."""


class SaveError(CheckpointStoreError):
    """The save did not happen, or nobody can tell whether it did."""


class UnserializableError(SaveError):
    """A value cannot be saved.

    ``field`` is the field's name, ``path`` the way to the value from there
    (``deep['x'][1]['y']``), ``type_name`` the type that cannot be saved.
    """

    def __init__(self, message: str, *, field: str, path: str, type_name: str) -> None:
        super().__init__(message)
        self.field = field
        self.path = path
        self.type_name = type_name


class SaveExpiredError(SaveError):
    """The save took longer than the store's grace period allows; nothing was committed."""


class SaveCancelledError(SaveError):
    """The save was cancelled before its commit; nothing was committed."""


class CommitUnknownError(SaveError):
    """The commit was sent and whether it landed could not be found out; names the checkpoint."""


class BusyError(SaveError):
    """Another save of this store is running and ``on_busy="error"``."""


class GCAbortedError(CheckpointStoreError):
    """Garbage collection was unsure and deleted nothing."""


class ForkedProcessError(CheckpointStoreError):
    """A store, or a pending save, was used in a child process that inherited it by fork."""


class WrongThreadError(CheckpointStoreError):
    """A blocking call came from the store's own loop thread, where it could only deadlock."""


class StoreClosedError(CheckpointStoreError):
    """The store was used after it was closed."""
