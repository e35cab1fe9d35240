from __future__ import annotations

import asyncio
import random

import pytest

from ckptstore._budget import ByteBudget


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_acquire_within_the_limit_does_not_wait(run):
    async def main():
        budget = ByteBudget(10)
        await budget.acquire(4)
        await budget.acquire(6)
        assert budget.in_use == 10

    run(main())


def test_requests_are_served_in_order_even_where_a_later_one_would_fit(run):
    async def main():
        budget, order = ByteBudget(10), []

        async def take(n):
            await budget.acquire(n)
            order.append(n)

        await budget.acquire(8)
        large, small = asyncio.create_task(take(5)), asyncio.create_task(take(1))
        await settle()
        assert order == []
        budget.release(8)
        await asyncio.wait([large, small])
        assert order == [5, 1]

    run(main())


def test_an_item_above_the_limit_passes_only_when_nothing_is_in_use(run):
    async def main():
        budget = ByteBudget(10)
        await budget.acquire(1)
        large = asyncio.create_task(budget.acquire(50))
        await settle()
        assert not large.done()
        budget.release(1)
        await large
        assert budget.in_use == 50
        small = asyncio.create_task(budget.acquire(0))
        await settle()
        assert not small.done()
        budget.release(50)
        await small

    run(main())


def test_a_cancelled_wait_takes_nothing_and_lets_the_next_pass(run):
    async def main():
        budget = ByteBudget(10)
        await budget.acquire(6)
        large, small = asyncio.create_task(budget.acquire(9)), asyncio.create_task(budget.acquire(4))
        await settle()
        assert not small.done()
        large.cancel()
        await small
        assert budget.in_use == 10

    run(main())


def test_a_wait_cancelled_in_the_turn_it_was_granted_gives_the_bytes_back(run):
    async def main():
        budget = ByteBudget(10)
        await budget.acquire(10)
        waiting = asyncio.create_task(budget.acquire(10))
        await settle()
        budget.release(10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert budget.in_use == 0
        await asyncio.wait_for(budget.acquire(10), 1)

    run(main())


@pytest.mark.parametrize("seed", range(5))
def test_the_limit_holds_under_random_use_and_cancellation(run, seed):
    async def main():
        rng = random.Random(seed)
        budget, peak = ByteBudget(100), 0

        async def use(n):
            nonlocal peak
            await budget.acquire(n)
            try:
                peak = max(peak, budget.in_use)
                for _ in range(rng.randrange(4)):
                    await asyncio.sleep(0)
            finally:
                budget.release(n)

        tasks = [asyncio.create_task(use(rng.randrange(101))) for _ in range(200)]
        for task in rng.sample(tasks, 60):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait(tasks)
        assert budget.in_use == 0
        assert peak <= 100

    run(main())


def test_nonsense_is_refused(run):
    async def main():
        with pytest.raises(ValueError, match="above 0"):
            ByteBudget(0)
        budget = ByteBudget(1)
        with pytest.raises(ValueError, match="cannot acquire"):
            await budget.acquire(-1)
        with pytest.raises(ValueError, match="cannot release"):
            budget.release(1)

    run(main())
