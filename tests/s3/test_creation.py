"""Several processes that make one store in the same moment: whose id it is, all must agree on."""

from __future__ import annotations

import asyncio

import pytest
import seaweed
from chaos import Rule

from ckptstore import AsyncCheckpointStore


async def opened_at_once(url, options, n):
    stores = await asyncio.gather(*(AsyncCheckpointStore.open(url, **options) for _ in range(n)))
    try:
        for store in stores:
            await store.save("c", {"x": 1})
        return {store.store_id for store in stores}, [found async for found in stores[0].list()]
    finally:
        for store in stores:
            await store.aclose()


@pytest.mark.parametrize("attempt", range(3))
def test_stores_that_are_made_at_once_are_one_store(server, run, attempt):
    """A manifest of another store's id could be read by nobody."""
    ids, found = run(opened_at_once(server.new_url(), server.options, 6))
    assert len(ids) == 1
    assert len(found) == 6


@pytest.mark.parametrize(("status", "code"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_a_server_without_conditional_writes_makes_a_store_all_the_same(server, proxy, run, status, code):
    proxy.add(Rule("answer", verb="PUT", key="ckptstore.json", status=status, code=code))
    _, found = run(opened_at_once(server.new_url(), seaweed.options_for(proxy.endpoint_url), 1))
    assert len(found) == 1
    assert proxy.count("PUT", "ckptstore.json") == 2


@pytest.mark.parametrize("kind", ["lost_ack", "refuse", "cut_head"])
def test_a_marker_whose_answer_was_lost_is_the_stores(server, proxy, run, kind):
    proxy.add(Rule(kind, verb="PUT", key="ckptstore.json"))
    url, options = server.new_url(), seaweed.options_for(proxy.endpoint_url)
    first, _ = run(opened_at_once(url, options, 1))
    assert len(proxy.hits) == 1
    assert run(opened_at_once(url, options, 1))[0] == first
