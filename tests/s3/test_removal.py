"""Deleting many objects by one request: what its answer says of each, and answers that say nothing."""

from __future__ import annotations

import re

import pytest
from chaos import HTML, Rule
from s3_rig import keys, over

from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    BackendProtocolError,
    StoreFullError,
    ThrottledError,
    UnavailableError,
)

NAMES = [f"a/{n}" for n in range(5)]


def refusing(code: str, *names: str):
    """Change an answer: these keys were not deleted, because of ``code``."""

    def edit(body: bytes) -> bytes:
        for name in names:
            found = re.search(
                rb"<Deleted>(?:(?!</Deleted>).)*<Key>([^<]*/%s)</Key>.*?</Deleted>" % name.encode(), body
            )
            assert found is not None
            error = b"<Error><Key>%s</Key><Code>%s</Code><Message>chaos</Message></Error>"
            body = body.replace(found[0], error % (found[1], code.encode()))
        return body

    return edit


async def fill(backend, names=NAMES):
    for name in names:
        await backend.put(name, b"x")


def test_a_thousand_objects_take_one_request(opened, proxy, run):
    async def scenario(backend):
        await fill(backend)
        proxy.clear()
        names = [*NAMES, *(f"none/{n}" for n in range(2000))]
        assert await backend.delete_many(names) == {}
        assert [verb for verb, _, _ in proxy.requests] == ["POST", "POST", "POST"]
        assert await keys(backend) == []

    over(opened, run, scenario)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", AccessDeniedError),
        ("InternalError", UnavailableError),
        ("SlowDown", ThrottledError),
        ("QuotaExceeded", StoreFullError),
        ("MethodNotAllowed", BackendError),
        ("", BackendError),
    ],
)
def test_errors_within_a_200_are_read_key_by_key(opened, proxy, run, code, kind):
    async def scenario(backend):
        await fill(backend)
        proxy.add(Rule("edit", verb="POST", edit=refusing(code, "1", "3")))
        failed = await backend.delete_many(NAMES)
        assert set(failed) == {"a/1", "a/3"}
        for key, error in failed.items():
            assert type(error) is kind
            assert f"cannot delete {key} in s3://test/" in str(error)
            assert error.transient == (kind in (UnavailableError, ThrottledError))

    over(opened, run, scenario, retries=False)


def test_what_failed_in_passing_is_tried_again_and_nothing_else(opened, proxy, run):
    async def scenario(backend):
        await fill(backend)
        proxy.clear()
        proxy.add(Rule("edit", verb="POST", edit=refusing("InternalError", "1", "3")))
        proxy.add(Rule("edit", verb="POST", nth=2, edit=refusing("SlowDown", "3")))
        sent = []
        inner = backend.inner._client.api
        inner.meta.events.register(
            "before-call.s3.DeleteObjects", lambda params, **_: sent.append(params["body"])
        )
        assert await backend.delete_many(NAMES) == {}
        assert [len(re.findall(rb"<Key>", body)) for body in sent] == [5, 2, 1]
        proxy.clear()
        proxy.add(Rule("edit", verb="POST", times=None, edit=refusing("AccessDenied", "0")))
        assert [type(error) for error in (await backend.delete_many(["a/0", "a/1"])).values()] == [
            AccessDeniedError
        ]
        assert len(proxy.hits) == 1

    over(opened, run, scenario)


def test_what_fails_for_ever_is_told_after_all_tries(opened, proxy, run):
    async def scenario(backend):
        await fill(backend)
        proxy.add(Rule("edit", verb="POST", times=None, edit=refusing("InternalError", "2")))
        failed = await backend.delete_many(NAMES)
        assert [(key, type(error)) for key, error in failed.items()] == [("a/2", UnavailableError)]
        assert len(proxy.hits) == 8

    over(opened, run, scenario)


def test_what_is_said_to_be_missing_counts_as_deleted(opened, proxy, run):
    async def scenario(backend):
        proxy.add(Rule("edit", verb="POST", edit=refusing("NoSuchKey", "1")))
        assert await backend.delete_many(NAMES) == {}
        assert len(proxy.hits) == 1

    over(opened, run, scenario)


ANSWER = (
    b"<?xml version='1.0'?><DeleteResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'>%s</DeleteResult>"
)
STRAY = {
    "empty": b"",
    "html": HTML,
    "no keys": ANSWER % b"",
    "another document": b"<?xml version='1.0'?><Hello/>",
    "others deleted": ANSWER % b"<Deleted><Key>other</Key></Deleted>",
    "others refused": ANSWER % b"<Error><Key>other</Key><Code>AccessDenied</Code></Error>",
    "a refusal of no key": ANSWER % b"<Error><Code>AccessDenied</Code></Error>",
    "cut": b"<?xml version='1.0'?><DeleteResult><Deleted><Key>a",
}


@pytest.mark.parametrize("name", STRAY)
def test_an_answer_that_says_nothing_of_the_keys_is_not_believed(opened, proxy, run, name):
    async def scenario(backend):
        await fill(backend)
        proxy.add(Rule("answer", verb="POST", status=200, body=STRAY[name], times=2))
        assert await backend.delete_many(NAMES) == {}
        assert await keys(backend) == []
        proxy.add(Rule("answer", verb="POST", status=200, body=STRAY[name], times=None))
        kind = UnavailableError if name == "cut" else BackendProtocolError  # the library's word for it is 500
        with pytest.raises(kind, match=r"cannot delete 5 objects in s3://test/.*after 8 tries"):
            await backend.delete_many(NAMES)

    over(opened, run, scenario)


def test_a_key_that_the_answer_leaves_out_is_not_deleted_for_certain(opened, proxy, run):
    def edit(body):
        changed = re.sub(rb"<Deleted>(?:(?!</Deleted>).)*/4</Key>.*?</Deleted>", b"", body)
        assert changed != body
        return changed

    async def scenario(backend):
        await fill(backend)
        proxy.add(Rule("edit", verb="POST", edit=edit))
        failed = await backend.delete_many(NAMES)
        assert [(key, type(error)) for key, error in failed.items()] == [("a/4", BackendProtocolError)]
        assert failed["a/4"].transient

    over(opened, run, scenario, retries=False)


@pytest.mark.parametrize(
    ("status", "code"),
    [(501, "NotImplemented"), (405, "MethodNotAllowed"), (400, "NotSupported"), (501, "")],
)
def test_a_server_that_does_not_know_the_request_is_asked_key_by_key(opened, proxy, run, status, code):
    async def scenario(backend):
        await fill(backend)
        proxy.clear()
        proxy.add(Rule("answer", verb="POST", status=status, code=code, times=None))
        proxy.add(Rule("answer", verb="DELETE", key="a/3", status=403, code="AccessDenied", times=None))
        failed = await backend.delete_many(NAMES)
        assert [(key, type(error)) for key, error in failed.items()] == [("a/3", AccessDeniedError)]
        assert proxy.count("POST") == 1
        proxy.clear()
        assert await backend.delete_many(NAMES) == {}
        assert (proxy.count("POST"), proxy.count("DELETE")) == (0, 5)
        assert await keys(backend) == []

    over(opened, run, scenario)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(403, "AccessDenied", AccessDeniedError), (404, "NoSuchBucket", BackendError)],
)
def test_a_refusal_of_the_whole_request_is_raised(opened, proxy, run, status, code, kind):
    async def scenario(backend):
        await fill(backend)
        proxy.clear()
        proxy.add(Rule("answer", verb="POST", status=status, code=code))
        with pytest.raises(kind, match="cannot delete 5 objects"):
            await backend.delete_many(NAMES)
        assert proxy.count("DELETE") == 0
        assert len(proxy.hits) == 1

    over(opened, run, scenario)


@pytest.mark.parametrize("kind", ["lost_ack", "cut_head", "cut_request", "refuse", "cut", "reset"])
def test_a_broken_connection_heals(opened, proxy, run, kind):
    async def scenario(backend):
        await fill(backend)
        proxy.add(Rule(kind, verb="POST", times=2))
        assert await backend.delete_many(NAMES) == {}
        assert await keys(backend) == []
        assert len(proxy.hits) == 2

    over(opened, run, scenario)


def test_a_request_that_was_damaged_on_its_way_is_carried_out_key_by_key_this_once(opened, proxy, run):
    async def scenario(backend):
        await fill(backend)
        proxy.clear()
        proxy.add(Rule("flip_request", verb="POST"))
        assert await backend.delete_many(NAMES) == {}
        assert await keys(backend) == []
        assert proxy.count("DELETE") == 5
        assert await backend.delete_many(NAMES) == {}
        assert (proxy.count("POST"), proxy.count("DELETE")) == (2, 5)

    over(opened, run, scenario)
