"""What the client library and the server say went wrong, in our words: mapped once, here."""

from __future__ import annotations

import asyncio
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    BackendProtocolError,
    CheckpointStoreError,
    ClockSkewError,
    ConfigError,
    CredentialsError,
    ObjectNotFoundError,
    StoreFullError,
    StoreNotFoundError,
    ThrottledError,
    UnavailableError,
)

__all__ = ["date_of", "error_code", "has_expired", "is_unexplained", "lacks_condition", "translated"]

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"}
_SKEWED = {"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"}
_THROTTLED = {
    "BandwidthLimitExceeded",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "TooManyRequestsException",
}
# Broken on the way, or in the way of another request: the same bytes may be taken the next time.
_TRANSIENT = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InvalidDigest",
    "InternalError",
    "OperationAborted",
    "PreconditionFailed",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_NO_CREDENTIALS = {
    "AuthorizationHeaderMalformed",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
_NO_CONDITION = {"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "UnsupportedOperation"}
_FULL = {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "StorageFull"}
_TRANSIENT_STATUS = {408, 409, 412, 500, 502, 504}
_CREDENTIAL_ERRORS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.NoAuthTokenError,
)
_PROVIDER_ERRORS = (
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    boto.TokenRetrievalError,
    boto.SSOError,
)
_CONFIG_ERRORS = (
    boto.BaseEndpointResolverError,
    boto.ConfigNotFound,
    boto.ConfigParseError,
    boto.EndpointProviderError,
    boto.InvalidConfigError,
    boto.InvalidS3AddressingStyleError,
    boto.ProfileNotFound,
    boto.ValidationError,
)
_NETWORK_ERRORS = (
    boto.HTTPClientError,
    boto.ConnectionError,
    aiohttp.ClientError,
    asyncio.TimeoutError,
    OSError,
)


def error_code(exc: BaseException) -> str:
    """Return the server's error code, or ``""`` for what no server said."""
    return str(exc.response.get("Error", {}).get("Code", "")) if isinstance(exc, boto.ClientError) else ""


def has_expired(exc: BaseException) -> bool:
    """Tell whether the server refused the credentials as expired."""
    return error_code(exc) in _EXPIRED


def is_unexplained(exc: BaseException) -> bool:
    """Tell whether an answer to a HEAD names no reason: a GET's would, an answer to a HEAD has no body."""
    return error_code(exc) in ("400", "403")


def lacks_condition(exc: BaseException) -> bool:
    """Tell whether a conditional write was refused because the server does not know such writes."""
    return error_code(exc.__cause__ or exc) in _NO_CONDITION


def date_of(response: Any) -> float | None:
    """Return the server's clock, in seconds since the epoch, if the answer tells."""
    headers = response.get("ResponseMetadata", {}).get("HTTPHeaders", {}) if response else {}
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def translated(exc: BaseException, action: str, key: str, url: str, *, reached: bool) -> CheckpointStoreError:
    """Return the error of ours for ``exc``. ``action`` says what failed (``cannot read``).

    ``reached``: the bucket was there before, so that its absence is a failure
    and not a wrong URL. The text holds no part of the server's answer but its
    code, and its reason for a refusal: answers can repeat what was sent.
    """
    what = f"{action} {key} in {url}" if key else f"{action} {url}"
    if isinstance(exc, boto.ClientError):
        return _refused(exc, what, key, url, reached)
    if isinstance(exc, (ResponseParserError, KeyError)):  # KeyError: a listing whose objects have no key
        return BackendProtocolError(f"{what}: the answer is not one of S3's", transient=True)
    if isinstance(exc, _CREDENTIAL_ERRORS):
        return CredentialsError(
            f"{what}: no credentials; set the usual AWS ones, or the options access_key_id and secret_access_key"
        )
    if isinstance(exc, _PROVIDER_ERRORS):
        return CredentialsError(f"{what}: the credentials could not be got ({_kind(exc)})", transient=True)
    if isinstance(exc, _CONFIG_ERRORS):
        return ConfigError(f"{what}: the AWS configuration cannot be used ({_kind(exc)}: {exc})")
    if _is_certificate(exc):
        return UnavailableError(
            f"{what}: the server's certificate is not believed; see the option verify", transient=False
        )
    if isinstance(exc, _NETWORK_ERRORS):
        return UnavailableError(f"{what}: {_reason(exc)}")
    return BackendError(f"{what}: {_kind(exc)} in the client library")


def _refused(exc: Any, what: str, key: str, url: str, reached: bool) -> CheckpointStoreError:
    code = error_code(exc)
    status = exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0
    said = f"{what}: {code or 'no reason'} (HTTP {status})"
    if code == "NoSuchBucket":
        if reached:
            return BackendError(f"{what}: the bucket is gone")
        return StoreNotFoundError(
            f"there is no bucket for {url}: check its name, the region and the endpoint"
        )
    if code in ("NoSuchKey", "NotFound", "404") or (status == 404 and not code):
        return ObjectNotFoundError(f"no object {key} in {url}")
    if code in _SKEWED:
        return ClockSkewError(f"{what}: {_skew(exc)}")
    if code in _EXPIRED:
        return CredentialsError(f"{what}: the credentials have expired ({code})")
    if code in _NO_CREDENTIALS or status == 401:
        return CredentialsError(f"{said}: the storage does not accept the credentials")
    if code in _FULL or status == 507:
        return StoreFullError(said)
    if code in _THROTTLED or status in (429, 503):
        return ThrottledError(said)
    if code in _TRANSIENT or status in _TRANSIENT_STATUS:
        return UnavailableError(said)
    if 300 <= status < 400:
        return BackendError(f"{said}: a redirect, which is never followed; check the region and the endpoint")
    if code == "InvalidObjectState":
        return BackendError(f"{said}: the object is archived and must be restored before it can be read")
    if status == 403 or code == "AccessDenied":  # a refusal within the answer to many has no status
        return AccessDeniedError(said + _message(exc))
    return BackendError(said)


def _message(exc: Any) -> str:
    """Return the server's own words for a refusal: they name the missing permission."""
    text = str(exc.response.get("Error", {}).get("Message") or "")
    return f": {text[:300]}" if text.isprintable() and text else ""


def _skew(exc: Any) -> str:
    theirs = date_of(exc.response)
    if theirs is None:
        return "the clocks of this machine and of the storage are too far apart"
    offset = time.time() - theirs
    where = "ahead of" if offset > 0 else "behind"
    return f"this machine's clock is {abs(offset):.0f} s {where} the storage's; set it right"


def _is_certificate(exc: BaseException | None) -> bool:
    while exc is not None:
        if isinstance(exc, ssl.SSLCertVerificationError):
            return True
        exc = exc.__cause__ or exc.__context__
    return False


def _reason(exc: BaseException) -> str:
    """Say what happened, without the URL that the library's own words hold."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, aiohttp.ClientError):
            return f"{_kind(exc)} ({cause.strerror})"
        cause = cause.__cause__ or cause.__context__
    return _kind(exc)


def _kind(exc: BaseException) -> str:
    return type(exc).__name__
