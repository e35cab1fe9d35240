"""Whole saves and loads while the storage fails."""

from __future__ import annotations

import numpy as np
import pytest
import seaweed
from chaos import Rule

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore.errors import BackendError, CheckpointStoreError, FormatError, IntegrityError

CONFIG = StoreConfig(chunk_bytes=32_768, codec="raw")


def values(seed):
    return {"array": np.random.default_rng(seed).standard_normal(40_000)}


def same(loaded, seed):
    return np.array_equal(loaded["array"], values(seed)["array"])


def over_store(server, proxy, run, scenario):
    async def main():
        options = seaweed.options_for(proxy.endpoint_url)
        async with await AsyncCheckpointStore.open(server.new_url(), config=CONFIG, **options) as store:
            first = await store.save("a", values(1))
            proxy.clear()
            await scenario(store, first)
            proxy.clear()
            await store.save("a", values(3))
            assert same(await store.load("a"), 3)
            assert same(await store.load(first), 1)

    run(main())


@pytest.mark.parametrize(
    ("status", "code"), [(404, "NoSuchBucket"), (403, "AccessDenied"), (507, "InsufficientStorage")]
)
@pytest.mark.parametrize("key", ["chunks/", "manifests/"])
def test_a_save_that_is_refused_half_way_leaves_the_older_checkpoints(server, proxy, run, key, status, code):
    async def scenario(store, first):
        proxy.add(
            Rule("answer", key=key, nth=1 + (key == "chunks/") * 4, status=status, code=code, times=None)
        )
        with pytest.raises(BackendError):
            await store.save("a", values(2))
        proxy.clear()
        assert [one.ref async for one in store.list("a")] == [first.ref]
        assert same(await store.load("a"), 1)

    over_store(server, proxy, run, scenario)


@pytest.mark.parametrize("kind", ["lost_ack", "cut_head", "cut_request", "refuse"])
def test_a_commit_without_an_answer_is_found_out_about(server, proxy, run, kind):
    async def scenario(store, first):
        proxy.add(Rule(kind, verb="PUT", key="manifests/"))
        second = await store.save("a", values(2))
        assert len(proxy.hits) == 1
        assert [one.ref async for one in store.list("a")] == [second.ref, first.ref]

    over_store(server, proxy, run, scenario)


def test_a_chunk_that_was_flipped_on_its_way_is_got_again(server, proxy, run):
    async def scenario(store, first):
        proxy.add(Rule("flip", verb="GET", key="chunks/", nth=3, times=4))
        assert same(await store.load("a"), 1)
        assert len(proxy.hits) == 4

    over_store(server, proxy, run, scenario)


def test_a_manifest_that_was_flipped_on_its_way_is_an_error_or_right(server, proxy, run):
    async def scenario(store, first):
        for at in range(0, 100, 7):
            proxy.clear()
            proxy.add(Rule("flip", verb="GET", key="manifests/", at=at / 100))
            try:
                assert same(await store.load("a"), 1)
            except (FormatError, IntegrityError):
                assert len(proxy.hits) == 1

    over_store(server, proxy, run, scenario)


def test_an_unbelievable_listing_never_means_that_there_is_no_checkpoint(server, proxy, run):
    async def scenario(store, first):
        empty = (
            b"<?xml version='1.0'?><ListBucketResult><Name>test</Name><KeyCount>0</KeyCount>"
            b"<IsTruncated>false</IsTruncated></ListBucketResult>"
        )
        for rule in (
            Rule("replace", verb="LIST", status=200, body=empty, times=None),
            Rule("answer", verb="LIST", status=403, code="AccessDenied", times=None),
            Rule("answer", verb="LIST", status=404, code="NoSuchBucket", times=None),
        ):
            proxy.clear()
            proxy.add(rule)
            with pytest.raises(CheckpointStoreError):
                await store.latest("a")

    over_store(server, proxy, run, scenario)
