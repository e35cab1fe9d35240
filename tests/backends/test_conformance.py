"""What every backend promises. Runs over every storage of ``conftest.STORAGES``."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from ckptstore.errors import CheckpointStoreError, ObjectNotFoundError


async def keys(backend, prefix="", after=""):
    return [info.key async for info in backend.list(prefix, after=after)]


def over(storage, run, scenario):
    """Run ``scenario(backend)`` over one backend of the storage."""

    async def main():
        async with storage.open() as backend:
            return await scenario(backend)

    return run(main())


@pytest.mark.parametrize("nbytes", [0, 1, 1000, 3 << 20])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_get_returns_what_was_put(storage, run, nbytes, kind):
    data = random.Random(1).randbytes(nbytes)

    async def scenario(backend):
        info = await backend.put("a/b/c", kind(data))
        assert (info.key, info.size) == ("a/b/c", nbytes)
        got = await backend.get("a/b/c")
        assert type(got) is bytes
        assert got == data

    over(storage, run, scenario)


class TooLate(CheckpointStoreError):
    """What a check of a test raises."""


def test_a_put_in_time_is_a_put_and_one_too_late_is_none(storage, run):
    def late():
        raise TooLate

    async def scenario(backend):
        checks = []
        info = await backend.put_in_time("a/b", memoryview(b"in time"), lambda: checks.append(1))
        assert (info.key, info.size) == ("a/b", 7)
        assert checks == [1]
        with pytest.raises(TooLate):
            await backend.put_in_time("a/c", b"too late", late)
        assert await keys(backend) == ["a/b"]
        assert await backend.get("a/b") == b"in time"

    over(storage, run, scenario)


@pytest.mark.parametrize("staged", [False, True])
def test_the_buffer_is_not_kept(storage, run, staged):
    async def scenario(backend):
        data = bytearray(b"before")
        await backend.put("a/b", data, staged=staged)
        data[:] = b"after!"
        data.extend(b"resizing fails while a view of it is kept")
        await backend.sync()
        assert await backend.get("a/b") == b"before"

    over(storage, run, scenario)


def test_a_put_is_seen_by_another_backend_at_once(storage, run):
    async def main():
        async with storage.open() as one, storage.open() as two:
            await one.put("a/b", b"x")
            assert await two.get("a/b") == b"x"
            assert await keys(two) == ["a/b"]
            await one.delete("a/b")
            assert await keys(two) == []
            with pytest.raises(ObjectNotFoundError):
                await two.get("a/b")

    run(main())


@pytest.mark.parametrize(
    ("start", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (0, 4, b"0123"),
        (4, 3, b"456"),
        (9, 1, b"9"),
        (3, None, b"3456789"),
        (8, 100, b"89"),
        (10, 5, b""),
        (99, 5, b""),
        (99, None, b""),
        (2, 0, b""),
    ],
)
def test_ranges_are_cut_at_the_end(storage, run, start, length, expected):
    async def scenario(backend):
        await backend.put("a/b", b"0123456789")
        assert await backend.get("a/b", start=start, length=length) == expected

    over(storage, run, scenario)


@pytest.mark.parametrize("key", ["nothing", "no/such/key", "a/b/c"])
def test_a_missing_object_is_not_found_and_named(storage, run, key):
    async def scenario(backend):
        await backend.put("a/b/other", b"")
        for attempt in (backend.get(key), backend.get(key, start=1, length=0), backend.head(key)):
            with pytest.raises(ObjectNotFoundError, match=key):
                await attempt

    over(storage, run, scenario)


def test_head_and_list_agree_with_put(storage, run):
    async def scenario(backend):
        started = time.time()
        put = await backend.put("a/b", b"12345")
        head = await backend.head("a/b")
        (listed,) = [info async for info in backend.list("a/")]
        for info in (put, head, listed):
            assert (info.key, info.size) == ("a/b", 5)
            assert abs(info.modified_s - put.modified_s) <= (0 if storage.exact else 2)
        assert abs(put.modified_s - started) < 5
        for info in (put, head, listed):
            assert info.seen_s is None or abs(info.seen_s - started) < 5

    over(storage, run, scenario)


def test_a_put_replaces_the_whole_object(storage, run):
    async def scenario(backend):
        await backend.put("a/b", b"a long first text")
        await backend.put("a/b", b"short")
        assert await backend.get("a/b") == b"short"
        assert await keys(backend) == ["a/b"]

    over(storage, run, scenario)


def test_if_absent_leaves_what_is_there_and_tells_of_it(storage, run):
    async def scenario(backend):
        first = await backend.put("a/b", b"first", if_absent=True)
        second = await backend.put("a/b", b"another", if_absent=True)
        assert second.size == 5
        assert abs(second.modified_s - first.modified_s) <= (0 if storage.exact else 2)
        assert await backend.get("a/b") == b"first"
        assert await keys(backend) == ["a/b"]

    over(storage, run, scenario)


def test_of_many_if_absent_one_wins_and_all_are_told_of_it(storage, run):
    if not storage.exact:
        pytest.skip("of two in the same moment, the later put stays")

    async def main():
        async with storage.open() as one, storage.open() as two:
            for attempt in range(5):
                key = f"a/{attempt}"
                tasks = [
                    asyncio.create_task((one, two)[n % 2].put(key, bytes(n + 1), if_absent=True))
                    for n in range(12)
                ]
                await asyncio.wait(tasks)
                sizes = {task.result().size for task in tasks}
                assert sizes == {len(await one.get(key))}

    run(main())


def test_delete_removes_and_can_be_repeated(storage, run):
    async def scenario(backend):
        await backend.put("a/b", b"x")
        await backend.put("a/c", b"y")
        await backend.delete("a/b")
        await backend.delete("a/b")
        await backend.delete("never/was")
        assert await keys(backend) == ["a/c"]
        await backend.put("a/b", b"again")
        assert await backend.get("a/b") == b"again"

    over(storage, run, scenario)


def test_list_is_in_ascending_order_of_the_full_key(storage, run):
    # "/" sorts after "-", "." and "+" and before digits and letters.
    names = [
        "a/b",
        "a-/b",
        "a.b/c",
        "a.b/c.x",
        "a+",
        "a0/b",
        "aa/b",
        "a/b.k",
        "a/b~c",
        "B/a",
        "ckptstore.json",
    ]

    async def scenario(backend):
        for key in random.Random(3).sample(names, len(names)):
            await backend.put(key, key.encode())
        assert await keys(backend) == sorted(names)
        assert await keys(backend, "a") == sorted(key for key in names if key.startswith("a"))
        assert await keys(backend, "a/") == ["a/b", "a/b.k", "a/b~c"]
        assert await keys(backend, "a/b.") == ["a/b.k"]
        assert await keys(backend, "a/b") == ["a/b", "a/b.k", "a/b~c"]
        assert await keys(backend, "a.b/c.x") == ["a.b/c.x"]

    over(storage, run, scenario)


@pytest.mark.parametrize("seed", range(3))
def test_list_equals_a_sorted_dict(storage, run, seed):
    rng = random.Random(seed)
    alphabet = "ab.+~-_=0Z"

    def part():
        return "".join(rng.choice(alphabet) for _ in range(rng.randint(1, 3))).replace(".", "x.x")

    names = {f"{part()}/{part()}/{part()}" for _ in range(80)}

    async def scenario(backend):
        for key in names:
            await backend.put(key, b"", staged=True)
        await backend.sync()
        for _ in range(40):
            prefix = rng.choice(sorted(names))[: rng.randint(0, 8)]
            after = rng.choice(["", *names, prefix, prefix + "~"])[: rng.randint(0, 10)]
            expected = sorted(key for key in names if key.startswith(prefix) and key > after)
            assert await keys(backend, prefix, after) == expected, (prefix, after)

    over(storage, run, scenario)


def test_list_of_nothing_is_empty(storage, run):
    async def scenario(backend):
        assert await keys(backend) == []
        assert await keys(backend, "no/such/") == []
        await backend.put("a/b", b"")
        assert await keys(backend, "a/c") == []
        assert await keys(backend, "b/") == []
        assert await keys(backend, "a/", after="a/b") == []

    over(storage, run, scenario)


def test_a_listing_may_be_left_early(storage, run):
    async def scenario(backend):
        for n in range(600):
            await backend.put(f"a/{n:03}", b"", staged=True)
        await backend.sync()
        listing = backend.list("a/")
        assert (await anext(listing)).key == "a/000"
        await listing.aclose()
        assert len(await keys(backend, "a/")) == 600

    over(storage, run, scenario)


def test_objects_may_go_while_they_are_listed(storage, run):
    async def scenario(backend):
        for n in range(600):
            await backend.put(f"{n % 3}/{n:03}", b"", staged=True)
        seen = []
        async for info in backend.list(""):
            seen.append(info.key)
            await backend.delete(f"2/{600 - len(seen) - 1:03}")
        assert seen == sorted(seen)
        assert {key for key in seen if key[0] != "2"} == {f"{n % 3}/{n:03}" for n in range(600) if n % 3 != 2}

    over(storage, run, scenario)
