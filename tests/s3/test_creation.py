"""Several processes that make one store in the same moment: whose id it is, all must agree on."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import seaweed
from chaos import Rule

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore._keys import MARKER
from ckptstore.backends import open_backend
from ckptstore.backends._s3_options import S3Options
from ckptstore.backends.s3 import S3Backend


async def opened_at_once(url, options, n):
    stores = await asyncio.gather(*(AsyncCheckpointStore.open(url, **options) for _ in range(n)))
    try:
        for store in stores:
            await store.save("c", {"x": 1})
        return {store.store_id for store in stores}, [found async for found in stores[0].list()]
    finally:
        for store in stores:
            await store.aclose()


async def emptied(url, options):
    with ThreadPoolExecutor(1) as executor:
        backend = await open_backend(url, config=StoreConfig(), executor=executor, **options)
        try:
            assert await backend.delete_many([info.key async for info in backend.list("")]) == {}
        finally:
            await backend.aclose()


@pytest.mark.parametrize("attempt", range(3))
def test_stores_that_are_made_at_once_are_one_store(server, run, attempt):
    """A manifest of another store's id could be read by nobody."""
    ids, found = run(opened_at_once(server.new_url(), server.options, 6))
    assert len(ids) == 1
    assert len(found) == 6


def test_a_server_that_keeps_the_later_marker_has_one_store(server, run, monkeypatch):
    """As one does that ignores If-None-Match, or looks first and then stores."""
    makers, all_here = [], asyncio.Event()

    async def later_one_stays(self, key, data, *, staged=False, if_absent=False):
        if key == MARKER:
            makers.append(self)
            if len(makers) == 3:
                all_here.set()
            await all_here.wait()
        return await self._put(key, data)

    monkeypatch.setattr(S3Backend, "put", later_one_stays)
    ids, found = run(opened_at_once(server.new_url(), server.options, 3))
    assert len(makers) == 3
    assert len(ids) == 1
    assert len(found) == 3


def test_stores_at_the_same_url_of_two_servers_are_two(server, proxy, run):
    """Behind another endpoint it may be another server, and a copy from one to the other is no copy to itself."""
    url, behind = server.new_url(), seaweed.options_for(proxy.endpoint_url)
    first, _ = run(opened_at_once(url, behind, 1))
    assert run(opened_at_once(url, server.options, 1))[0] == first, "a store keeps the id that it has"
    run(emptied(url, server.options))
    second, _ = run(opened_at_once(url, server.options, 1))
    assert second != first


@pytest.mark.parametrize(
    ("endpoint_url", "told"),
    [
        (None, "s3://b/p"),
        ("https://s3.eu-west-1.amazonaws.com", "s3://b/p"),
        ("http://127.0.0.1:1", "s3://b/p http://127.0.0.1:1"),
    ],
)
def test_amazons_buckets_are_the_same_at_every_endpoint(run, endpoint_url, told):
    async def main():
        options = S3Options.of({**seaweed.options_for("http://127.0.0.1:1"), "endpoint_url": endpoint_url})
        with ThreadPoolExecutor(1) as executor:
            backend = S3Backend("b", "p", options, max_connections=1, executor=executor)
            await backend.open()
            try:
                assert backend.identity == told
            finally:
                await backend.aclose()

    run(main())


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
