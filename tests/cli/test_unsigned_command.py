"""A checkpoint that your key cannot verify stops listings, also with a fallback; deleting it is the way out."""

from __future__ import annotations

import secrets
from dataclasses import replace
from pathlib import Path

import pytest
from cli_rig import CONFIG, ckptstore

from ckptstore import CheckpointStore
from ckptstore.errors import SignatureError


@pytest.mark.parametrize("foreign", [False, True], ids=["unsigned", "of another key"])
def test_one_unverified_checkpoint_stops_a_listing_until_it_is_deleted(tmp_path: Path, foreign: bool) -> None:
    url = tmp_path / "store"
    keys = {}
    for name in ("ours", "theirs"):
        keys[name] = tmp_path / name
        keys[name].write_text(f"{name} {secrets.token_hex(32)}\n")
        keys[name].chmod(0o600)
    ours = replace(CONFIG, signing_key=str(keys["ours"]))
    with CheckpointStore.open(str(url), config=ours) as store:
        good = store.save("c", {"n": 1})
    theirs = replace(CONFIG, signing_key=str(keys["theirs"]) if foreign else None)
    with CheckpointStore.open(str(url), config=theirs) as store:
        bad = store.save("c", {"n": 2})

    with CheckpointStore.open(str(url), config=ours, create=False) as store:
        for read in (
            lambda: list(store.list()),
            lambda: store.latest("c"),
            lambda: store.latest("c", fallback=5),
            lambda: store.load("c", fallback=5),
        ):
            with pytest.raises(SignatureError, match=bad.ref.name):
                read()
        assert store.load(good.ref) == {"n": 1}

    shown = ckptstore("ls", url, "c", "--signing-key", keys["ours"], "--json")
    assert shown.code == 1
    assert [(line["name"], bool(line["problem"])) for line in shown.lines] == [
        (bad.ref.name, True),
        (good.ref.name, False),
    ]
    gone = ckptstore("rm", url, f"c@{bad.ref.name}", "--yes", "--signing-key", keys["ours"])
    assert gone.code == 0

    with CheckpointStore.open(str(url), config=ours, create=False) as store:
        assert [found.ref for found in store.list()] == [good.ref]
        assert store.load("c") == {"n": 1}
