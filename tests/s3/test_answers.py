"""Answers that are empty, of somebody else, or lie: the right bytes or an error, never "nothing there"."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from chaos import HTML, Rule
from s3_rig import DATA, VERBS, keys, over

from ckptstore.errors import BackendProtocolError, UnavailableError


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
            got = await asyncio.wait_for(backend.get("a/small", length=1000), 15)
            assert got == DATA[:1000]

    over(opened, run, scenario)


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
