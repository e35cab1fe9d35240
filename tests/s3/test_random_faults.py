"""Saves and loads through a network that breaks three requests in a hundred."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
import seaweed
from chaos import FAULTS, HTML, RandomFaults, Rule

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore.errors import CheckpointStoreError

OTHERS = [
    Rule("stall", verb="GET"),
    Rule("stall", verb="PUT"),
    Rule("flip_request", verb="PUT"),
    Rule("answer", status=400, code="RequestTimeout"),
    Rule("answer", verb="PUT", status=200, body=b"<Error><Code>InternalError</Code></Error>"),
    Rule("replace", status=502, body=HTML, headers={"Content-Type": "text/html"}),
]
CONFIG = StoreConfig(chunk_bytes=65_536, io_concurrency=4)
SEED = 20


def state(n: int) -> dict[str, object]:
    """Some chunks, of which a third is new each time."""
    fixed = np.random.default_rng(0).standard_normal(16_000)
    return {"fixed": fixed, "new": np.random.default_rng(n).standard_normal(8_000), "n": n}


def same(loaded: dict[str, object], n: int) -> bool:
    expected = state(n)
    return loaded.keys() == expected.keys() and all(
        np.array_equal(loaded[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize(
    "n_rounds", [20, pytest.param(200, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_no_wrong_byte_and_hardly_a_failure(n_rounds, server, proxy, run):
    print(f"seed {SEED}")
    failed = []

    async def scenario() -> None:
        options = seaweed.options_for(proxy.endpoint_url)
        store = await AsyncCheckpointStore.open(
            server.new_url(), config=CONFIG, checksum="crc32", read_timeout_s=0.5, **options
        )
        proxy.random = RandomFaults(SEED, 0.03, [*FAULTS, *OTHERS])
        for n in range(n_rounds):
            saved = None
            try:
                saved = await store.save("a", state(n))
            except CheckpointStoreError as exc:
                failed.append(exc)
            try:
                loaded = await store.load("a" if saved is None else saved)
                assert same(loaded, n if saved else n - 1)
            except CheckpointStoreError as exc:
                failed.append(exc)
        proxy.random = None
        listed = [checkpoint async for checkpoint in store.list("a")]
        assert len(listed) >= n_rounds - len(failed)
        for n, checkpoint in zip(range(n_rounds - 1, n_rounds - 6, -1), listed, strict=False):
            assert failed or same(await store.load(checkpoint), n)
        await store.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    began = time.monotonic()
    run(scenario())
    print(f"{len(proxy.requests)} requests, {len(proxy.hits)} struck, {time.monotonic() - began:.1f} s")
    assert len(proxy.hits) >= 0.015 * len(proxy.requests)
    assert len(failed) <= 0.005 * 2 * n_rounds, failed
