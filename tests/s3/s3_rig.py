"""Requests of every kind, and a way to run them."""

from __future__ import annotations

import random

DATA = random.Random(7).randbytes(300_000)


async def keys(backend, prefix=""):
    return [info.key async for info in backend.list(prefix)]


def over(opened, run, scenario, **options):
    async def main():
        async with opened(**options) as backend:
            return await scenario(backend)

    return run(main())


VERBS = {
    "get": lambda backend: backend.get("a/b", length=len(DATA)),
    "put": lambda backend: backend.put("a/b", DATA),
    "head": lambda backend: backend.head("a/b"),
    "delete": lambda backend: backend.delete("a/none"),
    "list": lambda backend: keys(backend, "a/"),
}
