"""References: what they say of a checkpoint goes through a dict and comes back, and nothing else does."""

from __future__ import annotations

import json
import pickle
from datetime import timezone
from typing import Any

import pytest
from forge import DATA, opened

from ckptstore import CheckpointRef
from ckptstore._keys import CheckpointName
from ckptstore.errors import ConfigError, InvalidNameError

REF = CheckpointRef("ab" * 16, "exp/Run 1", CheckpointName(3, 7, "host", "best", "0" * 32).text, "cd" * 32)
PARTS = REF.to_dict()


def test_a_reference_comes_back_from_its_dict() -> None:
    assert CheckpointRef.from_dict(PARTS) == REF
    assert CheckpointRef.from_dict(json.loads(json.dumps(PARTS))) == REF
    assert pickle.loads(pickle.dumps(REF)) == REF
    assert hash(REF) == hash(CheckpointRef.from_dict(PARTS))


def test_a_reference_says_who_wrote() -> None:
    assert REF.run == "host"
    nobody = CheckpointName(3, 7, None, "best", "0" * 32).text
    assert CheckpointRef.from_dict({**PARTS, "name": nobody}).run is None


def test_a_reference_holds_four_strings_and_no_place() -> None:
    assert list(PARTS) == ["store_id", "collection", "name", "digest"]
    assert all(type(value) is str for value in PARTS.values())
    assert str(REF) == f"exp/Run 1@{REF.name}"


@pytest.mark.parametrize("missing", PARTS)
def test_a_reference_with_a_part_missing_is_refused(missing: str) -> None:
    with pytest.raises(InvalidNameError, match="exactly store_id, collection, name and digest") as info:
        CheckpointRef.from_dict({key: value for key, value in PARTS.items() if key != missing})
    assert f"'{missing}'" not in str(info.value)


@pytest.mark.parametrize("extra", ["url", "path", "", 1, None, "x" * 10_000])
def test_a_reference_with_another_part_is_refused(extra: Any) -> None:
    with pytest.raises(InvalidNameError, match="exactly") as info:
        CheckpointRef.from_dict({**PARTS, extra: "s3://secret"})
    assert len(str(info.value)) < 500
    assert "s3://secret" not in str(info.value)


@pytest.mark.parametrize(
    "data", [None, 1, "x", b"x", [], list(PARTS.items()), REF, {}, {1: 2}, CheckpointRef]
)
def test_what_is_no_dict_of_a_reference_is_refused(data: Any) -> None:
    with pytest.raises(InvalidNameError, match="found "):
        CheckpointRef.from_dict(data)


@pytest.mark.parametrize("key", PARTS)
@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        1.5,
        True,
        b"ab",
        [],
        {},
        "",
        "x",
        "../x",
        "AB" * 16,
        "ab" * 15,
        "\n",
        "ab" * 16 + "\n",
        "g" * 64,
    ],
)
def test_a_wrong_part_is_refused_by_name(key: str, value: Any) -> None:
    if key == "collection" and value in ("x", "AB" * 16, "ab" * 15, "g" * 64):
        return
    with pytest.raises(InvalidNameError, match=key) as info:
        CheckpointRef.from_dict({**PARTS, key: value})
    assert isinstance(info.value, ConfigError)


def test_a_reference_is_checked_when_it_is_made() -> None:
    with pytest.raises(InvalidNameError, match="name"):
        CheckpointRef(REF.store_id, REF.collection, REF.name + ".x", REF.digest)


def test_a_checkpoints_time_is_in_utc() -> None:
    created = opened(DATA)[0].checkpoint.created
    assert created.tzinfo is timezone.utc
    assert created.isoformat() == "2023-11-14T22:13:20+00:00"
