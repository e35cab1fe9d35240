"""What ``ckptstore doctor`` asks a bucket, beyond what it asks every storage."""

from __future__ import annotations

import base64
import contextlib
import secrets
from collections.abc import AsyncGenerator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ckptstore.backends._s3_errors import error_code
from ckptstore.backends.base import Verdict

__all__ = ["findings"]

_ARCHIVES = {"GLACIER", "DEEP_ARCHIVE"}


async def findings(
    api: Any, bucket: str, root: str, params: dict[str, Any], *, with_checksum: bool
) -> AsyncGenerator[tuple[str, Verdict, str], None]:
    """Yield check, verdict and detail. ``root`` is what all keys of the store begin with.

    ``params`` go with every request. ``with_checksum``: the store relies on the
    server's check of what it receives.
    """
    yield "checksums", *await _checksums(api, bucket, root, params, with_checksum)
    owner = {name: value for name, value in params.items() if name == "ExpectedBucketOwner"}
    yield "lifecycle rules", *await _lifecycle(api, bucket, root, owner)
    yield "versions", *await _versions(api, bucket, owner)


async def _checksums(
    api: Any, bucket: str, root: str, params: dict[str, Any], with_checksum: bool
) -> tuple[Verdict, str]:
    key = f"{root}gc/doctor-{secrets.token_hex(8)}.checksum"
    wrong = base64.b64encode(b"\0\0\0\0").decode()
    try:
        await api.put_object(Bucket=bucket, Key=key, Body=b"doctor", ChecksumCRC32=wrong, **params)
    except ClientError as exc:
        return "ok", f"a wrong one is refused ({error_code(exc)})"
    except BotoCoreError as exc:
        return "unknown", f"it could not be found out ({type(exc).__name__})"
    with contextlib.suppress(ClientError, BotoCoreError):  # the check of the right to delete has told
        await api.delete_object(Bucket=bucket, Key=key, **params)
    if with_checksum:
        return (
            "problem",
            "a wrong one is accepted: over plain http nothing protects a save on its way; use https",
        )
    return "unknown", "a wrong one is accepted: what breaks inside the server is found out by the load"


async def _lifecycle(api: Any, bucket: str, root: str, params: dict[str, Any]) -> tuple[Verdict, str]:
    try:
        answer = await api.get_bucket_lifecycle_configuration(Bucket=bucket, **params)
    except ClientError as exc:
        if error_code(exc) == "NoSuchLifecycleConfiguration":
            return "ok", "none"
        return (
            "unknown",
            f"they cannot be read ({error_code(exc)}); none may expire objects under {root or '/'}",
        )
    except BotoCoreError as exc:
        return "unknown", f"they cannot be read ({type(exc).__name__})"
    for rule in answer.get("Rules", []):
        harm = _harm(rule, root)
        if harm:
            name = repr(str(rule.get("ID", "without a name"))[:80])
            return (
                "problem",
                f"rule {name} {harm} of this store: exclude the prefix {root or 'of the store'!r}",
            )
    return "ok", f"{len(answer.get('Rules', []))} rules, none of which takes objects of this store"


def _harm(rule: dict[str, Any], root: str) -> str:
    """Say what an enabled rule does to the store's objects, if it does anything."""
    chosen = rule.get("Filter") or {}
    both = chosen.get("And") or {}
    prefix = rule.get("Prefix") or chosen.get("Prefix") or both.get("Prefix") or ""
    if rule.get("Status") != "Enabled" or chosen.get("Tag") or both.get("Tags"):
        return ""  # the store's objects have no tags
    if not (prefix.startswith(root) or root.startswith(prefix)):
        return ""
    expiration = rule.get("Expiration") or {}
    if "Days" in expiration or "Date" in expiration:
        return "deletes objects"
    if any(one.get("StorageClass") in _ARCHIVES for one in rule.get("Transitions") or []):
        return "archives objects, which cannot be read then,"
    return ""


async def _versions(api: Any, bucket: str, params: dict[str, Any]) -> tuple[Verdict, str]:
    try:
        answer = await api.get_bucket_versioning(Bucket=bucket, **params)
    except (ClientError, BotoCoreError) as exc:
        return (
            "unknown",
            f"whether old versions are kept cannot be read ({error_code(exc) or type(exc).__name__})",
        )
    if answer.get("Status") == "Enabled":
        return "ok", "old versions are kept, and paid for: let a rule expire noncurrent versions"
    return "ok", "none are kept: what is deleted is gone"
