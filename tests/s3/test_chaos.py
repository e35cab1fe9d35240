"""What networks and servers do wrong, and what comes of it: the right bytes or an error of ours."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable

import pytest
import seaweed
from chaos import HTML, Rule

from ckptstore.backends.retry import RetryPolicy
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    BackendProtocolError,
    ClockSkewError,
    CredentialsError,
    ObjectNotFoundError,
    StoreFullError,
    StoreNotFoundError,
    ThrottledError,
    UnavailableError,
)

DATA = random.Random(7).randbytes(300_000)
XML = {"Content-Type": "application/xml"}


async def keys(backend, prefix=""):
    return [info.key async for info in backend.list(prefix)]


def over(opened, run, scenario, **options):
    async def main():
        async with opened(**options) as backend:
            return await scenario(backend)

    return run(main())


VERBS = {
    "get": lambda backend: backend.get("a/b", length=len(DATA)),
    "put": lambda backend: backend.put("a/b", DATA),
    "head": lambda backend: backend.head("a/b"),
    "delete": lambda backend: backend.delete("a/none"),
    "list": lambda backend: keys(backend, "a/"),
}


@pytest.fixture
def stored(opened, run):
    """An object under ``a/b``, put without faults."""
    over(opened, run, lambda backend: backend.put("a/b", DATA))


def edited(pattern: bytes, by: bytes) -> Callable[[bytes], bytes]:
    def edit(body: bytes) -> bytes:
        changed = re.sub(pattern, by, body, flags=re.DOTALL)
        assert changed != body
        return changed

    return edit


def backwards(body: bytes) -> bytes:
    found = re.findall(rb"<Contents>.*?</Contents>", body, flags=re.DOTALL)
    assert len(found) == 3
    head, tail = body.split(found[0], 1)[0], body.rsplit(found[-1], 1)[1]
    return head + b"".join(reversed(found)) + tail


BAD_LISTINGS = {
    "empty": Rule("replace", status=200, body=b""),
    "html": Rule("replace", status=200, body=HTML, headers={"Content-Type": "text/html"}),
    "another document": Rule("replace", status=200, body=b"<?xml version='1.0'?><Hello/>"),
    "cut": Rule("edit", edit=lambda body: body[: len(body) // 2]),
    "no IsTruncated": Rule("edit", edit=edited(rb"<IsTruncated>.*?</IsTruncated>", b"")),
    "no Name": Rule("edit", edit=edited(rb"<Name>.*?</Name>", b"")),
    "another bucket": Rule("edit", edit=edited(rb"<Name>.*?</Name>", b"<Name>other</Name>")),
    "neither KeyCount nor Contents": Rule(
        "edit", edit=edited(rb"<KeyCount>.*?</KeyCount>|<Contents>.*</Contents>", b"")
    ),
    "a wrong KeyCount": Rule("edit", edit=edited(rb"<KeyCount>3</KeyCount>", b"<KeyCount>4</KeyCount>")),
    "no key": Rule("edit", edit=edited(rb"<Key>[^<]*/2</Key>", b"")),
    "no size": Rule("edit", edit=edited(rb"<Size>.*?</Size>", b"")),
    "unsorted": Rule("edit", edit=backwards),
    "repeated": Rule("edit", edit=edited(rb"/2</Key>", b"/1</Key>")),
    "foreign": Rule("edit", edit=edited(rb"<Key>[^<]*/2</Key>", b"<Key>elsewhere/2</Key>")),
    "endless": Rule(
        "edit",
        edit=edited(
            rb"<IsTruncated>false",
            b"<NextContinuationToken>on</NextContinuationToken><IsTruncated>true",
        ),
    ),
    "truncated without a token": Rule("edit", edit=edited(rb"<IsTruncated>false", b"<IsTruncated>true")),
}


@pytest.mark.parametrize("name", BAD_LISTINGS)
def test_a_listing_that_cannot_be_believed_is_an_error(name, opened, proxy, run):
    async def scenario(backend):
        for n in range(1, 4):
            await backend.put(f"a/{n}", b"x")
        rule = BAD_LISTINGS[name]
        rule.verb, rule.times, rule.seen = "LIST", None, 0
        proxy.add(rule)
        with pytest.raises((BackendProtocolError, UnavailableError), match=r"cannot list a/ in s3://test/"):
            await keys(backend, "a/")
        proxy.clear()
        assert await keys(backend, "a/") == ["a/1", "a/2", "a/3"]

    over(opened, run, scenario)


STRAY_ANSWERS = {
    "empty": Rule("replace", status=200, body=b""),
    "html": Rule("replace", status=200, body=HTML, headers={"Content-Type": "text/html"}),
    "html 502": Rule("replace", status=502, body=HTML, headers={"Content-Type": "text/html"}),
}


@pytest.mark.parametrize("name", STRAY_ANSWERS)
def test_an_answer_that_is_not_s3s_heals_or_is_an_error(name, opened, stored, proxy, run):
    given = STRAY_ANSWERS[name]

    async def scenario(backend):
        for verb in ("get", "put", "head", "list"):
            for times in (2, None):
                proxy.clear()
                proxy.add(
                    Rule("replace", status=given.status, body=given.body, headers=given.headers, times=times)
                )
                if times:
                    await VERBS[verb](backend)
                else:
                    with pytest.raises((BackendProtocolError, UnavailableError), match="after 8 tries"):
                        await VERBS[verb](backend)

    over(opened, run, scenario)


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
        assert time.monotonic() - began < 5

    over(opened, run, scenario, read_timeout_s=0.2)


SHORT = RetryPolicy(deadline_s=0.8, reserve_s=0.5, min_bytes_per_s=1 << 30)


def test_a_trickling_body_is_given_up_in_time_and_got_again(opened, stored, proxy, run):
    async def scenario(backend):
        proxy.add(Rule("trickle", verb="GET", bytes_per_s=100))
        assert await backend.get("a/b", length=len(DATA)) == DATA
        proxy.add(Rule("trickle", verb="GET", bytes_per_s=100, times=None))
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="takes too long; given up after"):
            await backend.get("a/b", length=len(DATA))
        assert 0.7 < time.monotonic() - began < 3

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


def test_a_200_with_an_error_in_it_is_no_success(opened, proxy, run):
    async def scenario(backend):
        body = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>x</Message></Error>"
        proxy.add(Rule("answer", verb="PUT", status=200, body=body, times=2))
        await backend.put("a/c", DATA)
        assert len(proxy.hits) == 2
        assert await backend.get("a/c", length=len(DATA)) == DATA
        proxy.add(Rule("answer", verb="PUT", status=200, body=body, times=None))
        with pytest.raises(UnavailableError, match=r"cannot write a/d .*InternalError"):
            await backend.put("a/d", DATA)

    over(opened, run, scenario)


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
                assert abs(int(found[1]) - int(size)) <= 1
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


LYING = {"ETag": '"x"', "Last-Modified": "Mon, 23 Nov 2026 15:33:14 GMT", "Accept-Ranges": "bytes"}


def test_more_than_was_asked_for_is_cut_off_not_read(opened, proxy, run):
    async def scenario(backend):
        for verb_rule in (
            Rule("answer", status=200, body=DATA, headers=LYING),
            # ten gigabytes announced, and the connection kept open
            Rule("length", length=10_000_000_000, verb="GET"),
        ):
            proxy.clear()
            proxy.add(verb_rule)
            if verb_rule.kind == "length":
                await backend.put("a/small", DATA[:2000])
                proxy.add(Rule("answer", status=200, body=DATA, headers=LYING, nth=1, verb="GET", times=None))
            got = await asyncio.wait_for(backend.get("a/small", length=1000), 5)
            assert got == DATA[:1000]

    over(opened, run, scenario, policy=SHORT)


def test_a_length_that_contradicts_the_range_is_an_error(opened, stored, proxy, run):
    async def scenario(backend):
        for rule in (
            Rule("length", length=10_000_000_000, times=None),
            Rule("answer", status=206, body=DATA[:10], headers=LYING, times=None),
            Rule(
                "answer",
                status=206,
                body=DATA[:10],
                headers={**LYING, "Content-Range": "bytes 5-14/300000"},
                times=None,
            ),
            Rule(
                "answer",
                status=206,
                body=DATA[:10],
                headers={**LYING, "Content-Range": "bytes 0-9/300000"},
                times=None,
            ),
        ):
            proxy.clear()
            proxy.add(rule)
            with pytest.raises(BackendProtocolError, match=r"cannot read a/b .*given up after 8 tries"):
                await backend.get("a/b", length=1000)

    over(opened, run, scenario)


def test_a_server_that_ignores_ranges_is_understood(opened, proxy, run):
    async def scenario(backend):
        proxy.add(Rule("answer", status=200, body=b"0123456789", headers=LYING, times=None))
        assert await backend.get("a/b", start=4, length=3) == b"456"
        assert await backend.get("a/b", start=8, length=100) == b"89"
        assert await backend.get("a/b", start=12, length=3) == b""
        assert await backend.get("a/b", start=7) == b"789"

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
