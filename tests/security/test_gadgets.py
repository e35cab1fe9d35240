"""Hostile pickles: each is refused by an error of ours, and none does anything."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from gadgets import CANARY, GADGETS
from gadgets_inside import INSIDE
from streams import load

from ckptstore.errors import ManifestCorruptError, UntrustedPickleError

ALL = {**GADGETS, **INSIDE}


def tripped(folder: Path, *options: str) -> dict[str, Any]:
    """Return the report of the tripwire."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            str(Path(__file__).with_name("tripwire.py")),
            "gadgets",
            str(folder),
            *options,
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _skip_without_torch(title: str) -> None:
    if b"torch" in ALL[title].stream:
        pytest.importorskip("torch")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return tripped(tmp_path_factory.mktemp("canary"))


def test_there_are_many_gadgets() -> None:
    assert len(ALL) >= 240
    assert len({gadget.stream for gadget in ALL.values()}) == len(ALL)


@pytest.mark.parametrize("title", ALL)
def test_a_gadget_is_refused_and_does_nothing(title: str, outcome: dict[str, Any]) -> None:
    _skip_without_torch(title)
    error, message, events = outcome["report"][title]
    assert events == []
    assert error in ("UntrustedPickleError", "ManifestCorruptError"), f"{error}: {message}"
    assert "'field'" in message
    assert ALL[title].named in message
    if ALL[title].named:
        assert error == "UntrustedPickleError"


@pytest.mark.parametrize("title", ALL)
def test_a_gadget_is_refused_by_an_error_of_ours(title: str) -> None:
    _skip_without_torch(title)
    with pytest.raises((UntrustedPickleError, ManifestCorruptError), match="'field'"):
        load(ALL[title].stream)


def test_no_gadget_leaves_anything(outcome: dict[str, Any]) -> None:
    assert outcome["left"] == []


def test_the_tripwire_sees_what_gadgets_do(tmp_path: Path) -> None:
    titles = ["os.system called", "GLOBAL of protocol 0", "builtins.open called", "OBJ", "EXT1"]
    outcome = tripped(tmp_path, *titles)
    quiet = [title for title, (_, _, events) in outcome["report"].items() if not events]
    assert quiet == ["EXT1"]
    assert outcome["left"]


def test_the_canary_has_room_for_a_path() -> None:
    assert len(CANARY) == 200
