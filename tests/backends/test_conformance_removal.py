"""What every backend promises of deleting many objects and of clearing up."""

from __future__ import annotations

import asyncio
import time

import pytest

from ckptstore.errors import StoreClosedError


async def keys(backend, prefix=""):
    return [info.key async for info in backend.list(prefix)]


def over(storage, run, scenario):
    """Run ``scenario(backend)`` over one backend of the storage."""

    async def main():
        async with storage.open() as backend:
            return await scenario(backend)

    return run(main())


def test_delete_many_removes_those_and_no_others(storage, run):
    async def scenario(backend):
        names = [f"chunks/{n % 3:02x}/{n:03}+~=.raw" for n in range(120)]
        for key in names:
            await backend.put(key, b"x", staged=True)
        await backend.sync()
        gone = names[::2]
        assert await backend.delete_many([*gone, "chunks/00/none", "no/such/directory"]) == {}
        assert await keys(backend) == sorted(names[1::2])
        assert await backend.delete_many(gone) == {}
        assert await backend.delete_many([]) == {}
        assert await backend.delete_many([names[1], names[1]]) == {}
        assert await keys(backend) == sorted(names[3::2])
        await backend.put(names[0], b"again")
        assert await backend.get(names[0]) == b"again"

    over(storage, run, scenario)


def test_what_was_deleted_with_many_is_seen_by_another_backend_at_once(storage, run):
    async def main():
        async with storage.open() as one, storage.open() as two:
            for n in range(5):
                await one.put(f"a/{n}", b"x")
            assert await two.delete_many([f"a/{n}" for n in range(4)]) == {}
            assert await keys(one) == ["a/4"]

    run(main())


def test_a_delete_of_many_can_be_cancelled_and_repeated(storage, run):
    async def scenario(backend):
        names = [f"a/{n}" for n in range(6)]
        for turns in range(6):
            for key in names:
                await backend.put(key, b"x")
            task = asyncio.ensure_future(backend.delete_many(names[1:]))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            task.cancel()
            await asyncio.wait([task])
            assert await backend.delete_many(names[1:]) == {}
            assert await keys(backend) == ["a/0"]
        assert len(asyncio.all_tasks()) == 1

    over(storage, run, scenario)


def test_sweep_leaves_every_object(storage, run):
    async def scenario(backend):
        assert await backend.sweep("chunks/", time.time() + 1000) == (0, 0)
        for key in ("chunks/ab/c", "manifests/c/d", "ckptstore.json"):
            await backend.put(key, b"x")
        for dry_run in (True, False):
            for prefix in ("chunks/", "manifests/", "none/"):
                assert await backend.sweep(prefix, time.time() + 1000, dry_run=dry_run) == (0, 0)
        assert await keys(backend) == ["chunks/ab/c", "ckptstore.json", "manifests/c/d"]

    over(storage, run, scenario)


def test_a_closed_backend_deletes_nothing(storage, run):
    async def scenario(backend):
        await backend.put("a/b", b"x")
        await backend.aclose()
        with pytest.raises(StoreClosedError):
            await backend.delete_many(["a/b"])
        if storage.name.startswith("local"):
            with pytest.raises(StoreClosedError):
                await backend.sweep("a/", 0.0)

    over(storage, run, scenario)
