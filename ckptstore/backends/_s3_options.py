"""The options of an S3 store, checked before any I/O. Needs nothing but the standard library."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from ckptstore.config import MAX_SECONDS
from ckptstore.errors import ConfigError

__all__ = ["ClientFactory", "S3Options", "is_loopback"]

ClientFactory = Callable[[Any], AbstractAsyncContextManager[Any]]
"""Given the ``AioConfig`` that the store needs, returns a context manager of an aiobotocore S3 client.

The config must reach ``create_client(..., config=config)``, alone or as the
argument of another config's ``merge``: it is what switches the SDK's own
retries, checksums and redirects off.
"""

AddressingStyle = Literal["auto", "path", "virtual"]
Encryption = Literal["AES256", "aws:kms", "aws:kms:dsse"]
Checksum = Literal["auto", "crc32", "none"]

_CLIENT_OPTIONS = (
    "endpoint_url",
    "region",
    "profile",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "verify",
)
_TEXTS = ("region", "profile", "access_key_id", "secret_access_key", "session_token", "sse_kms_key_id")
# What is archived there must be restored by hand before it can be read.
_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """How an S3 storage is reached. Wrong values raise ConfigError; none of them is ever shown.

    What is None is left to the usual AWS configuration: environment, shared
    files, instance or container role.
    """

    endpoint_url: str | None = None
    """Of an S3-compatible server. With ``http://`` the data travels unprotected; a warning says so."""
    region: str | None = None
    profile: str | None = None
    """A name in the shared AWS configuration files."""
    access_key_id: str | None = field(default=None, repr=False)
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    addressing_style: AddressingStyle = "auto"
    """``path``: the bucket in the path, ``virtual``: in the host name, ``auto``: as the endpoint asks for."""
    verify: bool | str | None = None
    """False: do not check certificates; a string: a file of certificates to believe."""
    expected_bucket_owner: str | None = None
    """Twelve digits: every request fails if the bucket belongs to another account."""
    sse: Encryption | None = None
    sse_kms_key_id: str | None = None
    storage_class: str | None = None
    """Of new objects; not one that has to be restored before it can be read."""
    request_payer: bool = False
    """Pay for requests to a bucket that makes the requester pay."""
    checksum: Checksum = "auto"
    """``crc32``: the server checks what it receives (0.3 s of CPU per GB). ``auto``: so only where
    neither TLS nor the loopback interface protects it."""
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 20.0
    """How long the storage may be silent before a request is given up and tried again."""
    client_factory: ClientFactory | None = field(default=None, repr=False)
    """Makes the client in the place of endpoint, region, profile, credentials and verify."""

    def __post_init__(self) -> None:
        for name in _TEXTS:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value.strip() and value.isprintable()):
                raise ConfigError(f"the option {name} of an S3 store must be a text that is not empty")
        _check_endpoint(self.endpoint_url)
        _check_choice("addressing_style", self.addressing_style, get_args(AddressingStyle))
        _check_choice("checksum", self.checksum, get_args(Checksum))
        if self.sse is not None:
            _check_choice("sse", self.sse, get_args(Encryption))
        if self.sse_kms_key_id is not None and not (self.sse or "").startswith("aws:kms"):
            raise ConfigError("the option sse_kms_key_id of an S3 store needs sse='aws:kms'")
        if self.verify is not None and not isinstance(self.verify, bool):
            _check_text("verify", self.verify, ".+", "a bool or the name of a file of certificates")
        if self.expected_bucket_owner is not None:
            _check_text("expected_bucket_owner", self.expected_bucket_owner, "[0-9]{12}", "12 digits")
        if self.storage_class is not None:
            _check_text("storage_class", self.storage_class, "[A-Z][A-Z0-9_]*", "a name such as STANDARD_IA")
            if self.storage_class in _ARCHIVES:
                raise ConfigError(
                    f"the storage_class {self.storage_class} cannot be read without a restore; "
                    "use GLACIER_IR, or a lifecycle rule of your own for what you never load"
                )
        if type(self.request_payer) is not bool:
            raise ConfigError("the option request_payer of an S3 store must be a bool")
        for name in ("connect_timeout_s", "read_timeout_s"):
            _check_seconds(name, getattr(self, name))
        self._check_credentials()
        self._check_factory()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> S3Options:
        """Return the options given by name. Raises ConfigError for one that does not exist."""
        unknown = sorted(set(options) - {one.name for one in fields(cls)})
        if unknown:
            raise ConfigError(f"an s3 store has no option {unknown[0]!r}")
        return cls(**options)

    def of_requests(self, *names: str) -> dict[str, Any]:
        """Return those of the parameters ``names`` of a request that the options ask for."""
        asked = {
            "ExpectedBucketOwner": self.expected_bucket_owner,
            "RequestPayer": "requester" if self.request_payer else None,
            "ServerSideEncryption": self.sse,
            "SSEKMSKeyId": self.sse_kms_key_id,
            "StorageClass": self.storage_class,
        }
        return {name: value for name in names if (value := asked[name]) is not None}

    def _check_credentials(self) -> None:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError(
                "access_key_id and secret_access_key of an S3 store are given together or not at all"
            )
        if self.session_token is not None and self.access_key_id is None:
            raise ConfigError("the option session_token of an S3 store needs access_key_id")
        if self.profile is not None and self.access_key_id is not None:
            raise ConfigError("an S3 store takes a profile or an access key, not both")

    def _check_factory(self) -> None:
        if self.client_factory is None:
            return
        if not callable(self.client_factory):
            raise ConfigError("the option client_factory of an S3 store must be a function")
        for name in _CLIENT_OPTIONS:
            if getattr(self, name) is not None:
                raise ConfigError(f"an S3 store takes client_factory or {name}, not both")


def is_loopback(endpoint_url: str) -> bool:
    """Tell whether an endpoint is on this machine, so that nobody else sees what is sent there."""
    host = urlsplit(endpoint_url).hostname or ""
    return host == "localhost" or host.endswith(".localhost") or host.startswith("127.") or host == "::1"


def _check_endpoint(url: object) -> None:
    if url is None:
        return
    wrong = (
        "the option endpoint_url of an S3 store must be https://host or http://host, with a port if need be"
    )
    if not isinstance(url, str) or not url.isprintable() or " " in url:
        raise ConfigError(wrong)
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for what is no number
    except ValueError:
        raise ConfigError(wrong) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "the option endpoint_url of an S3 store has a user or password in it: use the AWS options"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or "?" in url or "#" in url:
        raise ConfigError(wrong)


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"the option {name} of an S3 store must be one of {', '.join(map(repr, choices))}")


def _check_text(name: str, value: object, pattern: str, what: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise ConfigError(f"the option {name} of an S3 store must be {what}")


def _check_seconds(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= MAX_SECONDS:
        raise ConfigError(f"the option {name} of an S3 store must be a number of seconds above 0")
