"""Storages under one contract, and the URLs that name them.

/some/path, some/path     a directory
file:///some/path         the same; %XX stands for a byte, as in every URL
memory://, memory://name  this process's memory; a new, empty one each time
s3://bucket/prefix        a bucket of S3 or of a server like it; options are arguments
"""

from __future__ import annotations

import asyncio
import os
import re
import time
from concurrent.futures import Executor
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from ckptstore._tasks import in_worker
from ckptstore.backends.base import Backend
from ckptstore.errors import ConfigError, InvalidURLError

if TYPE_CHECKING:
    from ckptstore.config import StoreConfig

__all__ = ["StoreURL", "open_backend", "parse_url"]

Scheme = Literal["file", "memory", "s3"]

_SCHEMES: tuple[Scheme, ...] = ("file", "memory", "s3")
_OPTIONS: dict[Scheme, frozenset[str]] = {"file": frozenset(), "memory": frozenset({"space", "clock"})}
_S3_GROWTH = 4
_NOT_FOR_DATA = ("/dev/", "/proc/", "/sys/")
_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]*\Z")
_MAX_SHOWN = 500
_BUCKET = re.compile(r"[0-9a-z][0-9a-z.-]{1,61}[0-9a-z]\Z")


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A store URL in its parts.

    ``path`` is the absolute directory of a ``file`` store, the name of a
    ``memory`` store, the prefix in the bucket of an ``s3`` store (no slash
    around it).
    """

    scheme: Scheme
    path: str
    bucket: str = ""


def parse_url(url: str | os.PathLike[str]) -> StoreURL:
    """Return the parts of a store URL or of a plain path. Touches no disk.

    Raises InvalidURLError, whose message leaves out passwords and queries.
    """
    text = os.fspath(url) if isinstance(url, (str, os.PathLike)) else None
    if not isinstance(text, str):
        raise InvalidURLError(f"a store URL must be a string or a path, not {type(url).__name__}")
    if not text.strip():
        raise InvalidURLError("the store URL is empty; give a directory, file:///… or memory://")
    shown = _shown(text)
    if _unprintable(text):
        raise InvalidURLError(f"the store URL {shown} has a control character in it")
    scheme, separator, rest = text.partition("://")
    if not separator or "/" in scheme:
        return _parse_path(text, shown)
    known = next((one for one in _SCHEMES if one == scheme.lower()), None)
    if known is None:
        raise InvalidURLError(f"the store URL {shown} is of an unknown kind; known are file, memory and s3")
    for mark, what in (("?", "a query: options are arguments"), ("#", "a fragment"), ("\\", "a backslash")):
        if mark in rest:
            raise InvalidURLError(f"the store URL {shown} has {what}")
    authority, slash, path = rest.partition("/")
    if "@" in authority:
        raise InvalidURLError(
            f"the store URL {shown} has a user or password in it; credentials never belong in a URL"
        )
    decoded = unquote(path, errors="surrogateescape")
    if _unprintable(decoded):
        raise InvalidURLError(f"the store URL {shown} has a control character in it")
    if ".." in decoded.split("/"):
        raise InvalidURLError(f"the store URL {shown} has '..' in its path")
    if known == "file":
        if authority not in ("", "localhost"):
            raise InvalidURLError(
                f"the store URL {shown} names a host; a directory is file:///path, with three slashes"
            )
        return _directory("/" + decoded if slash else "", shown)
    if known == "memory":
        if slash or not (authority == "" or _NAME.match(authority)):
            raise InvalidURLError(f"the store URL {shown} is not memory:// or memory://name")
        return StoreURL("memory", authority)
    if not _BUCKET.match(authority):
        raise InvalidURLError(f"the store URL {shown} names no bucket; it is s3://bucket/prefix")
    prefix = decoded.strip("/")
    if any(part in ("", ".") for part in prefix.split("/")) and prefix:
        raise InvalidURLError(f"the store URL {shown} has an empty part or '.' in its path")
    return StoreURL("s3", prefix, authority)


async def open_backend(
    url: str | os.PathLike[str],
    *,
    config: StoreConfig,
    executor: Executor,
    create: bool = True,
    **backend_options: Any,
) -> Backend:
    """Open the backend that ``url`` names.

    ``executor`` runs its blocking calls and outlives it. ``create``: make the
    directory of a local store if it is missing. Options: ``space`` (objects to
    share, of another MemoryBackend) and ``clock`` for ``memory``.

    Raises InvalidURLError, and ConfigError for an option that the backend does
    not have, before any I/O; StoreNotFoundError if there is nothing and
    ``create`` is False; BackendError if the storage cannot be used.
    """
    parsed = parse_url(url)
    if parsed.scheme == "s3":
        return await _open_s3(parsed, config, executor, backend_options)
    unknown = sorted(set(backend_options) - _OPTIONS[parsed.scheme])
    if unknown:
        raise ConfigError(f"a {parsed.scheme} store has no option {unknown[0]!r}")
    if parsed.scheme == "memory":
        if not isinstance(backend_options.get("space", {}), dict):
            raise ConfigError("the option space of a memory store must be the space of another one, a dict")
        if not callable(backend_options.get("clock", time.time)):
            raise ConfigError("the option clock of a memory store must be a function that returns seconds")
        from ckptstore.backends.memory import MemoryBackend

        return MemoryBackend(name=parsed.path, **backend_options)
    from ckptstore.backends.local import LocalBackend

    backend = LocalBackend(parsed.path, durability=config.durability, executor=executor)
    try:
        await backend.open(create=create)
    except (Exception, asyncio.CancelledError):
        await backend.aclose()
        raise
    return backend


async def _open_s3(
    parsed: StoreURL, config: StoreConfig, executor: Executor, backend_options: dict[str, Any]
) -> Backend:
    from ckptstore.backends._s3_options import S3Options
    from ckptstore.backends.retry import RetryBackend

    options = S3Options.of(backend_options)
    try:
        # The client library takes half a second to import, which would hold up the loop.
        module = await in_worker(executor, import_module, "ckptstore.backends.s3")
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("ckptstore"):
            raise
        raise ConfigError(
            f'an s3 store needs {exc.name}, which is not installed: pip install "ckptstore[s3]"'
        ) from exc
    # A distant storage wants more requests under way than a near one: how many, is found out.
    most = _S3_GROWTH * config.io_concurrency
    backend = module.S3Backend(parsed.bucket, parsed.path, options, max_connections=most, executor=executor)
    await backend.open()
    return RetryBackend(backend, concurrency=config.io_concurrency, max_concurrency=most)


def _parse_path(text: str, shown: str) -> StoreURL:
    if "?" in text:
        raise InvalidURLError(f"the path {shown} has a query; options are arguments, and file:///… takes %3F")
    if re.match(rf"({'|'.join(_SCHEMES)}|https?):", text, re.IGNORECASE):
        raise InvalidURLError(f"the store URL {shown} lacks the two slashes after its colon")
    if text.startswith("~"):
        raise InvalidURLError(
            f"the path {shown} starts with '~', which is not expanded; write the directory out"
        )
    return _directory(text, shown)


def _directory(path: str, shown: str) -> StoreURL:
    if not path.strip("/"):
        raise InvalidURLError(f"the store URL {shown} names no directory")
    absolute = os.path.abspath(path)
    inside = f"{absolute}/"
    if inside.startswith(_NOT_FOR_DATA) and not inside.startswith("/dev/shm/"):
        raise InvalidURLError(f"the store URL {shown} is not in a file system for data")
    return StoreURL("file", absolute)


def _unprintable(text: str) -> bool:
    return any(ord(char) < 32 or ord(char) == 127 for char in text)


def _shown(text: str) -> str:
    """Return what of a URL may appear in a message: no user, no password, no query."""
    head = re.split(r"[?#]", text, maxsplit=1)[0]
    scheme, separator, rest = head.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        head = scheme + separator + authority.rpartition("@")[2] + slash + path
    return repr(head if len(head) <= _MAX_SHOWN else head[:_MAX_SHOWN] + "...")
