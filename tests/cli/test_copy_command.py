"""``ckptstore copy`` as an operator and a program see it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_rig import CONFIG, Filled, ckptstore, values

from ckptstore import CheckpointStore


def labels(url: Path, collection: str = "exp/run1") -> list[str | None]:
    with CheckpointStore.open(str(url), config=CONFIG) as store:
        return [checkpoint.label for checkpoint in store.list(collection)]


def test_a_whole_store_is_copied_oldest_first(filled: Filled, tmp_path: Path) -> None:
    done = ckptstore("copy", filled.url, tmp_path / "copy", "--json")
    assert (done.code, done.err) == (0, "")
    assert [line["checkpoint"] for line in done.lines] == [str(one.ref) for one in filled.saved]
    assert {line["state"] for line in done.lines} == {"copied"}
    assert all(line["copy"].partition("@")[0] in ("exp/run1", "other") for line in done.lines)
    assert done.lines[0]["sent_bytes"] > done.lines[1]["sent_bytes"] > 0
    assert labels(tmp_path / "copy") == ["last", None, "best"]
    with CheckpointStore.open(str(tmp_path / "copy"), config=CONFIG) as store:
        assert np.array_equal(store.load("exp/run1")["model"]["w"], values(3)["model"]["w"])
    assert ckptstore("verify", tmp_path / "copy").code == 0
    again = ckptstore("copy", filled.url, tmp_path / "copy")
    assert again.code == 0
    assert again.out.count("is there already") == 4
    assert "0 copied" in again.out


def test_collections_and_single_checkpoints_are_copied(filled: Filled, tmp_path: Path) -> None:
    done = ckptstore("copy", filled.url, tmp_path / "one", "other", "exp/run1@", "--json")
    assert [line["state"] for line in done.lines] == ["copied", "copied"]
    assert labels(tmp_path / "one") == ["last"]
    done = ckptstore("copy", filled.url, tmp_path / "one", "exp/run1")
    assert (done.code, done.out.count("left out")) == (0, 2)
    assert "--on-top" in done.err
    assert labels(tmp_path / "one") == ["last"]
    assert ckptstore("copy", filled.url, tmp_path / "one", "exp/run1", "--on-top").code == 0
    assert labels(tmp_path / "one") == [None, "best", "last"]


def test_a_dry_run_makes_nothing(filled: Filled, tmp_path: Path) -> None:
    done = ckptstore("copy", filled.url, tmp_path / "copy", "--dry-run", "--json")
    assert done.code == 0
    assert {line["state"] for line in done.lines} == {"due"}
    assert not (tmp_path / "copy").exists()
    ckptstore("copy", filled.url, tmp_path / "copy", "other")
    done = ckptstore("copy", filled.url, tmp_path / "copy", "--dry-run")
    assert (done.out.count("would be copied"), done.out.count("there already")) == (3, 1)


def test_what_is_damaged_is_told_and_the_rest_is_copied(filled: Filled, tmp_path: Path) -> None:
    before = filled.chunks()
    with filled.open() as store:
        damaged = store.save("exp/run1", {"more": np.random.default_rng(9).bytes(9000)}, label="damaged")
    for path in filled.chunks() - before:
        path.unlink()
    done = ckptstore("copy", filled.url, tmp_path / "copy", "--json")
    assert done.code == 1
    states = {line["checkpoint"]: line["state"] for line in done.lines}
    assert states.pop(str(damaged.ref)) == "failed"
    assert set(states.values()) == {"copied"}
    assert labels(tmp_path / "copy") == ["last", None, "best"]
    assert "cannot be copied" in ckptstore("copy", filled.url, tmp_path / "copy").out


@pytest.mark.parametrize("words", [(), ("only-one",), ("--from-datastore",)])
def test_two_stores_are_needed(words: tuple[str, ...]) -> None:
    done = ckptstore("copy", *words)
    assert done.code == 2
    assert "FROM" in done.err


def test_a_store_is_not_copied_onto_itself(filled: Filled) -> None:
    done = ckptstore("copy", filled.url, filled.url)
    assert done.code == 2
    assert "same store" in done.err
    assert len(filled.names()) == 3


def test_what_is_not_there_cannot_be_copied(filled: Filled, tmp_path: Path) -> None:
    assert ckptstore("copy", tmp_path / "none", tmp_path / "copy").code == 3
    assert ckptstore("copy", filled.url, tmp_path / "copy", "exp/run7").code == 3
    assert not (tmp_path / "copy").exists()
