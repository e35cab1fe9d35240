"""What networks and servers do wrong, and what comes of it: the right bytes or an error of ours."""

from __future__ import annotations

import asyncio
import random
import re
import time

import pytest
import seaweed
from chaos import Rule
from s3_rig import DATA, VERBS, over

from ckptstore.backends.retry import RetryPolicy
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    ClockSkewError,
    CredentialsError,
    ObjectNotFoundError,
    StoreFullError,
    StoreNotFoundError,
    ThrottledError,
    UnavailableError,
)


@pytest.mark.parametrize("kind", ["cut", "reset"])
def test_a_body_that_is_cut_anywhere_is_got_again(kind, opened, stored, proxy, run):
    async def scenario(backend):
        for tenth in range(10):
            proxy.clear()
            proxy.add(Rule(kind, verb="GET", at=tenth / 10))
            assert await backend.get("a/b", length=len(DATA) + 1) == DATA
            assert len(proxy.hits) == 1
            proxy.add(Rule(kind, verb="GET", at=tenth / 10, times=None))
            with pytest.raises(UnavailableError, match=r"cannot read a/b .* given up after 8 tries"):
                await backend.get("a/b", length=len(DATA) + 1)

    over(opened, run, scenario)


@pytest.mark.parametrize("kind", ["refuse", "cut_request", "lost_ack", "cut_head"])
def test_a_connection_that_breaks_is_no_failure_unless_it_always_does(kind, opened, stored, proxy, run):
    async def scenario(backend):
        for verb, request in VERBS.items():
            proxy.clear()
            expected = await request(backend)
            proxy.add(Rule(kind, times=7))
            answer = await request(backend)
            assert verb == "put" or answer == expected or answer.size == expected.size
            assert len(proxy.hits) == 7
            proxy.add(Rule(kind, times=None))
            with pytest.raises(UnavailableError, match=r"cannot .* in s3://test/.* given up after 8 tries"):
                await request(backend)
            proxy.clear()
            assert await backend.get("a/b", length=len(DATA)) == DATA

    over(opened, run, scenario)


@pytest.mark.parametrize("tenth", range(0, 10, 3))
def test_a_put_that_is_reset_while_it_is_sent_is_sent_again(tenth, opened, proxy, run):
    data = random.Random(tenth).randbytes(3 << 20)

    async def scenario(backend):
        proxy.add(Rule("cut_request", verb="PUT", at=tenth / 10))
        await backend.put("a/c", memoryview(bytearray(data)))
        assert [hit[2] for hit in proxy.hits] == ["cut_request"]
        assert await backend.get("a/c", length=len(data)) == data

    over(opened, run, scenario)


@pytest.mark.parametrize("rule", [Rule("stall", at=0.5), Rule("stall", at=0.0)], ids=["half", "nothing"])
@pytest.mark.parametrize("verb", ["get", "put", "list"])
def test_a_server_that_falls_silent_is_asked_again(rule, verb, opened, stored, proxy, run):
    async def scenario(backend):
        proxy.add(Rule("stall", at=rule.at))
        began = time.monotonic()
        await VERBS[verb](backend)
        assert time.monotonic() - began < 15

    over(opened, run, scenario, read_timeout_s=0.2)


SHORT = RetryPolicy(deadline_s=3, reserve_s=2, min_bytes_per_s=1 << 30)


def test_a_trickling_body_is_given_up_in_time_and_got_again(opened, stored, proxy, run):
    async def scenario(backend):
        proxy.add(Rule("trickle", verb="GET", bytes_per_s=100))
        assert await backend.get("a/b", length=len(DATA)) == DATA
        proxy.add(Rule("trickle", verb="GET", bytes_per_s=100, times=None))
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="takes too long; given up after"):
            await backend.get("a/b", length=len(DATA))
        assert 1 < time.monotonic() - began < 15

    over(opened, run, scenario, policy=SHORT)


def test_a_server_that_does_not_read_is_given_up_in_time(opened, proxy, run):
    data = bytes(24 << 20)

    async def scenario(backend):
        proxy.add(Rule("stall_request", verb="PUT", at=0.01))
        await backend.put("a/c", data)
        proxy.add(Rule("stall_request", verb="PUT", at=0.01, times=None))
        with pytest.raises(UnavailableError, match="takes too long"):
            await backend.put("a/c", data)

    policy = RetryPolicy(deadline_s=4, reserve_s=3, min_bytes_per_s=1 << 30)
    over(opened, run, scenario, policy=policy)


TRANSIENT = [
    (500, "InternalError", UnavailableError),
    (502, "BadGateway", UnavailableError),
    (503, "SlowDown", ThrottledError),
    (503, "ServiceUnavailable", ThrottledError),
    (504, "GatewayTimeout", UnavailableError),
    (400, "RequestTimeout", UnavailableError),
    (400, "BadDigest", UnavailableError),
    (409, "OperationAborted", UnavailableError),
    (412, "PreconditionFailed", UnavailableError),
    (429, "TooManyRequests", ThrottledError),
]
FINAL = [
    (400, "InvalidArgument", BackendError),
    (403, "AccessDenied", AccessDeniedError),
    (403, "AllAccessDisabled", AccessDeniedError),
    (403, "SignatureDoesNotMatch", CredentialsError),
    (403, "InvalidAccessKeyId", CredentialsError),
    (400, "ExpiredToken", CredentialsError),
    (403, "RequestTimeTooSkewed", ClockSkewError),
    (403, "InvalidObjectState", BackendError),
    (404, "NoSuchBucket", BackendError),
    (501, "NotImplemented", BackendError),
    (507, "InsufficientStorage", StoreFullError),
]


@pytest.mark.parametrize(("status", "code", "error"), TRANSIENT, ids=lambda value: str(value))
def test_what_passes_is_tried_again_up_to_eight_times(status, code, error, opened, stored, proxy, run):
    async def scenario(backend):
        for verb, request in VERBS.items():
            proxy.clear()
            proxy.add(Rule("answer", status=status, code=code, times=7))
            await request(backend)
            assert len(proxy.hits) == 7
            proxy.clear()
            proxy.add(Rule("answer", status=status, code=code, times=None))
            with pytest.raises(error, match=r"cannot .*given up after 8 tries") as caught:
                await request(backend)
            assert caught.value.transient
            assert len({hit[1] for hit in proxy.hits}) == 1
            # An answer to a HEAD has no body: what a 400 means, a GET tells.
            assert len(proxy.hits) == (16 if verb == "head" and status == 400 else 8)

    over(opened, run, scenario)


@pytest.mark.parametrize(("status", "code", "error"), FINAL, ids=lambda value: str(value))
def test_a_refusal_is_raised_at_once(status, code, error, opened, stored, proxy, run):
    async def scenario(backend):
        await backend.get("a/b", length=1)
        for verb, request in VERBS.items():
            if verb == "head" and status == 404:
                continue  # an answer to a HEAD does not tell a missing bucket from a missing object
            proxy.clear()
            proxy.add(Rule("answer", status=status, code=code, times=None))
            with pytest.raises(error) as caught:
                await request(backend)
            assert not caught.value.transient
            assert len(proxy.hits) == (2 if verb == "head" and status in (400, 403) else 1)

    over(opened, run, scenario)


def test_clock_skew_tells_its_size(opened, stored, proxy, run):
    for offset_s, words in ((-960, "960 s ahead of"), (1500, "1500 s behind")):
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + offset_s + 0.5))

        async def scenario(backend, words=words, date=date):
            proxy.clear()
            proxy.add(
                Rule("answer", status=403, code="RequestTimeTooSkewed", headers={"Date": date}, times=None)
            )
            for verb in VERBS.values():
                with pytest.raises(ClockSkewError) as caught:
                    await verb(backend)
                size, place = words.split(" s ")
                found = re.search(r"clock is (\d+) s ([a-z ]+) the storage's", str(caught.value))
                assert found
                assert abs(int(found[1]) - int(size)) <= 60  # a busy machine takes its time
                assert found[2] == place

        over(opened, run, scenario)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_never_followed(status, opened, stored, proxy, run):
    visitors = []

    async def scenario(backend):
        trap = await asyncio.start_server(lambda _, writer: visitors.append(writer), "127.0.0.1", 0)
        port = trap.sockets[0].getsockname()[1]
        headers = {"Location": f"http://127.0.0.1:{port}/test/a/b"}
        proxy.add(Rule("answer", status=status, code="TemporaryRedirect", headers=headers, times=None))
        for request in VERBS.values():
            with pytest.raises(BackendError, match="redirect, which is never followed") as caught:
                await request(backend)
            assert not caught.value.transient
        trap.close()
        assert not visitors

    over(opened, run, scenario)


def test_a_bucket_that_is_not_there_is_told_from_one_that_is_gone(opened, stored, proxy, run):
    async def scenario(backend):
        proxy.add(Rule("answer", status=404, code="NoSuchBucket", times=None))
        with pytest.raises(StoreNotFoundError, match="no bucket for s3://test/"):
            await backend.get("a/b", length=1)
        proxy.clear()
        with pytest.raises(ObjectNotFoundError):
            await backend.get("a/none", length=1)
        proxy.add(Rule("answer", status=404, code="NoSuchBucket", times=None))
        with pytest.raises(BackendError, match="the bucket is gone"):
            await backend.get("a/b", length=1)

    over(opened, run, scenario)


def test_a_bit_flipped_on_the_way_up_is_found_by_the_server(opened, proxy, run):
    async def scenario(backend):
        for data in (DATA, DATA[:100]):
            proxy.clear()
            proxy.add(Rule("flip_request", verb="PUT"))
            await backend.put("a/c", data)
            assert len(proxy.hits) == 1
            assert await backend.get("a/c", length=len(data)) == data

    over(opened, run, scenario, checksum="crc32")


def test_throttling_halves_the_requests_under_way(opened, proxy, run):
    async def scenario(backend):
        assert backend.limit.limit == 8
        proxy.add(Rule("answer", verb="PUT", times=8))
        await asyncio.gather(*[backend.put(f"a/{n}", b"x") for n in range(8)])
        assert backend.limit.limit < 8
        await asyncio.gather(*[backend.put(f"b/{n}", b"x") for n in range(200)])
        assert backend.limit.limit > 8

    over(opened, run, scenario)


def test_no_error_holds_a_secret(opened, stored, proxy, run, caplog):
    caplog.set_level("INFO")
    texts = []

    async def scenario(backend):
        await backend.get("a/b", length=1)
        texts.append(repr(backend) + repr(vars(backend.inner)) + repr(backend.inner._options))
        for status, code, _ in (*FINAL, *TRANSIENT[:3]):
            proxy.clear()
            proxy.add(Rule("answer", status=status, code=code, times=None))
            for verb in VERBS.values():
                with pytest.raises((BackendError, ObjectNotFoundError)) as caught:
                    await verb(backend)
                texts.append(f"{caught.value} {caught.value!r}")

    over(opened, run, scenario)
    for text in (*texts, caplog.text):
        for secret in (seaweed.ACCESS_KEY, seaweed.SECRET_KEY, "Signature=", "X-Amz-", "list-type"):
            assert secret not in text
