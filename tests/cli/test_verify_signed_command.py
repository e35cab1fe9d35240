"""``ckptstore verify --signing-key``: what is told of signed, unsigned and foreign checkpoints, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_rig import CONFIG, Filled, ckptstore, values

from ckptstore import CheckpointStore
from ckptstore.config import StoreConfig

SECRETS = {"k1": "01" * 32, "k2": "02" * 32}


def key_file(folder: Path, *lines: str) -> Path:
    path = folder / "-".join(line.split()[0] + line[-2:] for line in lines)
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return key_file(tmp_path, f"k1 {SECRETS['k1']}")


def signed(folder: Path, key: Path) -> str:
    url = str(folder / "signed")
    config = StoreConfig(**{**{name: getattr(CONFIG, name) for name in CONFIG.__slots__}, "signing_key": key})
    with CheckpointStore.open(url, config=config) as store:
        store.save("c", values(1))
    return url


def test_the_right_key_finds_a_signed_store_whole(tmp_path: Path, first: Path) -> None:
    url = signed(tmp_path, first)
    for words in ((), ("c",), ("c@",)):
        for key in (("--signing-key", first), ()):
            done = ckptstore("verify", url, *words, *key)
            assert (done.code, done.err) == (0, "")
            assert "no problems" in done.out


def test_a_wrong_key_ends_with_1_and_says_which_key_signed(tmp_path: Path, first: Path) -> None:
    url = signed(tmp_path, first)
    for lines, said in (
        ((f"k2 {SECRETS['k2']}",), "is signed with the key 'k1'"),
        ((f"k1 {SECRETS['k2']}",), "signature by the key 'k1' is wrong"),
    ):
        key = key_file(tmp_path, *lines)
        for words in ((), ("c",), ("c@",)):
            done = ckptstore("verify", url, *words, "--signing-key", key, "--json")
            assert done.code == 1
            (problem,) = done.one["problems"]
            assert problem["kind"] == "unreadable"
            assert said in problem["detail"]
        shown = ckptstore("verify", url, "--signing-key", key)
        assert shown.code == 1
        assert "unreadable" in shown.out
        assert not any(secret in shown.out + shown.err + str(problem) for secret in SECRETS.values())


def test_unsigned_checkpoints_do_not_pass_where_a_key_is_given(filled: Filled, first: Path) -> None:
    found = ckptstore("verify", filled.url, "--signing-key", first, "--json")
    assert found.code == 1
    assert {problem["kind"] for problem in found.one["problems"]} == {"unreadable"}
    assert len(found.one["problems"]) == found.one["n_checkpoints"] == 4
    assert all("not signed" in problem["detail"] for problem in found.one["problems"])


def test_both_keys_verify_while_they_change(tmp_path: Path, first: Path) -> None:
    both = key_file(tmp_path, f"k2 {SECRETS['k2']}", f"k1 {SECRETS['k1']}")
    url = signed(tmp_path, first)
    signed(tmp_path, both)
    assert ckptstore("verify", url, "--signing-key", both).code == 0
    done = ckptstore("verify", url, "--signing-key", first, "--json")
    assert (done.code, len(done.one["problems"])) == (1, 1)
    assert done.one["damaged"][0]["older"] is not None


def test_a_key_file_that_is_none_is_a_mistake_of_the_caller(tmp_path: Path, first: Path) -> None:
    url = signed(tmp_path, first)
    first.chmod(0o644)
    assert ckptstore("verify", url, "--signing-key", first).code == 2
    assert ckptstore("verify", url, "--signing-key", tmp_path / "gone").code == 2
