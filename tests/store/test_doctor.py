"""The doctor finds what a storage does not keep, and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckptstore.backends.base import ObjectInfo
from ckptstore.backends.memory import MemoryBackend
from ckptstore.doctor import Finding, examine, examine_backend
from ckptstore.errors import AccessDeniedError


class Forgetful(MemoryBackend):
    """Does not list the last object that was put."""

    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        infos = [info async for info in super().list(prefix, after=after)]
        for info in infos[:-1]:
            yield info


class Unordered(MemoryBackend):
    async def list(self, prefix: str, *, after: str = "") -> AsyncGenerator[ObjectInfo, None]:
        infos = [info async for info in super().list(prefix, after=after)]
        for info in reversed(infos):
            yield info


class Flipping(MemoryBackend):
    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        data = await super().get(key, start=start, length=length)
        return bytes([data[0] ^ 1]) + data[1:]


class RangeIgnoring(MemoryBackend):
    async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return await super().get(key)


class Undeleting(MemoryBackend):
    async def delete(self, key: str) -> None:
        raise AccessDeniedError("delete is not allowed")


class Zombie(MemoryBackend):
    async def delete(self, key: str) -> None:
        return


class Skewed(MemoryBackend):
    async def head(self, key: str) -> ObjectInfo:
        return replace(await super().head(key), seen_s=0.0)


class ReadOnly(MemoryBackend):
    async def put(self, key: str, data: Any, **options: Any) -> ObjectInfo:
        raise AccessDeniedError("put is not allowed")


def findings(backend: MemoryBackend) -> list[Finding]:
    async def gather() -> list[Finding]:
        return [finding async for finding in examine_backend(backend)]

    return asyncio.run(gather())


def test_a_storage_that_keeps_its_promises_has_no_problem() -> None:
    found = findings(MemoryBackend())
    assert len(found) == 6
    assert {finding.verdict for finding in found} == {"ok"}


@pytest.mark.parametrize(
    ("kind", "check"),
    [
        (Forgetful, "list after write, in order"),
        (Unordered, "list after write, in order"),
        (Flipping, "read after write"),
        (RangeIgnoring, "ranges"),
        (Undeleting, "delete"),
        (Zombie, "delete"),
        (Skewed, "clock"),
        (ReadOnly, "write"),
    ],
)
def test_each_broken_promise_is_found(kind: type[MemoryBackend], check: str) -> None:
    problems = {finding.check for finding in findings(kind()) if finding.verdict == "problem"}
    assert check in problems


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    async def gather() -> list[Finding]:
        return [finding async for finding in examine(str(tmp_path))]

    assert {finding.verdict for finding in asyncio.run(gather())} == {"ok"}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
