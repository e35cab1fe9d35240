"""Finds out whether a storage keeps the promises that the store rests on, before data depends on them."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from ckptstore._workers import WorkerPool
from ckptstore.backends import open_backend
from ckptstore.backends.base import Backend, Verdict
from ckptstore.config import StoreConfig
from ckptstore.errors import CheckpointStoreError, ObjectNotFoundError

__all__ = ["Finding", "examine", "examine_backend"]

_N_KEYS = 12
_SKEW_S = 300.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    ``verdict`` is ``ok``, ``problem`` (the store is not safe here) or ``unknown``
    (it could not be found out). ``detail`` says what was seen and what to do.
    """

    check: str
    verdict: Verdict
    detail: str


async def examine(
    url: str, *, config: StoreConfig | None = None, **backend_options: object
) -> AsyncGenerator[Finding, None]:
    """Yield what is found about the storage at ``url``, check by check.

    Writes a few small objects as ``gc/doctor-…`` and deletes them again; a
    store that is there is not touched. Raises what opening the backend raises.
    """
    config = config or StoreConfig()
    workers = WorkerPool(2, name="ckptstore-doctor")
    try:
        backend = await open_backend(url, config=config, executor=workers, create=True, **backend_options)
        try:
            async with aclosing(examine_backend(backend)) as findings:
                async for finding in findings:
                    yield finding
        finally:
            await backend.aclose()
    finally:
        workers.shutdown(wait=False)


async def examine_backend(backend: Backend) -> AsyncGenerator[Finding, None]:
    """The same for an open backend."""
    prefix = f"gc/doctor-{secrets.token_hex(8)}."
    keys = [f"{prefix}{number:02d}" for number in range(_N_KEYS)]
    data = {key: secrets.token_bytes(1000 + number) for number, key in enumerate(keys)}
    checks: list[tuple[str, Callable[[], Awaitable[str]]]] = [
        ("write", lambda: _write(backend, data)),
        ("read after write", lambda: _read(backend, data)),
        ("ranges", lambda: _ranges(backend, keys[0], data[keys[0]])),
        ("list after write, in order", lambda: _list(backend, prefix, keys)),
        ("clock", lambda: _clock(backend, keys[0])),
        ("delete", lambda: _delete(backend, prefix, keys)),
    ]
    try:
        for name, check in checks:
            finding = await _checked(name, check)
            yield finding
            if name == "write" and finding.verdict != "ok":
                return
    finally:
        for key in keys:
            try:
                await backend.delete(key)
            except CheckpointStoreError:
                break  # The check of the right to delete has told.
    async with aclosing(backend.examine()) as own:
        async for name, verdict, detail in own:
            yield Finding(name, verdict, detail)


class _BrokenPromiseError(Exception):
    """A promise that is not kept; the text is for the finding."""


async def _checked(name: str, check: Callable[[], Awaitable[str]]) -> Finding:
    try:
        return Finding(name, "ok", await check())
    except _BrokenPromiseError as exc:
        return Finding(name, "problem", str(exc))
    except CheckpointStoreError as exc:
        return Finding(name, "problem", f"{type(exc).__name__}: {exc}")


async def _write(backend: Backend, data: dict[str, bytes]) -> str:
    for key, content in data.items():
        await backend.put(key, content)
    return f"{len(data)} objects written"


async def _read(backend: Backend, data: dict[str, bytes]) -> str:
    for key, content in data.items():
        if await backend.get(key) != content:
            raise _BrokenPromiseError(
                f"{key} came back with other bytes than were written: do not use this storage"
            )
        if (await backend.head(key)).size != len(content):
            raise _BrokenPromiseError(f"{key} is told to have another size than was written")
    return "the same bytes"


async def _ranges(backend: Backend, key: str, content: bytes) -> str:
    if await backend.get(key, start=100, length=200) != content[100:300]:
        raise _BrokenPromiseError("a range gives other bytes: summaries could not be read")
    return "the bytes that were asked for"


async def _list(backend: Backend, prefix: str, keys: list[str]) -> str:
    listed = [info.key async for info in backend.list(prefix)]
    missing = sorted(set(keys) - set(listed))
    if missing:
        raise _BrokenPromiseError(
            f"{len(missing)} of {len(keys)} objects that were just written are not listed: checkpoints would "
            "not be found, and garbage collection could delete what it does not see"
        )
    if listed != sorted(keys):
        raise _BrokenPromiseError(
            "keys are not listed in ascending order: the newest checkpoint would not be found"
        )
    behind = [info.key async for info in backend.list(prefix, after=keys[3])]
    if behind != sorted(keys)[4:]:
        raise _BrokenPromiseError("a listing from a key on gives other keys")
    return f"all {len(keys)} objects"


async def _clock(backend: Backend, key: str) -> str:
    info = await backend.head(key)
    told = info.seen_s if info.seen_s is not None else info.modified_s
    skew = told - time.time()
    if abs(skew) > _SKEW_S:
        raise _BrokenPromiseError(
            f"the storage's clock is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's: "
            "requests may be refused, and saves expire; set the clock"
        )
    return f"{abs(skew):.0f} s apart"


async def _delete(backend: Backend, prefix: str, keys: list[str]) -> str:
    for key in keys:
        await backend.delete(key)
    try:
        await backend.get(keys[0])
    except ObjectNotFoundError:
        pass
    else:
        raise _BrokenPromiseError("an object can be read after its deletion was acknowledged")
    left = [info.key async for info in backend.list(prefix)]
    if left:
        raise _BrokenPromiseError(f"{len(left)} objects are listed after their deletion was acknowledged")
    return "deleted objects are gone"
