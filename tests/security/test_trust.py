"""Trust through the doors of a store: what loads, what runs, what is said, and what a key changes."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptstore import AsyncCheckpointStore, CheckpointStore, StoreConfig
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import (
    CheckpointStoreError,
    ConfigError,
    SignatureError,
    StoreClosedError,
    UntrustedPickleError,
)
from ckptstore.testing import RecordingBackend

SECRET = bytes(range(100, 132))
RAN: list[str] = []


@dataclass
class Point:
    x: int


class Loud:
    """Says so when it is restored."""

    def __init__(self) -> None:
        self.x = 1

    def __setstate__(self, state: Any) -> None:
        RAN.append("Loud")
        self.__dict__.update(state)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    RAN.clear()


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "store")


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"k1 {SECRET.hex()}\n")
    path.chmod(0o600)
    return path


@pytest.fixture
def store(url: str) -> Iterator[CheckpointStore]:
    with CheckpointStore.open(url) as opened:
        yield opened


def test_plain_objects_load_without_trust_and_others_do_not_run(store: CheckpointStore) -> None:
    saved = store.save("c", {"queue": deque([1, 2]), "loud": Loud(), "n": 1})
    assert store.load(saved, fields=["queue", "n"]) == {"queue": deque([1, 2]), "n": 1}
    with pytest.raises(UntrustedPickleError, match=rf"checkpoint manifests/c/.*'loud'.*{__name__}\.Loud"):
        store.load(saved)
    assert RAN == []
    store.load(saved, trusted=True)
    assert RAN == ["Loud"]


def test_the_data_of_what_is_refused_is_not_fetched() -> None:
    recorder = RecordingBackend(MemoryBackend())

    async def backend(executor: Any) -> Any:
        return recorder

    with CheckpointStore.open(backend, config=StoreConfig(inline_bytes=0, warn_untrusted=False)) as store:
        big = np.random.default_rng(1).integers(0, 2**32, 500_000, dtype="u4")
        saved = store.save("c", {"loud": Loud(), "big": big})
        recorder.requests.clear()
        with pytest.raises(UntrustedPickleError):
            store.load(saved)
        assert sum(one.nbytes or 0 for one in recorder.of("get", "chunks/")) < 100_000
        recorder.requests.clear()
        assert np.array_equal(store.load(saved, trusted=True)["big"], big)
        assert sum(one.nbytes or 0 for one in recorder.of("get", "chunks/")) > 1_000_000


def test_an_allowed_class_loads_through_either_door(url: str) -> None:
    with CheckpointStore.open(url) as store:
        saved = store.save("c", {"point": Point(3)})
        store.allow(Point)
        assert store.load(saved) == {"point": Point(3)}
    with pytest.raises(StoreClosedError):
        store.allow(Point)

    async def main() -> dict[str, Any]:
        async with await AsyncCheckpointStore.open(url) as store:
            with pytest.raises(UntrustedPickleError, match=r"\.Point"):
                await store.load(saved)
            store.allow(Point)
            return await store.load(saved)

    assert asyncio.run(main()) == {"point": Point(3)}


@pytest.mark.parametrize("value", [1, 0, None, "yes", "Verified", "pinned", [True]])
def test_trust_has_three_values(value: Any, store: CheckpointStore) -> None:
    with pytest.raises(ConfigError, match="trusted must be"):
        store.load("c", trusted=value)


def test_verified_runs_what_a_kept_reference_pins(store: CheckpointStore) -> None:
    saved = store.save("c", {"loud": Loud()})
    for what in (saved.ref, saved.ref.to_dict()):
        store.load(what, trusted="verified")
    assert len(RAN) == 2
    for what in ("c", saved, next(store.list("c"))):
        with pytest.raises(UntrustedPickleError, match="neither a reference of yours nor a signature"):
            store.load(what, trusted="verified")
    with pytest.raises(UntrustedPickleError):
        store.load(saved.ref)
    assert len(RAN) == 2
    other = store.save("c", {"queue": deque([1])})
    assert store.load(other, trusted="verified") == {"queue": deque([1])}


def test_verified_runs_what_is_signed(url: str, key: Path) -> None:
    with CheckpointStore.open(url, config=StoreConfig(signing_key=key)) as store:
        saved = store.save("c", {"loud": Loud()})
        store.load("c", trusted="verified")
        assert RAN == ["Loud"]
        with pytest.raises(UntrustedPickleError):
            store.load("c")
        manifest = store.inspect(saved)
        assert (manifest.signed_by, manifest.signature_verified) == ("k1", True)
    with CheckpointStore.open(url) as store:
        with pytest.raises(UntrustedPickleError):
            store.load("c", trusted="verified")
        manifest = store.inspect(saved)
        assert (manifest.signed_by, manifest.signature_verified) == ("k1", False)
    assert RAN == ["Loud"]


def test_a_key_refuses_what_is_not_signed_everywhere(url: str, key: Path) -> None:
    with CheckpointStore.open(url) as store:
        saved = store.save("c", {"n": 1})
    with CheckpointStore.open(url, config=StoreConfig(signing_key=key)) as store:
        for use in (
            lambda: store.load(saved),
            lambda: store.load("c"),
            lambda: store.load(saved, trusted=True),
            lambda: store.inspect(saved),
            lambda: store.latest("c"),
            lambda: list(store.list()),
            lambda: store.diff(saved, saved),
        ):
            with pytest.raises(SignatureError, match="is not signed"):
                use()
        # The next save builds on nothing of it, and is signed.
        signed = store.save("c", {"n": 1})
        assert store.load(signed) == {"n": 1}
        assert store.latest("c") == signed


def test_keys_come_from_a_function_and_follow_one_another(url: str) -> None:
    keys = {"k1": SECRET}
    asked: list[str | None] = []

    def source(key_id: str | None) -> Any:
        asked.append(key_id)
        newest = max(keys)
        return (newest, keys[newest]) if key_id is None else keys.get(key_id)

    config = StoreConfig(signing_key=source)
    with CheckpointStore.open(url, config=config) as store:
        first = store.save("c", {"n": 1})
    keys["k2"] = SECRET[::-1]
    with CheckpointStore.open(url, config=config) as store:
        second = store.save("c", {"n": 2})
        assert [store.inspect(ref).signed_by for ref in (first, second)] == ["k1", "k2"]
        assert [one.ref for one in store.list("c")] == [second.ref, first.ref]
    assert asked == [None, None, "k1"]
    del keys["k1"]
    with CheckpointStore.open(url, config=config) as store:
        assert store.load(second) == {"n": 2}
        with pytest.raises(SignatureError, match="'k1', which signing_key does not have"):
            store.load(first)


def test_a_bad_key_leaves_nothing_open_or_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="signing_key"):
        CheckpointStore.open(str(tmp_path / "new"), config=StoreConfig(signing_key=tmp_path / "gone"))
    assert not (tmp_path / "new" / "ckptstore.json").exists()


def test_inspect_tells_what_needs_trust(store: CheckpointStore) -> None:
    fields = store.inspect(store.save("c", {"loud": Loud(), "queue": deque([1]), "n": 1})).fields
    assert {name: field.untrusted for name, field in fields.items()} == {
        "loud": (f"{__name__}.Loud",),
        "queue": (),
        "n": (),
    }
    assert [field.needs_trust for field in fields.values()] == [True, False, False]


def test_a_save_warns_once_per_type(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    store.allow(Point)
    for _ in range(2):
        store.save("c", {"loud": Loud(), "queue": deque([1]), "point": Point(1), "louder": Loud()})
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert f"'loud' ({__name__}.Loud) needs trust" in warnings[0]
    store.save("c", {"many": deque([Loud(), print, len, any, all, min, max])})
    assert caplog.records[-1].getMessage().count(",") >= 5
    assert "…" in caplog.records[-1].getMessage()


def test_a_save_can_be_silent(url: str, caplog: pytest.LogCaptureFixture) -> None:
    with CheckpointStore.open(url, config=StoreConfig(warn_untrusted=False)) as store:
        store.save("c", {"loud": Loud()})
    assert caplog.records == []
    with pytest.raises(ConfigError, match="warn_untrusted"):
        StoreConfig(warn_untrusted=1)  # type: ignore[arg-type]


def test_that_pickles_run_is_said_once(store: CheckpointStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="ckptstore")
    plain = store.save("c", {"n": 1})
    saved = store.save("c", {"loud": Loud()})
    store.load(plain, trusted=True)
    for _ in range(3):
        store.load(saved, trusted=True)
    said = [record for record in caplog.records if "without restriction" in record.getMessage()]
    assert len(said) == 1
    assert "'loud'" in said[0].getMessage()


class Vault:
    """Gives keys; what is written of it shows none."""

    def __call__(self, key_id: str | None) -> Any:
        return ("k1", SECRET) if key_id is None else None


def test_the_key_is_shown_nowhere(
    url: str, key: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    forms = [
        SECRET.hex(),
        SECRET.hex().upper(),
        repr(SECRET)[2:-1],
        SECRET.decode("latin-1"),
        str(list(SECRET))[1:-1],
    ]
    shown: list[str] = []
    other = tmp_path / "other"
    other.write_text(f"k1 {SECRET[::-1].hex()}\n")
    other.chmod(0o600)
    broken = tmp_path / "broken"
    broken.write_text(f"k1 {SECRET.hex()}\nk1 {SECRET.hex()}\n")
    broken.chmod(0o600)

    def note(action: Any) -> None:
        try:
            shown.append(repr(action()))
        except CheckpointStoreError as exc:
            told = traceback.TracebackException.from_exception(exc, capture_locals=True)
            shown.extend(told.format())

    for source in (key, Vault()):
        config = StoreConfig(signing_key=source)
        shown += [repr(config), str(config)]
        with CheckpointStore.open(url, config=config) as store:
            saved = store.save("c", {"n": 1, "loud": Loud()})
            shown += [repr(store), repr(store._store._engine), repr(vars(store._store._engine.keyring))]
            note(lambda store=store, saved=saved: store.load(saved))
            note(lambda store=store, saved=saved: store.inspect(saved))
    unsigned = url + "2"
    with CheckpointStore.open(unsigned) as store:
        store.save("c", {"n": 1})
    with CheckpointStore.open(unsigned, config=StoreConfig(signing_key=key)) as store:
        note(lambda: store.load("c"))
    with CheckpointStore.open(url, config=StoreConfig(signing_key=other)) as store:
        note(lambda: store.load("c"))
    for bad in (
        broken,
        lambda key_id: ("", SECRET),
        lambda key_id: ("k1", SECRET[1:]),
        lambda key_id: SECRET,
    ):
        note(lambda bad=bad: CheckpointStore.open(url, config=StoreConfig(signing_key=bad)))
    shown += [record.getMessage() for record in caplog.records]
    stored = b"".join(path.read_bytes() for path in Path(url).rglob("*") if path.is_file())
    assert SECRET not in stored
    assert SECRET.hex().encode() not in stored
    assert sum("SignatureError" in text for text in shown) >= 2
    for form in forms:
        assert not [text for text in shown if form in text]
