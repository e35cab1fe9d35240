"""Credentials that expire, and those who provide them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging

import numpy as np
import pytest
import seaweed
from aiobotocore.credentials import AioRefreshableCredentials
from aiobotocore.session import AioSession
from chaos import Rule

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore.errors import CredentialsError, SaveExpiredError


class Provider:
    """Gives the test's credentials as a role does: for an hour, and counted; ``down`` makes it fail."""

    def __init__(self, endpoint_url):
        self.endpoint_url = endpoint_url
        self.asked = 0
        self.down = False

    async def fetch(self):
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise RuntimeError("the provider fell over with secret-of-the-provider")
        until = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(hours=1)
        return {
            "access_key": seaweed.ACCESS_KEY,
            "secret_key": seaweed.SECRET_KEY,
            "token": None,
            "expiry_time": until.isoformat(),
        }

    @contextlib.asynccontextmanager
    async def client(self, config):
        session = AioSession()
        session._credentials = AioRefreshableCredentials.create_from_metadata(
            await self.fetch(), refresh_using=self.fetch, method="test"
        )
        async with session.create_client(
            "s3", region_name="us-east-1", endpoint_url=self.endpoint_url, config=config
        ) as client:
            yield client


@pytest.fixture
def provider(proxy):
    return Provider(proxy.endpoint_url)


@pytest.fixture(autouse=True)
def _quiet():
    # botocore logs the provider's exception; that is its user's own.
    logging.getLogger("aiobotocore.credentials").setLevel("CRITICAL")
    logging.getLogger("botocore.credentials").setLevel("CRITICAL")


def test_many_requests_with_expired_credentials_get_new_ones_once(provider, opened, proxy, run):
    async def scenario():
        async with opened(client_factory=provider.client) as backend:
            assert provider.asked == 1
            for n in range(6):
                proxy.add(Rule("answer", key=f"a/{n}$", status=400, code="ExpiredToken"))
            await asyncio.gather(*[backend.put(f"a/{n}", b"x") for n in range(6)])
            assert provider.asked == 2
            assert len(proxy.hits) == 6
            assert proxy.count("PUT") == 12

    run(scenario())


def test_new_credentials_that_come_too_late_send_no_commit_again(provider, opened, proxy, run):
    in_time = [True]

    def check():
        if not in_time.pop():
            raise SaveExpiredError("too late")

    async def scenario():
        async with opened(client_factory=provider.client) as backend:
            proxy.add(Rule("answer", key="a/b$", status=400, code="ExpiredToken"))
            in_time.insert(0, False)
            with pytest.raises(SaveExpiredError, match="too late"):
                await backend.put_in_time("a/b", b"x", check)
            assert proxy.count("PUT", "a/b$") == 1
            assert provider.asked == 2

    run(scenario())


def test_credentials_that_are_still_refused_after_that_are_an_error(provider, opened, proxy, run):
    async def scenario():
        async with opened(client_factory=provider.client) as backend:
            proxy.add(Rule("answer", status=400, code="ExpiredToken", times=None))
            with pytest.raises(CredentialsError, match="have expired") as caught:
                await backend.put("a/b", b"x")
            assert not caught.value.transient
            assert len(proxy.hits) == 2

    run(scenario())


def test_a_provider_that_is_down_is_asked_again_and_never_quoted(provider, opened, proxy, run):
    async def scenario():
        async with opened(client_factory=provider.client) as backend:
            provider.down = True
            proxy.add(Rule("answer", verb="PUT", status=400, code="ExpiredToken", times=None))
            with pytest.raises(CredentialsError, match=r"could not be got \(RuntimeError\)") as caught:
                await backend.put("a/b", b"x")
            assert provider.asked == 1 + 8
            assert "secret-of-the-provider" not in str(caught.value)
            proxy.clear()
            proxy.add(Rule("answer", verb="PUT", status=400, code="ExpiredToken"))
            provider.down = False
            await backend.put("a/b", b"x")

    run(scenario())


def test_what_was_acknowledged_before_credentials_expired_is_not_sent_again(provider, server, proxy, run):
    values = {"array": np.random.default_rng(1).standard_normal(40_000)}
    config = StoreConfig(chunk_bytes=32_768, codec="raw")

    async def scenario():
        url = server.new_url()
        async with await AsyncCheckpointStore.open(
            url, config=config, client_factory=provider.client
        ) as store:
            proxy.add(Rule("answer", verb="PUT", key="chunks/", nth=5, status=400, code="ExpiredToken"))
            await store.save("a", values)
            assert len(proxy.hits) == 1
            sent = [key for verb, key, _ in proxy.requests if verb == "PUT" and "chunks/" in key]
            struck = proxy.hits[0][1]
            assert len(set(sent)) == 10
            assert all(sent.count(key) == (2 if key == struck else 1) for key in sent)
            loaded = await store.load("a")
            assert np.array_equal(loaded["array"], values["array"])

    run(scenario())


def test_static_credentials_that_have_expired_are_an_error_at_once(opened, proxy, run):
    async def scenario():
        async with opened() as backend:
            proxy.add(Rule("answer", status=400, code="ExpiredToken", times=None))
            with pytest.raises(CredentialsError, match="have expired"):
                await backend.put("a/b", b"x")
            assert len(proxy.hits) == 1

    run(scenario())


def test_no_credentials_at_all_are_told_so(opened, run, monkeypatch, tmp_path):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))

    async def scenario():
        async with opened(access_key_id=None, secret_access_key=None) as backend:
            with pytest.raises(CredentialsError, match="no credentials; set the usual AWS ones"):
                await backend.put("a/b", b"x")

    run(scenario())


def test_wrong_keys_are_refused_by_the_server(opened, run):
    async def scenario():
        for wrong in ({"access_key_id": "nobody"}, {"secret_access_key": "hunter2"}):
            async with opened(**wrong) as backend:
                with pytest.raises(CredentialsError, match="does not accept the credentials") as caught:
                    await backend.put("a/b", b"x")
                assert "hunter2" not in str(caught.value)

    run(scenario())
