"""Deleting many objects of a bucket by one request, and reading what its answer says of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from botocore.exceptions import ClientError

from ckptstore.backends._s3_errors import error_code, translated
from ckptstore.errors import BackendError, BackendProtocolError, CheckpointStoreError, ObjectNotFoundError

__all__ = ["MAX_KEYS", "failures", "lacks_operation", "may_work_singly", "removal"]

MAX_KEYS = 1000
"""What one request takes."""
_UNKNOWN = {"MethodNotAllowed", "NotImplemented", "NotSupported", "UnsupportedOperation"}


def removal(keys: Sequence[str], root: str) -> dict[str, Any]:
    """Return the parameter of the request. ``root`` is what the keys begin with in the bucket.

    Not a quiet one: an answer without a word for each key is one of a stray page.
    """
    return {"Delete": {"Objects": [{"Key": root + key} for key in keys], "Quiet": False}}


def failures(
    answer: Mapping[str, Any], keys: Sequence[str], *, root: str, url: str
) -> dict[str, BackendError]:
    """Return which keys the answer says, or does not say, were deleted, and why.

    Raises BackendProtocolError, transient, for an answer that is not about them.
    """
    what = f"cannot delete {len(keys)} objects in {url}"
    left = {root + key: key for key in keys}
    failed: dict[str, BackendError] = {}
    for item in answer.get("Errors") or ():
        key = left.pop(item.get("Key"), None)
        if key is None:
            raise BackendProtocolError(f"{what}: the answer is about others", transient=True)
        error = _translated(item, answer, key, url)
        if not isinstance(error, ObjectNotFoundError):
            failed[key] = error
    for item in answer.get("Deleted") or ():
        if left.pop(item.get("Key"), None) is None:
            raise BackendProtocolError(f"{what}: the answer is about others", transient=True)
    if len(left) == len(keys):
        raise BackendProtocolError(f"{what}: the answer has nothing about them", transient=True)
    for key in left.values():
        failed[key] = BackendProtocolError(
            f"cannot delete {key} in {url}: the answer has nothing about it", transient=True
        )
    return failed


def may_work_singly(exc: CheckpointStoreError) -> bool:
    """Tell whether a server has refused the request as such, so that single ones may work."""
    definite = type(exc) is BackendError and not exc.transient
    return definite and isinstance(exc.__cause__, ClientError) and error_code(exc.__cause__) != "NoSuchBucket"


def lacks_operation(exc: CheckpointStoreError) -> bool:
    """Tell whether that will be so for ever: the server does not know such requests."""
    response = getattr(exc.__cause__, "response", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status in (405, 501) or response.get("Error", {}).get("Code") in _UNKNOWN


def _translated(item: Mapping[str, Any], answer: Mapping[str, Any], key: str, url: str) -> BackendError:
    said = {
        "Error": {"Code": item.get("Code") or "", "Message": item.get("Message") or ""},
        "ResponseMetadata": answer.get("ResponseMetadata", {}),
    }
    cause = ClientError(said, "DeleteObjects")
    error = translated(cause, "cannot delete", key, url, reached=True)
    if not isinstance(error, (BackendError, ObjectNotFoundError)):
        error = BackendError(str(error))
    error.__cause__ = cause
    return error  # type: ignore[return-value]  # what was not there is sorted out by the caller
