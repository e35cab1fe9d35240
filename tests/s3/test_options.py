"""The options of an S3 store, the client they make, and what a store costs in requests."""

from __future__ import annotations

import builtins
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import seaweed

from ckptstore import AsyncCheckpointStore, StoreConfig
from ckptstore.backends import open_backend
from ckptstore.backends._s3_options import S3Options
from ckptstore.errors import ConfigError

BAD = [
    {"endpoint_url": "ftp://host"},
    {"endpoint_url": "host:9000"},
    {"endpoint_url": "https://"},
    {"endpoint_url": "https://user:hunter2@host"},
    {"endpoint_url": "https://host?x=hunter2"},
    {"endpoint_url": "https://host#hunter2"},
    {"endpoint_url": "https://host:port"},
    {"endpoint_url": "https://host\nx"},
    {"endpoint_url": 3},
    {"region": ""},
    {"region": 3},
    {"profile": "p", "access_key_id": "a", "secret_access_key": "hunter2"},
    {"access_key_id": "hunter2"},
    {"secret_access_key": "hunter2"},
    {"session_token": "hunter2"},
    {"addressing_style": "hunter2"},
    {"verify": 3},
    {"verify": ""},
    {"expected_bucket_owner": "12345678901"},
    {"expected_bucket_owner": 123456789012},
    {"sse": "AES128"},
    {"sse_kms_key_id": "k"},
    {"sse": "AES256", "sse_kms_key_id": "k"},
    {"storage_class": "GLACIER"},
    {"storage_class": "DEEP_ARCHIVE"},
    {"storage_class": "standard"},
    {"request_payer": "requester"},
    {"checksum": "md5"},
    {"connect_timeout_s": 0},
    {"read_timeout_s": "x"},
    {"client_factory": 3},
    {"client_factory": print, "endpoint_url": "https://host"},
    {"client_factory": print, "access_key_id": "a", "secret_access_key": "hunter2"},
    {"space": {}},
]


@pytest.mark.parametrize("options", BAD, ids=lambda options: next(iter(options)))
def test_wrong_options_are_refused_by_name_and_never_shown(options):
    with pytest.raises(ConfigError) as caught:
        S3Options.of(options)
    assert any(re.search(name, str(caught.value)) for name in options)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_credentials_are_in_no_repr():
    options = S3Options(access_key_id="hunter2a", secret_access_key="hunter2b", session_token="hunter2c")
    assert "hunter2" not in repr(options)


def test_all_options_reach_the_requests(opened, proxy, run):
    async def scenario():
        sent = []
        options = {
            "expected_bucket_owner": "123456789012",
            "request_payer": True,
            "sse": "aws:kms",
            "sse_kms_key_id": "key",
            "storage_class": "STANDARD_IA",
        }
        async with opened(retries=False, **options) as backend:

            async def send(operation, params, check):
                sent.append((operation, params))
                raise NotImplementedError

            backend._send = send
            for request in (backend.put("a", b"x"), backend.get("a"), backend.head("a"), backend.delete("a")):
                with pytest.raises(Exception, match="NotImplementedError"):
                    await request
            with pytest.raises(Exception, match="NotImplementedError"):
                await anext(backend.list(""))
        for operation, params in sent:
            assert params["ExpectedBucketOwner"] == "123456789012"
            assert params["RequestPayer"] == "requester"
            is_put = operation == "put_object"
            assert ("SSEKMSKeyId" in params) == ("StorageClass" in params) == is_put
            assert (params.get("ServerSideEncryption") == "aws:kms") == is_put
        assert len(sent) == 5

    run(scenario())


def test_no_region_and_both_ways_of_addressing_work(opened, run, monkeypatch):
    for name in ("AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)

    async def scenario():
        for style in ("auto", "path"):
            async with opened(region=None, addressing_style=style) as backend:
                await backend.put("a/b", b"x")
                assert await backend.get("a/b") == b"x"

    run(scenario())


def test_virtual_addressing_puts_the_bucket_into_the_host(opened, run, server, proxy):
    async def scenario():
        url = f"http://localhost:{proxy.port}"
        async with opened(retries=False, addressing_style="virtual", endpoint_url=url) as backend:
            seen = []
            backend._client.api.meta.events.register(
                "before-send.s3", lambda request, **_: seen.append(request.url)
            )
            with pytest.raises(Exception, match="a/b"):
                await backend.put("a/b", b"x")
            assert seen[0].startswith(f"http://test.localhost:{proxy.port}/")

    run(scenario())


def test_plain_http_to_another_machine_is_warned_about(opened, run, caplog):
    async def scenario(**options):
        caplog.clear()
        async with opened(retries=False, **options) as backend:
            return caplog.text, backend._with_checksum

    text, checked = run(scenario(endpoint_url="http://192.0.2.1:9000"))
    assert "http://192.0.2.1:9000 is plain http" in text
    assert checked, "where nothing else protects the data, the server checks it"
    assert run(scenario()) == ("", False)
    assert run(scenario(endpoint_url="https://192.0.2.1")) == ("", False)
    assert run(scenario(endpoint_url="http://192.0.2.1:9000", checksum="none"))[1] is False


def test_a_missing_client_library_is_named_with_the_line_that_installs_it(monkeypatch, run):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.partition(".")[0] == "aiobotocore":
            raise ModuleNotFoundError("No module named 'aiobotocore'", name="aiobotocore")
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("ckptstore.backends") and "s3" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)

    async def scenario():
        with (
            ThreadPoolExecutor(1, thread_name_prefix="ckptstore-test") as executor,
            pytest.raises(ConfigError, match=r'aiobotocore.*pip install "ckptstore\[s3\]"'),
        ):
            await open_backend("s3://bucket/x", config=StoreConfig(), executor=executor)

    run(scenario())


def test_a_small_save_is_one_put(server, proxy, run):
    options = seaweed.options_for(proxy.endpoint_url)

    async def scenario():
        url = server.new_url()
        small = {f"attribute{n}": n for n in range(500)}
        async with await AsyncCheckpointStore.open(url, **options) as store:
            await store.save("a", small)
            proxy.clear()
            await store.save("a", small)
            assert [verb for verb, _, _ in proxy.requests] == ["PUT"]
        proxy.clear()
        async with await AsyncCheckpointStore.open(url, **options) as store:
            opening = len(proxy.requests)
            await store.save("a", small)
            assert [verb for verb, _, _ in proxy.requests] == ["GET", "LIST", "GET", "PUT"]
            assert opening == 1
            proxy.clear()
            await store.load("a")
            assert [verb for verb, _, _ in proxy.requests] == ["LIST", "GET", "GET"]
            proxy.clear()
            await store.save("a", {"large": np.random.default_rng(1).standard_normal(3 << 20)})
            assert [verb for verb, _, _ in proxy.requests] == ["PUT"] * 4

    run(scenario())
