"""Which answers of a server are believed: what is empty, cut, or somebody else's is an error, never "nothing there"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ckptstore.backends._s3_errors import date_of
from ckptstore.backends.base import ObjectInfo
from ckptstore.errors import BackendProtocolError

__all__ = ["Page", "Part", "check_page", "object_info", "part_of", "require_object"]


@dataclass(frozen=True, slots=True)
class Part:
    """Which bytes of an answer's body were asked for: ``take`` (None: all) after the first ``skip``."""

    skip: int
    take: int | None


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing; its keys are those of the bucket.

    ``token``: the next page is asked for with it; None: this was the last.
    ``by_folder``: the server sorts ``a/b`` before ``a-/b``, folder by folder,
    where S3 sorts whole keys.
    """

    objects: list[ObjectInfo]
    folders: list[str]
    token: str | None
    by_folder: bool


def require_object(answer: Mapping[str, Any], what: str) -> None:
    """Raise BackendProtocolError for a 200 that no S3 server gave: each has an ETag, a stray page has none.

    Transient: a proxy that is in trouble says such things for a while.
    """
    if not answer.get("ETag"):
        raise BackendProtocolError(f"{what}: the answer has no ETag, so it is not S3's", transient=True)


def object_info(key: str, answer: Mapping[str, Any], what: str) -> ObjectInfo:
    """Return what a HEAD's answer tells. Raises BackendProtocolError."""
    require_object(answer, what)
    size, modified = answer.get("ContentLength"), answer.get("LastModified")
    if type(size) is not int or modified is None:
        raise BackendProtocolError(f"{what}: the answer has no size or time", transient=True)
    return ObjectInfo(key, size, modified.timestamp(), date_of(answer))


def part_of(answer: Mapping[str, Any], start: int, length: int | None, what: str) -> Part:
    """Return which bytes of a GET's body are those asked for: ``length`` (None: all) from ``start`` on.

    A server may ignore the range and send everything, or more than was asked for.

    Raises BackendProtocolError for the answer to another question.
    """
    require_object(answer, what)
    meta = answer["ResponseMetadata"]
    sent = answer.get("ContentLength")
    if sent is None and meta["HTTPHeaders"].get("transfer-encoding", "").lower() != "chunked":
        raise BackendProtocolError(f"{what}: the answer does not tell its length", transient=True)
    if meta["HTTPStatusCode"] != 206:
        if sent is None:
            return Part(start, length)
        left = max(0, sent - start)
        return Part(min(start, sent), left if length is None else min(left, length))
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.get("ContentRange") or "")
    if found is None:
        raise BackendProtocolError(
            f"{what}: a part of the object, but the answer does not tell which", transient=True
        )
    first, last, total = map(int, found.groups())
    wanted = total - start if length is None else min(length, total - start)
    if first != start or last - first + 1 < wanted or (sent is not None and sent != last - first + 1):
        raise BackendProtocolError(
            f"{what}: {wanted} bytes from {start} on were asked for, the answer has {sent} bytes "
            f"and says {first} to {last} of {total}",
            transient=True,
        )
    return Part(0, wanted)


def check_page(answer: Mapping[str, Any], *, bucket: str, prefix: str, after: str, what: str) -> Page:
    """Return what a LIST's page holds. Its keys start with ``prefix`` and come after ``after``.

    Raises BackendProtocolError for a page that is not complete, of another
    bucket or place, or in no order.
    """

    def unbelievable(why: str, *, transient: bool = False) -> BackendProtocolError:
        return BackendProtocolError(f"{what}: the answer is not believed, {why}", transient=transient)

    truncated, count = answer.get("IsTruncated"), answer.get("KeyCount")
    contents, common = answer.get("Contents"), answer.get("CommonPrefixes") or []
    if truncated is None or answer.get("Name") is None or (count is None and contents is None):
        raise unbelievable("it lacks Name, IsTruncated or KeyCount, as an empty one does", transient=True)
    contents = contents or []
    if answer["Name"] != bucket:
        raise unbelievable("it is of another bucket")
    if count is not None and count != len(contents) + len(common):
        raise unbelievable(f"it has {len(contents) + len(common)} keys and says {count}", transient=True)
    seen_s = date_of(answer)
    objects = []
    for item in contents:
        key, size, modified = item.get("Key"), item.get("Size"), item.get("LastModified")
        if not isinstance(key, str) or type(size) is not int or modified is None:
            raise unbelievable("a key, size or time is missing", transient=True)
        objects.append(ObjectInfo(key, size, modified.timestamp(), seen_s))
    folders = [str(item.get("Prefix")) for item in common]
    keys = [info.key for info in objects]
    for key in (*keys, *folders):
        if not key.startswith(prefix):
            raise unbelievable(f"the key {key[:120]!r} is from elsewhere")
    by_folder = _is_seaweed(answer)
    for key, last in zip(keys, [after, *keys], strict=False):
        if key <= last:
            if _folder_order(key) <= _folder_order(last):
                raise unbelievable(f"the key {key[:120]!r} comes after {last[:120]!r}")
            by_folder = True
    token = answer.get("NextContinuationToken") if truncated else None
    if truncated and not token:
        raise unbelievable("it goes on, and does not say where")
    return Page(objects, folders, token, by_folder)


def _is_seaweed(answer: Mapping[str, Any]) -> bool:
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return str(headers.get("server", "")).lower().startswith("seaweedfs")


def _folder_order(key: str) -> str:
    return key.replace("/", "\0")
