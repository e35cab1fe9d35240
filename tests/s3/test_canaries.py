"""Credentials that would be recognised anywhere: looked for in all that a store writes, logs, raises and shows."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import pickle
import traceback
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import seaweed
from chaos import ChaosProxy, Rule
from click.testing import CliRunner

from ckptstore import AsyncCheckpointStore, CheckpointStore, StoreConfig, cli, last
from ckptstore.errors import CheckpointStoreError, CredentialsError

TOKEN = "canary-token/with+signs=="
WRONG_KEY, WRONG_SECRET = "canary-wrong-key", "canary-wrong-secret"
USER, PASSWORD = "canary-user", "canary-password"
SIGNING_KEY = bytes(range(100, 132))

CANARIES = [
    *(seaweed.ACCESS_KEY, seaweed.SECRET_KEY, TOKEN, quote(TOKEN, safe=""), WRONG_KEY, WRONG_SECRET),
    *(USER, PASSWORD, SIGNING_KEY.hex(), repr(SIGNING_KEY)),
]


class Seen:
    """All text that came to light, and a search through it."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.n_errors = 0

    def see(self, *things: object) -> None:
        for thing in things:
            self.texts += [str(thing), repr(thing)]
            if hasattr(type(thing), "__slots__") or hasattr(thing, "__dict__"):
                self.texts.append(
                    str({name: getattr(thing, name, None) for name in dir(thing) if name[0] != "_"})
                )

    def raised(self, exc: BaseException) -> None:
        """Keep an error as a user gets to see it, with all that it came from."""
        self.n_errors += 1
        self.see(exc)
        self.texts += traceback.format_exception(exc)
        if isinstance(exc, CheckpointStoreError):
            with contextlib.suppress(Exception):  # what cannot be pickled shows nothing
                self.texts.append(pickle.dumps(exc).decode("latin-1"))

    async def attempt(self, *requests: Callable[[], Awaitable[Any]]) -> None:
        for request in requests:
            try:
                self.see(await request())
            except CheckpointStoreError as exc:
                self.raised(exc)

    def found(self) -> list[str]:
        return [
            f"{canary}: …{text[max(0, text.find(canary) - 80) :][:200]}…"
            for text, canary in itertools.product(self.texts, CANARIES)
            if canary in text
        ]


@pytest.fixture
def seen(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Iterator[Seen]:
    """Collect what is seen; at the end none of it holds a canary, nor does any log record of ours, nor the output."""
    collected = Seen()
    caplog.set_level(logging.DEBUG, logger="ckptstore")
    yield collected
    ours = [record for record in caplog.records if record.name.startswith("ckptstore")]
    formatter = logging.Formatter("%(name)s %(message)s")
    collected.texts += [formatter.format(record) + repr(record.args) for record in ours]
    collected.texts += capfd.readouterr()
    assert collected.n_errors or ours
    assert not collected.found()


def config(folder: Path) -> StoreConfig:
    keys = folder / "keys"
    if not keys.exists():
        keys.touch(0o600)
        keys.write_text(f"k1 {SIGNING_KEY.hex()}\n")
    return StoreConfig(chunk_bytes=32_768, codec="raw", signing_key=keys)


def values(seed: int) -> dict[str, Any]:
    return {"array": np.random.default_rng(seed).standard_normal(10_000), "object": complex(seed)}


def every_request(store: AsyncCheckpointStore, saved: Any) -> list[Callable[[], Awaitable[Any]]]:
    async def listed() -> list[Any]:
        return [found async for found in store.list()]

    async def in_background() -> Any:
        pending = await store.save("a", values(3), wait=False)
        return await pending.committed

    return [
        lambda: store.save("a", values(2), metadata={"x": 1}),
        in_background,
        lambda: store.load(saved),
        lambda: store.load("a", trusted=True),
        lambda: store.inspect(saved),
        lambda: store.latest("a"),
        lambda: store.latest("none"),
        listed,
        lambda: store.diff(saved, "a"),
        lambda: store.pin(saved),
        lambda: store.retain("a", last(2)),
        lambda: store.collect_garbage(dry_run=True),
    ]


FAILURES = [
    (400, "ExpiredToken"),
    (403, "AccessDenied"),
    (403, "InvalidAccessKeyId"),
    (403, "SignatureDoesNotMatch"),
    (403, "RequestTimeTooSkewed"),
    (404, "NoSuchBucket"),
    (500, "InternalError"),
    (503, "SlowDown"),
    (307, "TemporaryRedirect"),
]


def test_no_failure_of_a_request_shows_a_secret(
    seen: Seen, server: seaweed.Server, proxy: ChaosProxy, tmp_path: Path, run: Any
) -> None:
    options = seaweed.options_for(proxy.endpoint_url)

    async def main() -> None:
        url = server.new_url()
        async with await AsyncCheckpointStore.open(url, config=config(tmp_path), **options) as store:
            backend: Any = store._engine.backend
            backend._sleep = no_pause
            saved = await store.save("a", values(1))
            seen.see(
                store, saved, saved.ref, saved.ref.to_dict(), store._engine.config, backend, backend.inner
            )
            await seen.attempt(*every_request(store, saved))
            for status, code in FAILURES:
                proxy.clear()
                proxy.add(
                    Rule("answer", status=status, code=code, times=None, headers={"Location": "http://x/"})
                )
                await seen.attempt(*every_request(store, saved)[:: 1 if status < 500 else 3])
            for kind in ("refuse", "lost_ack", "cut_head"):
                proxy.clear()
                proxy.add(Rule(kind, times=40))
                await seen.attempt(lambda: store.load(saved))
            proxy.clear()
            objects = [info.key async for info in backend.list("")]
            for key in objects:
                seen.texts += [key, (await backend.get(key)).decode("latin-1")]

    run(main())
    assert seen.n_errors > 50


async def no_pause(_: float) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"access_key_id": WRONG_KEY, "secret_access_key": WRONG_SECRET},
        {"secret_access_key": WRONG_SECRET},
        {"session_token": TOKEN, "secret_access_key": WRONG_SECRET},
    ],
    ids=["key", "secret", "token"],
)
def test_wrong_credentials_are_refused_without_being_shown(
    seen: Seen, server: seaweed.Server, wrong: dict[str, str]
) -> None:
    with pytest.raises(CredentialsError) as caught:
        CheckpointStore.open(server.new_url(), **{**server.options, **wrong})
    seen.raised(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"s3://{USER}:{PASSWORD}@test/prefix",
        f"s3://{USER}:{PASSWORD}@/",
        f"file://{USER}:{PASSWORD}@localhost/tmp/x",
        f"https://{USER}:{PASSWORD}@localhost:1/x",
        f"s3://test/x?AWSAccessKeyId={USER}&Signature={PASSWORD}",
        f"s3://test/x#{PASSWORD}",
    ],
)
def test_what_a_url_should_not_hold_is_not_repeated(seen: Seen, url: str) -> None:
    with pytest.raises(CheckpointStoreError) as caught:
        CheckpointStore.open(url)
    seen.raised(caught.value)
    assert CliRunner().invoke(cli.command, ["ls", url]).exit_code != 0


@pytest.mark.parametrize(
    "options",
    [
        {"access_key_id": WRONG_KEY},
        {"session_token": TOKEN},
        {"access_key_id": WRONG_KEY, "secret_access_key": 17},
        {"access_key_id": [WRONG_KEY], "secret_access_key": WRONG_SECRET},
        {"endpoint_url": f"http://{USER}:{PASSWORD}@localhost:1"},
        {"endpoint_url": f"http://localhost:1/?token={TOKEN}"},
        {"secret_acces_key": WRONG_SECRET},
        {"access_key_id": WRONG_KEY, "secret_access_key": WRONG_SECRET, "profile": "p"},
    ],
)
def test_wrong_options_are_told_by_name_and_not_by_value(seen: Seen, options: dict[str, Any]) -> None:
    with pytest.raises(CheckpointStoreError) as caught:
        CheckpointStore.open("s3://test/x", **options)
    seen.raised(caught.value)


def test_the_command_line_shows_no_secret(
    seen: Seen, server: seaweed.Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    url = server.new_url()
    with CheckpointStore.open(url, config=config(tmp_path), **server.options) as store:
        saved = store.save("a", values(1))
    keys = str(tmp_path / "keys")
    right = [f"{name}={value}" for name, value in server.options.items()]
    wrong = [*right, f"secret_access_key={WRONG_SECRET}"]
    statuses = []
    for given in (right, wrong):
        options = [word for option in given for word in ("--option", option)]
        for words in (
            ["ls"],
            ["ls", "a"],
            ["inspect", "a@"],
            ["verify"],
            ["du"],
            ["gc", "--dry-run"],
            ["doctor"],
        ):
            for extra in ([], ["--json"]) if given is right else ([],):
                command = [words[0], url, *words[1:], *options, *extra]
                if words[0] not in ("doctor",):
                    command += ["--signing-key", keys]
                result = CliRunner().invoke(cli.command, command)
                seen.texts += [result.output, str(result.exception)]
                if result.exc_info is not None:
                    seen.texts += traceback.format_exception(*result.exc_info)
                statuses.append(result.exit_code)
    assert 0 in statuses, seen.texts[-3:]
    assert 4 in statuses
    seen.see(json.dumps(saved.ref.to_dict()))
    seen.n_errors += 1


def test_the_search_finds_what_is_there() -> None:
    seen = Seen()
    seen.see({"secret": WRONG_SECRET})
    error = CheckpointStoreError("failed")
    error.__cause__ = ValueError(f"http://{USER}@host")
    seen.raised(error)
    assert len({text.partition(":")[0] for text in seen.found()}) == 2
