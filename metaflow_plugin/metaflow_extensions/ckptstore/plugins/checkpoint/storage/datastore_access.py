"""Metaflow's datastores, object by object: blocking calls, for worker threads.

``Access`` needs nothing but what every DataStoreStorage has. That interface can
neither delete nor tell an object's time, and it reads whole objects only; for
the storages that Metaflow brings, the client that they hold does that.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlparse

from metaflow.plugins.datastores.azure_storage import AzureStorage
from metaflow.plugins.datastores.gs_storage import GSStorage
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow.plugins.datastores.s3_storage import S3Storage
from metaflow.plugins.gcp.gs_utils import parse_gs_full_path

from ckptstore.errors import BackendError, BackendProtocolError, StoreNotFoundError

__all__ = ["Access", "Entry", "access_of", "status_of"]


@dataclass(frozen=True, slots=True)
class Entry:
    """An object, or a folder, by its path in the datastore. ``size`` None: the listing does not tell."""

    path: str
    size: int | None = None
    modified_s: float = 0.0
    is_folder: bool = False


class Access:
    """A storage through Metaflow's own interface and nothing else: what an extension brings.

    An object's time is not known: each counts as just written. There is no way
    to delete.
    """

    zombie_s: ClassVar[float] = 3600.0
    """How long a write may still land: the clients try again for many minutes, a request is good for 15 more."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def identity(self, url: str) -> str:
        """Return what tells the place of this URL from all others."""
        return url

    def save(self, path: str, data: bytes, *, overwrite: bool) -> None:
        """Store an object. Without ``overwrite`` one that exists stays as it is."""
        self._storage.save_bytes([(path, io.BytesIO(data))], overwrite=overwrite, len_hint=1)

    def read(self, path: str, start: int, length: int | None) -> bytes | None:
        """Return the bytes from ``start`` on, cut at the object's end; None if there is no object."""
        with self._storage.load_bytes([path]) as loaded:
            for _, file, _ in loaded:
                return None if file is None else _part(file, start, length)
        return None

    def stat(self, path: str) -> Entry | None:
        """Return what is known of an object; None if there is none."""
        size = self._storage.size_file(path)
        return None if size is None else Entry(path, size, time.time())

    def delete(self, path: str) -> None:
        """Remove an object that may not be there. Raises BackendError where the storage cannot."""
        raise BackendError(
            f"Metaflow's {self._storage.TYPE!r} datastore has no way to delete: unpin and undelete do not "
            "work on it, and nothing is ever collected"
        )

    def folder(self, path: str) -> list[Entry]:
        """Return what stands in a folder, in no order; nothing if there is no folder."""
        found = self._storage.list_content([path])
        return [Entry(one.path.rstrip("/"), is_folder=not one.is_file) for one in found]


class LocalAccess(Access):
    """A folder: also of datastores that extensions derive from it."""

    zombie_s = 0.0

    def read(self, path: str, start: int, length: int | None) -> bytes | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return _part(self._storage.full_uri(path), start, length)
        return None

    def stat(self, path: str) -> Entry | None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = os.stat(self._storage.full_uri(path))
            return Entry(path, found.st_size, found.st_mtime)
        return None

    def delete(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(self._storage.full_uri(path))


class S3Access(Access):
    """A bucket, through the client that Metaflow's S3 datastore holds."""

    def __init__(self, storage: Any) -> None:
        super().__init__(storage)
        root = urlparse(storage.datastore_root, allow_fragments=False)
        self._bucket = root.netloc
        self._prefix = root.path.strip("/")

    def identity(self, url: str) -> str:
        # As ckptstore's own S3 backend has it: tasks with and without aiobotocore share a store.
        endpoint = str(self._client.meta.endpoint_url)
        return url if ".amazonaws." in endpoint else f"{url} {endpoint}"

    def read(self, path: str, start: int, length: int | None) -> bytes | None:
        last = "" if length is None else start + length - 1
        part = {"Range": f"bytes={start}-{last}"} if start or length is not None else {}
        with _Missing():
            try:
                answer = self._client.get_object(**self._object(path), **part)
            except Exception as error:
                if status_of(error) == 416:  # it starts at or past the end
                    return b""
                raise
            return bytes(answer["Body"].read())
        return None

    def stat(self, path: str) -> Entry | None:
        with _Missing():
            found = self._client.head_object(**self._object(path))
            return Entry(path, found["ContentLength"], found["LastModified"].timestamp())
        return None

    def delete(self, path: str) -> None:
        with _Missing():
            self._client.delete_object(**self._object(path))

    def folder(self, path: str) -> list[Entry]:
        # Metaflow's own listing starts a process each time, which takes a second.
        prefix = f"{self._key(path)}/"
        cut = len(prefix) - len(path) - 1
        entries: list[Entry] = []
        more: dict[str, str] = {}
        while True:
            page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=prefix, Delimiter="/", **more)
            if page.get("Name") != self._bucket or "IsTruncated" not in page:
                raise BackendProtocolError(
                    f"a listing of {path} in {self._bucket} is not believed: it is empty"
                )
            entries += [
                Entry(found["Key"][cut:], found["Size"], found["LastModified"].timestamp())
                for found in page.get("Contents", ())
                if found["Key"] != prefix
            ]
            entries += [
                Entry(found["Prefix"][cut:].rstrip("/"), is_folder=True)
                for found in page.get("CommonPrefixes", ())
            ]
            if not page["IsTruncated"]:
                return entries
            more = {"ContinuationToken": page["NextContinuationToken"]}

    @property
    def _client(self) -> Any:
        return self._storage.s3_client.client  # Metaflow makes a new one after an error

    def _key(self, path: str) -> str:
        return f"{self._prefix}/{path}" if self._prefix else path

    def _object(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._key(path)}


class GSAccess(Access):
    """A bucket of Google Cloud Storage, through the client of Metaflow's gs datastore."""

    def read(self, path: str, start: int, length: int | None) -> bytes | None:
        last = None if length is None else start + length - 1
        with _Missing():
            try:
                return bytes(self._blob(path).download_as_bytes(start=start or None, end=last))
            except Exception as error:
                if status_of(error) == 416:
                    return b""
                raise
        return None

    def stat(self, path: str) -> Entry | None:
        with _Missing():
            blob = self._blob(path)
            blob.reload()
            return Entry(path, blob.size, blob.updated.timestamp())
        return None

    def delete(self, path: str) -> None:
        with _Missing():
            self._blob(path).delete()

    def folder(self, path: str) -> list[Entry]:
        root = self._storage.root_client
        _, prefix = parse_gs_full_path(root.get_datastore_root())  # type: ignore[no-untyped-call]  # Metaflow's
        cut = len(prefix) + 1 if prefix else 0
        found = root.get_bucket_client().list_blobs(prefix=root.get_blob_full_path(path) + "/", delimiter="/")
        entries = [Entry(blob.name[cut:], blob.size, blob.updated.timestamp()) for blob in found]
        return entries + [Entry(name[cut:].rstrip("/"), is_folder=True) for name in found.prefixes]

    def _blob(self, path: str) -> Any:
        return self._storage.root_client.get_blob_client(path)


class AzureAccess(Access):
    """A container of Azure Blob Storage, through the client of Metaflow's azure datastore."""

    def read(self, path: str, start: int, length: int | None) -> bytes | None:
        with _Missing():
            try:
                # Without an offset an empty object is no bad range.
                part = {"offset": start, "length": length} if start or length is not None else {}
                return bytes(self._blob(path).download_blob(**part).readall())
            except Exception as error:
                if status_of(error) == 416:
                    return b""
                raise
        return None

    def stat(self, path: str) -> Entry | None:
        with _Missing():
            found = self._blob(path).get_blob_properties()
            return Entry(path, found.size, found.last_modified.timestamp())
        return None

    def delete(self, path: str) -> None:
        with _Missing():
            self._blob(path).delete_blob()

    def folder(self, path: str) -> list[Entry]:
        root = self._storage.root_client
        prefix = root.get_blob_full_path(path) + "/"
        cut = len(prefix) - len(path) - 1
        return [
            Entry(found.name[cut:], found.size, found.last_modified.timestamp())
            if "blob_type" in found
            else Entry(found.name[cut:].rstrip("/"), is_folder=True)
            for found in root.get_blob_container_client().walk_blobs(name_starts_with=prefix)
        ]

    def _blob(self, path: str) -> Any:
        return self._storage.root_client.get_blob_client(path)


_KNOWN: tuple[tuple[type, type[Access]], ...] = (
    (LocalStorage, LocalAccess),
    (S3Storage, S3Access),
    (GSStorage, GSAccess),
    (AzureStorage, AzureAccess),
)


def access_of(storage: Any) -> Access:
    """Return the way to the objects of one of Metaflow's storages, or of one derived from them."""
    return next((access for kind, access in _KNOWN if isinstance(storage, kind)), Access)(storage)


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that an error of one of the clients stands for, if it does."""
    response = getattr(error, "response", None)
    status = (
        response.get("ResponseMetadata", {}).get("HTTPStatusCode")  # botocore
        if isinstance(response, dict)
        else getattr(error, "status_code", None) or getattr(error, "code", None)  # Azure, Google
    )
    return status if isinstance(status, int) else None


class _Missing:
    """Passes over "no such object"; a missing bucket is another matter."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        response = getattr(error, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Code") == "NoSuchBucket":
            raise StoreNotFoundError("the datastore's bucket does not exist") from error
        return error is not None and status_of(error) == 404


def _part(file: str, start: int, length: int | None) -> bytes:
    with open(file, "rb") as opened:
        opened.seek(start)
        return opened.read(-1 if length is None else length)
