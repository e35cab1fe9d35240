"""The wrapper that tries again: how often, how long, how many at once. No test waits."""

from __future__ import annotations

import asyncio
from typing import ClassVar

import pytest

from ckptstore.backends._adaptive import AdaptiveLimit, TokenBucket
from ckptstore.backends._within import TimeUpError, within
from ckptstore.backends.memory import MemoryBackend
from ckptstore.backends.retry import RetryBackend, RetryPolicy
from ckptstore.errors import (
    AccessDeniedError,
    BackendProtocolError,
    ObjectNotFoundError,
    ThrottledError,
    UnavailableError,
)
from ckptstore.testing import Fault, FaultyBackend, SlowBackend


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now = 1000.0
        self.pauses = []

    def __call__(self):
        return self.now

    async def sleep(self, pause_s):
        self.pauses.append(pause_s)
        self.now += pause_s
        await asyncio.sleep(0)


@pytest.fixture
def time():
    return Time()


def most(_, highest):
    return highest


def wrapped(time, *faults, inner=None, **options):
    options.setdefault("draw", most)
    faulty = FaultyBackend(inner or MemoryBackend(), *faults)
    return RetryBackend(faulty, sleep=time.sleep, clock=time, **options)


def test_pauses_double_with_full_jitter_and_eight_tries_are_the_end(time, run):
    drawn = []

    def draw(low, high):
        drawn.append((low, high))
        return high / 2

    backend = wrapped(time, Fault(times=None), draw=draw)
    with pytest.raises(UnavailableError, match="given up after 8 tries"):
        run(backend.put("a/b", b"x"))
    assert [low for low, _ in drawn] == [0] * 8
    assert [high for _, high in drawn[:7]] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4])
    assert time.pauses == pytest.approx([high / 2 for _, high in drawn[:7]])
    assert backend.inner.operations == 8


def test_no_pause_is_longer_than_the_longest(time, run):
    policy = RetryPolicy(tries=12, deadline_s=1000)
    backend = wrapped(time, Fault(times=11), policy=policy)
    run(backend.put("a/b", b"x"))
    assert max(time.pauses) == 20.0


@pytest.mark.parametrize("nbytes", [0, 10 << 20])
def test_the_deadline_grows_with_the_object(time, run, nbytes):
    backend = wrapped(time, Fault(times=None), policy=RetryPolicy(tries=100))
    with pytest.raises(UnavailableError, match="given up after"):
        run(backend.put("a/b", bytes(nbytes)))
    limit_s = 30 + nbytes / (1 << 20)
    assert limit_s - 20 <= time.now - 1000 < limit_s


@pytest.mark.parametrize(
    "error", [AccessDeniedError("no"), ObjectNotFoundError("no"), BackendProtocolError("no")]
)
def test_what_will_not_pass_is_raised_as_it_is_at_once(time, run, error):
    backend = wrapped(time, Fault(error=lambda: error))
    with pytest.raises(type(error)) as caught:
        run(backend.get("a/b"))
    assert caught.value is error
    assert time.pauses == []


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("verb", ["get", "put", "head", "delete", "list"])
def test_every_verb_is_tried_again(time, run, verb, when):
    async def main():
        inner = MemoryBackend()
        await inner.put("a/b", b"x")
        await inner.put("a/c", b"x")
        backend = wrapped(time, Fault(verb=verb, when=when, times=3), inner=inner)
        if verb == "get":
            assert await backend.get("a/b") == b"x"
        elif verb == "put":
            assert (await backend.put("a/d", b"xyz")).size == 3
        elif verb == "head":
            assert (await backend.head("a/b")).size == 1
        elif verb == "delete":
            await backend.delete("a/b")
        else:
            assert [info.key async for info in backend.list("a/")] == ["a/b", "a/c"]
        assert backend.inner.fired == 3

    run(main())


def test_a_listing_goes_on_behind_its_last_key(time, run):
    class Breaking(MemoryBackend):
        """Fails after every second key."""

        async def list(self, prefix, *, after=""):
            n = 0
            async for info in super().list(prefix, after=after):
                if n == 2:
                    raise UnavailableError("cut")
                n += 1
                yield info

    async def main():
        inner = Breaking()
        names = [f"a/{n:02}" for n in range(21)]
        for name in names:
            await inner.put(name, b"")
        backend = wrapped(time, inner=inner)
        assert [info.key async for info in backend.list("a/")] == names
        assert all(pause == 0.1 for pause in time.pauses), "progress starts the count anew"

    run(main())


def test_a_try_that_takes_too_long_is_cancelled_and_another_made(time, run):
    async def main():
        slow = SlowBackend(MemoryBackend())
        gate = slow.gate("put", "a/")
        policy = RetryPolicy(deadline_s=0.05, reserve_s=0.02)
        backend = RetryBackend(slow, policy=policy, sleep=time.sleep, draw=most, clock=time)
        with pytest.raises(UnavailableError, match="takes too long; given up after 1 tries"):
            await backend.put("a/b", b"x")
        assert backend.limit.limit == 4
        assert gate.arrived == 1
        gate.open()
        await backend.put("a/b", b"x")
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_retries_of_all_requests_share_a_bucket(time, run):
    policy = RetryPolicy(max_tokens=3, tokens_per_s=2)
    backend = wrapped(time, Fault(times=None), policy=policy, draw=lambda low, high: 0.0)
    with pytest.raises(UnavailableError):
        run(backend.put("a/b", b"x"))
    assert time.pauses == pytest.approx([0, 0, 0, 0.5, 0.5, 0.5, 0.5])


def test_a_bucket_fills_up_to_its_brim():
    time = Time()
    bucket = TokenBucket(2, 1, time)
    assert [bucket.take() for _ in range(4)] == [0, 0, 1, 2]
    time.now += 100
    assert [bucket.take() for _ in range(3)] == [0, 0, 1]


def test_throttling_halves_the_limit_once_a_moment_and_success_brings_it_back(time, run):
    throttled = Fault(verb="put", times=8, error=lambda: ThrottledError("slow down"))

    async def main():
        backend = wrapped(time, throttled)
        await asyncio.gather(*[backend.put(f"a/{n}", b"x") for n in range(8)])
        assert backend.limit.limit in (4, 5), "halved once, and one round went well since"
        await asyncio.gather(*[backend.put(f"b/{n}", b"x") for n in range(1000)])
        assert backend.limit.limit == 32
        assert backend.limit.under_way == 0

    run(main())


def test_other_failures_leave_the_limit_alone(time, run):
    backend = wrapped(time, Fault(times=5))
    run(backend.put("a/b", b"x"))
    assert backend.limit.limit == 8


def test_a_limit_that_is_not_used_does_not_grow(time, run):
    async def main():
        backend = wrapped(time)
        for n in range(200):
            await backend.put(f"a/{n}", b"x")
        assert backend.limit.limit == 8

    run(main())


def test_no_more_are_under_way_than_the_limit_says(time, run):
    async def main():
        slow = SlowBackend(MemoryBackend())
        gate = slow.gate("get")
        backend = RetryBackend(slow, concurrency=3, max_concurrency=3)
        await slow.inner.put("a/b", b"x")
        tasks = [asyncio.create_task(backend.get("a/b")) for _ in range(7)]
        await gate.until_arrived(3)
        for _ in range(20):
            await asyncio.sleep(0)
        assert gate.arrived == 3
        tasks[4].cancel()
        gate.open()
        await asyncio.wait(tasks)
        assert [task.cancelled() for task in tasks].count(True) == 1
        assert backend.limit.under_way == 0

    run(main())


def test_a_place_is_given_back_whenever_its_owner_is_cancelled(run):
    async def main():
        for turns in range(12):
            limit = AdaptiveLimit(1, 1)

            async def hold(limit=limit):
                async with limit.place():
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)

            tasks = [asyncio.create_task(hold()) for _ in range(3)]
            for _ in range(turns):
                await asyncio.sleep(0)
            tasks[1].cancel()
            await asyncio.wait(tasks)
            assert all(task.cancelled() or task.exception() is None for task in tasks)
            assert limit.under_way == 0
            async with limit.place():
                assert limit.under_way == 1

    run(main())


def test_a_place_that_is_given_back_in_the_moment_a_wait_for_it_is_cancelled_goes_to_the_next(run):
    async def main():
        limit = AdaptiveLimit(1, 1)
        held = limit.place()
        await held.__aenter__()
        places = [limit.place() for _ in range(2)]
        waiting = [asyncio.create_task(place.__aenter__()) for place in places]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await held.__aexit__(None, None, None)  # the one that was cancelled has not run since
        await asyncio.wait(waiting)
        assert waiting[0].cancelled()
        assert waiting[1].exception() is None
        assert limit.under_way == 1
        await places[1].__aexit__(None, None, None)

    run(main())


def test_within_leaves_nothing_running(run):
    ended = []

    async def work(answer):
        try:
            await asyncio.sleep(10 if answer is None else 0)
        finally:
            ended.append(answer)
        return answer

    async def main():
        assert await within(5, work(1)) == 1
        with pytest.raises(TimeUpError):
            await within(0, work(None))
        outer = asyncio.create_task(within(5, work(None)))
        await asyncio.sleep(0.01)
        outer.cancel()
        await asyncio.wait([outer])
        assert outer.cancelled()
        assert ended == [1, None, None] or ended == [1, None]  # one may not have begun
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_the_wrapper_is_as_late_as_what_it_wraps(time):
    inner = MemoryBackend()
    inner.zombie_s = 900.0
    assert wrapped(time, inner=inner).zombie_s == 900.0
    assert wrapped(time).put_in_worker is None
    assert wrapped(time).get_in_worker is None


def test_deleting_many_may_take_longer_than_one_request(run):
    """Some storages delete one by one."""

    async def main():
        inner = SlowBackend(MemoryBackend(), delay_s=0.05)
        backend = RetryBackend(inner, policy=RetryPolicy(deadline_s=0.02, reserve_s=0.01))
        names = [f"a/{n}" for n in range(100)]
        for name in names:
            await inner.inner.put(name, b"x")
        assert await backend.delete_many(names) == {}
        assert inner.inner.space == {}

    run(main())


@pytest.mark.parametrize("kind", [UnavailableError, ThrottledError])
def test_keys_that_failed_in_passing_are_tried_again_alone(run, kind):
    class Partly(MemoryBackend):
        sent: ClassVar[list[list[str]]] = []

        async def delete_many(self, keys):
            self.sent.append(list(keys))
            failed = {key: kind("x") for key in keys if key.endswith("9") and len(self.sent) < 3}
            denied = {key: AccessDeniedError("x") for key in keys if key.endswith("1")}
            await super().delete_many([key for key in keys if key not in failed])
            return failed | denied

    async def main():
        inner, paused = Partly(), []
        inner.sent.clear()

        async def sleep(seconds):
            paused.append(seconds)

        backend = RetryBackend(inner, concurrency=8, sleep=sleep)
        names = [f"a/{n}" for n in range(20)]
        failed = await backend.delete_many(names)
        assert {key: type(error) for key, error in failed.items()} == {
            "a/1": AccessDeniedError,
            "a/11": AccessDeniedError,
        }
        assert inner.sent == [names, ["a/9", "a/19"], ["a/9", "a/19"]]
        assert len(paused) == 2
        assert (backend.limit.limit < 8) == (kind is ThrottledError)

    run(main())


def test_a_sweep_is_tried_again(run):
    async def main():
        backend = RetryBackend(
            FaultyBackend(MemoryBackend(), Fault(verb="sweep", times=2)), sleep=lambda _: asyncio.sleep(0)
        )
        assert await backend.sweep("a/", 0.0) == (0, 0)
        assert backend.inner.fired == 2

    run(main())
