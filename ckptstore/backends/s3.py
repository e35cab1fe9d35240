"""A storage in a bucket of S3, or of a server that speaks its protocol."""

from __future__ import annotations

import base64
import contextlib
import zlib
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

from botocore.exceptions import ClientError

from ckptstore._tasks import for_each, in_worker
from ckptstore.backends._s3_answers import Part, object_info, part_of, require_object
from ckptstore.backends._s3_body import SlicedBody, raw_response, read_body, read_body_into
from ckptstore.backends._s3_client import S3Client
from ckptstore.backends._s3_errors import (
    date_of,
    error_code,
    has_expired,
    is_unexplained,
    lacks_condition,
    translated,
)
from ckptstore.backends._s3_examine import findings
from ckptstore.backends._s3_listing import Listing
from ckptstore.backends._s3_options import S3Options, is_loopback
from ckptstore.backends._s3_removal import MAX_KEYS, failures, lacks_operation, may_work_singly, removal
from ckptstore.backends._within import TimeUpError, within
from ckptstore.backends.base import Backend, Buffer, ObjectInfo, Verdict
from ckptstore.errors import (
    BackendError,
    BackendProtocolError,
    CheckpointStoreError,
    CredentialsError,
    ObjectNotFoundError,
    StoreClosedError,
    UnavailableError,
)

__all__ = ["S3Backend"]

T = TypeVar("T")

_SMALL_BYTES = 64 * 1024
"""Copied and sent with the head of the request; what is larger is sent from the caller's memory."""
_PAGE_LIMIT_S = 30.0

_SEEN = ("ExpectedBucketOwner", "RequestPayer")
_NEW = (*_SEEN, "ServerSideEncryption", "SSEKMSKeyId", "StorageClass")


class S3Backend(Backend):
    """Objects under ``prefix`` of ``bucket``, through one client for the backend's life.

    Each verb is one request: single PUTs, ranged GETs, LIST V2, no multipart
    upload, no request that a redirect leads to another host; ``delete_many`` is
    one request as well, or one for each key where the server does not know that
    one. Nothing is tried again, but for one thing: a request that is refused
    because the credentials have expired is repeated once with new ones.

    ``put(if_absent=True)`` is a HEAD and then a PUT with ``If-None-Match``: of
    two at once, the first one stays. Where the server does not know that
    header, or only looks first, it may be the later one. ``modified_s`` of a put
    is the time of its answer, up to a second from what a listing tells.

    ``max_connections`` bounds the requests under way. ``executor`` does what
    would hold up the loop; it is the caller's, and outlives the backend.
    """

    zombie_s: ClassVar[float] = 900.0
    # A signature is good for 15 minutes: so long can a request that was given up still arrive.

    def __init__(
        self, bucket: str, prefix: str, options: S3Options, *, max_connections: int, executor: Executor
    ) -> None:
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self._url = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._options = options
        self._max_connections = max_connections
        self._executor = executor
        self._client = S3Client()
        self._with_checksum = options.checksum == "crc32"
        self._deletes_many = True
        self._knows_conditions = True
        self._reached = False
        self._closed = False

    @property
    def url(self) -> str:
        return self._url

    @property
    def identity(self) -> str:
        """The URL, and the endpoint where that is not Amazon's: any server may have a bucket of this name."""
        endpoint = self._client.endpoint_url
        return self._url if ".amazonaws." in endpoint else f"{self._url} {endpoint}"

    async def open(self) -> None:
        """Make the client; no request is sent to the bucket.

        Raises ConfigError if the AWS configuration cannot be used, CredentialsError.
        """
        try:
            await self._client.open(
                self._options, max_connections=self._max_connections, executor=self._executor
            )
        except CheckpointStoreError:
            raise
        except Exception as exc:  # the border of the SDK, and of a caller's client factory
            raise self._translated(exc, "cannot open", "") from exc
        endpoint = self._client.endpoint_url
        if self._options.checksum == "auto":
            self._with_checksum = endpoint.startswith("http://") and not is_loopback(endpoint)

    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        if length is not None and length <= 0:
            await self.head(key)
            return b""
        try:
            response, part = await self._get(key, start, length)
        except CheckpointStoreError as exc:
            if error_code(exc.__cause__ or exc) == "InvalidRange":
                return b""  # it starts at or past the end
            raise
        what = f"cannot read {key} in {self._url}"
        return await self._body(read_body(response, skip=part.skip, take=part.take, what=what), key)

    async def get_into(self, key: str, into: memoryview) -> int:
        response, part = await self._get(key, 0, None)
        what = f"cannot read {key} in {self._url}"
        if part.take is None:
            data = await self._body(read_body(response, skip=0, take=None, what=what), key)
            if len(data) <= len(into):
                into[: len(data)] = data
            return len(data)
        if part.take > len(into):
            response.close()
        else:
            await self._body(read_body_into(response, into[: part.take], skip=part.skip, what=what), key)
        return part.take

    async def _get(self, key: str, start: int, length: int | None) -> tuple[Any, Part]:
        """Send a GET and return the response, its body unread, and which part of that was asked for."""
        params: dict[str, Any] = {"Key": self._root + key, **self._options.of_requests(*_SEEN)}
        if start or length is not None:
            params["Range"] = f"bytes={start}-{'' if length is None else start + length - 1}"
        answer = await self._request("get_object", "cannot read", key, params)
        response = raw_response(answer["Body"])
        try:
            return response, part_of(answer, start, length, f"cannot read {key} in {self._url}")
        except BackendProtocolError:
            response.close()
            raise

    async def _body(self, reading: Coroutine[Any, Any, T], key: str) -> T:
        try:
            return await reading
        except CheckpointStoreError:
            raise
        except Exception as exc:  # the border of the HTTP client
            raise self._translated(exc, "cannot read", key) from exc

    async def put(
        self, key: str, data: Buffer, *, staged: bool = False, if_absent: bool = False
    ) -> ObjectInfo:
        if if_absent:
            with contextlib.suppress(ObjectNotFoundError):
                return await self.head(key)
            if self._knows_conditions:
                try:
                    return await self._put(key, data, IfNoneMatch="*")
                except BackendError as exc:
                    if error_code(exc.__cause__ or exc) == "PreconditionFailed":
                        return await self.head(key)
                    if not lacks_condition(exc):
                        raise
                    self._knows_conditions = False
        return await self._put(key, data)

    async def put_in_time(self, key: str, data: Buffer, check: Callable[[], None]) -> ObjectInfo:
        return await self._put(key, data, check)

    async def _put(
        self, key: str, data: Buffer, check: Callable[[], None] | None = None, **conditions: str
    ) -> ObjectInfo:
        params: dict[str, Any] = {"Key": self._root + key, **conditions, **self._options.of_requests(*_NEW)}
        if self._with_checksum:
            params["ChecksumCRC32"] = await self._crc32(data)
        body = SlicedBody(data)
        try:
            params["Body"] = body.read() if len(body) <= _SMALL_BYTES else body
            answer = await self._request("put_object", "cannot write", key, params, check)
        finally:
            body.release()
        require_object(answer, f"cannot write {key} in {self._url}")
        seen_s = date_of(answer)
        if seen_s is None:
            raise BackendProtocolError(
                f"cannot write {key} in {self._url}: the answer has no date", transient=True
            )
        return ObjectInfo(key, len(data), seen_s, seen_s)

    async def head(self, key: str) -> ObjectInfo:
        params = {"Key": self._root + key, **self._options.of_requests(*_SEEN)}
        try:
            answer = await self._request("head_object", "cannot read", key, params)
        except CheckpointStoreError as exc:
            if not is_unexplained(exc.__cause__ or exc):
                raise
            await self.get(key, length=1)
            raise UnavailableError(f"{exc}; a moment later it was not refused") from exc
        return object_info(key, answer, f"cannot read {key} in {self._url}")

    async def delete(self, key: str) -> None:
        params = {"Key": self._root + key, **self._options.of_requests(*_SEEN)}
        with contextlib.suppress(ObjectNotFoundError):
            await self._request("delete_object", "cannot delete", key, params)

    async def delete_many(self, keys: Sequence[str]) -> dict[str, BackendError]:
        failed: dict[str, BackendError] = {}
        once = list(dict.fromkeys(keys))
        for start in range(0, len(once), MAX_KEYS):
            failed |= await self._delete_some(once[start : start + MAX_KEYS])
        return failed

    async def _delete_some(self, keys: Sequence[str]) -> dict[str, BackendError]:
        if self._deletes_many:
            params = {**removal(keys, self._root), **self._options.of_requests(*_SEEN)}
            try:
                answer = await self._request(
                    "delete_objects", "cannot delete", f"{len(keys)} objects", params
                )
                return failures(answer, keys, root=self._root, url=self._url)
            except BackendError as exc:
                if not may_work_singly(exc):
                    raise
                self._deletes_many = not lacks_operation(exc)
        failed: dict[str, BackendError] = {}

        async def delete(key: str) -> None:
            try:
                await self.delete(key)
            except BackendError as exc:
                failed[key] = exc

        await for_each(keys, delete, min(self._max_connections, len(keys)))
        return failed

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        root = self._root
        what = f"cannot list {prefix or 'all objects'} in {self._url}"
        listing = Listing(self._page, self._bucket, root + prefix, what)
        async with aclosing(listing.objects(root + after if after else "")) as found:
            async for info in found:
                yield replace(info, key=info.key[len(root) :])

    async def sync(self) -> None:
        self._check_open()  # an acknowledged put is durable

    async def examine(self) -> AsyncGenerator[tuple[str, Verdict, str], None]:
        self._check_open()
        params = self._options.of_requests(*_SEEN)
        found = findings(
            self._client.api, self._bucket, self._root, params, with_checksum=self._with_checksum
        )
        async with aclosing(found):
            async for finding in found:
                yield finding

    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            await self._client.aclose()

    async def _page(self, params: dict[str, Any]) -> Any:
        # A limit here and not around the listing: its caller may take its time between two keys.
        shown = params["Prefix"][len(self._root) :] or "all objects"
        params = {**params, **self._options.of_requests(*_SEEN)}
        try:
            return await within(_PAGE_LIMIT_S, self._request("list_objects_v2", "cannot list", shown, params))
        except TimeUpError as exc:
            raise UnavailableError(
                f"cannot list {shown} in {self._url}: no answer within {_PAGE_LIMIT_S:.0f} s"
            ) from exc

    async def _request(
        self,
        operation: str,
        action: str,
        key: str,
        params: dict[str, Any],
        check: Callable[[], None] | None = None,
    ) -> Any:
        """Send one request and return its answer; once more if the credentials could be renewed.

        ``check`` is called before each, and what it raises is raised.
        """
        self._check_open()
        generation = self._client.generation
        try:
            try:
                answer = await self._send(operation, params, check)
            except ClientError as exc:
                if not has_expired(exc):
                    raise
                try:
                    renewed = await self._client.renew(generation)
                except Exception as why:  # the border of whoever provides credentials
                    raise CredentialsError(
                        f"{action} {key} in {self._url}: the credentials have expired, and new ones could not "
                        f"be got ({type(why).__name__})",
                        transient=True,
                    ) from why
                if not renewed:
                    raise
                answer = await self._send(operation, params, check)
        except CheckpointStoreError:
            raise
        except Exception as exc:  # the border of the SDK, which runs credential providers of others
            raise self._translated(exc, action, key) from exc
        self._reached = True
        return answer

    async def _send(self, operation: str, params: dict[str, Any], check: Callable[[], None] | None) -> Any:
        if check is not None:
            check()
        try:
            return await getattr(self._client.api, operation)(Bucket=self._bucket, **params)
        except ClientError as exc:
            self._reached = self._reached or error_code(exc) == "NoSuchKey"
            raise

    async def _crc32(self, data: Buffer) -> str:
        if len(data) <= _SMALL_BYTES:
            checksum = zlib.crc32(data)
        else:
            checksum = await in_worker(self._executor, zlib.crc32, data)
        return base64.b64encode(checksum.to_bytes(4, "big")).decode()

    def _translated(self, exc: BaseException, action: str, key: str) -> CheckpointStoreError:
        return translated(exc, action, key, self._url, reached=self._reached)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreClosedError(f"{self._url} was used after it was closed")
