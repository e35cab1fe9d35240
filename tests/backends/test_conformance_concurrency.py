"""What every backend promises of staging, workers, many requests, cancellation and close."""

from __future__ import annotations

import asyncio
import random

import pytest

from ckptstore.errors import ObjectNotFoundError, StoreClosedError


async def keys(backend, prefix="", after=""):
    return [info.key async for info in backend.list(prefix, after=after)]


def over(storage, run, scenario):
    """Run ``scenario(backend)`` over one backend of the storage."""

    async def main():
        async with storage.open() as backend:
            return await scenario(backend)

    return run(main())


def test_staged_puts_are_whole_after_sync(storage, run):
    objects = {f"chunks/{n:02x}/{n}": bytes([n]) * (n * 997) for n in range(50)}

    async def main():
        async with storage.open() as backend:
            tasks = [asyncio.create_task(backend.put(k, v, staged=True)) for k, v in objects.items()]
            await asyncio.wait(tasks)
            assert [task.result().size for task in tasks] == [len(v) for v in objects.values()]
            await backend.sync()
            await backend.sync()
        async with storage.open() as backend:
            for key, data in objects.items():
                assert await backend.get(key) == data
            assert await keys(backend) == sorted(objects)

    run(main())


def test_sync_of_nothing_is_no_error(storage, run):
    over(storage, run, lambda backend: backend.sync())


def test_workers_put_what_others_get(storage, run, executor):
    data = random.Random(5).randbytes(100_000)

    async def scenario(backend):
        if backend.put_in_worker is None:
            pytest.skip("no shortcut for worker threads")
        loop = asyncio.get_running_loop()
        for view in (data, bytearray(data), memoryview(data)):
            key = f"chunks/ab/{type(view).__name__}"
            await loop.run_in_executor(executor, backend.put_in_worker, key, view)
        await backend.sync()
        for key in await keys(backend):
            assert await backend.get(key) == data

    over(storage, run, scenario)


def test_workers_get_into_place_and_learn_the_true_size(storage, run, executor):
    async def scenario(backend):
        if backend.get_in_worker is None:
            pytest.skip("no shortcut for worker threads")
        await backend.put("a/b", b"0123456789")

        async def read(size):
            memory = bytearray(b"." * size)
            loop = asyncio.get_running_loop()
            n = await loop.run_in_executor(executor, backend.get_in_worker, "a/b", memoryview(memory))
            return n, bytes(memory)

        assert await read(10) == (10, b"0123456789")
        assert await read(12) == (10, b"0123456789..")
        assert (await read(9))[0] > 9
        assert (await read(0))[0] > 0
        await backend.put("empty", b"")
        assert backend.get_in_worker("empty", memoryview(bytearray())) == 0
        with pytest.raises(ObjectNotFoundError, match="no/such"):
            backend.get_in_worker("no/such", memoryview(bytearray(3)))

    over(storage, run, scenario)


def test_many_requests_at_once(storage, run):
    async def scenario(backend):
        async def one(n):
            key, data = f"{n % 7}/{n}", bytes([n % 251]) * (n * 13)
            await backend.put(key, data)
            assert await backend.get(key) == data
            assert (await backend.head(key)).size == len(data)
            if n % 2:
                await backend.delete(key)

        tasks = [asyncio.create_task(one(n)) for n in range(60)]
        await asyncio.wait(tasks)
        for task in tasks:
            task.result()
        assert len(await keys(backend)) == 30

    over(storage, run, scenario)


@pytest.mark.parametrize("staged", [False, True])
def test_a_cancelled_put_is_whole_or_absent(storage, run, staged):
    data = bytes(range(256)) * 64

    async def scenario(backend):
        landed = 0
        for turns in range(40):
            key = f"a/{turns}"
            task = asyncio.create_task(backend.put(key, data, staged=staged))
            for _ in range(turns * turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            try:
                assert await backend.get(key) == data
                landed += 1
            except ObjectNotFoundError:
                assert task.cancelled()
        await backend.sync()
        listed = await keys(backend)
        assert len(listed) >= landed
        if not backend.zombie_s:
            assert len(listed) == landed
        for key in listed:
            assert await backend.get(key) == data

    over(storage, run, scenario)


def test_any_call_can_be_cancelled_and_repeated(storage, run):
    async def scenario(backend):
        await backend.put("a/b", b"x" * 1000)
        calls = [
            lambda: backend.get("a/b"),
            lambda: backend.head("a/b"),
            lambda: keys(backend),
            lambda: backend.sync(),
            lambda: backend.put("a/b", b"x" * 1000),
            lambda: backend.delete("a/c"),
        ]
        for call in calls:
            for turns in range(6):
                task = asyncio.ensure_future(call())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                task.cancel()
                await asyncio.wait([task])
            await call()
        assert await backend.get("a/b") == b"x" * 1000
        assert len(asyncio.all_tasks()) == 1

    over(storage, run, scenario)


def test_close_is_idempotent_and_use_after_it_is_an_error(storage, run):
    async def scenario(backend):
        await backend.put("a/b", b"x", staged=True)
        await backend.aclose()
        await backend.aclose()
        calls = [
            lambda: backend.get("a/b"),
            lambda: backend.put("a/c", b"x"),
            lambda: backend.put("a/d", b"x", staged=True),
            lambda: backend.head("a/b"),
            lambda: backend.delete("a/b"),
            lambda: keys(backend),
            lambda: backend.sync(),
        ]
        for call in calls:
            with pytest.raises(StoreClosedError):
                await call()
        for shortcut in (backend.put_in_worker, backend.get_in_worker):
            if shortcut is not None:
                with pytest.raises(StoreClosedError):
                    shortcut("a/b", memoryview(bytearray(1)))

    over(storage, run, scenario)
