"""``ckptstore verify`` as an operator and a program see it."""

from __future__ import annotations

import os

from cli_rig import Filled, ckptstore


def test_a_whole_store_is_told_in_one_line(filled: Filled) -> None:
    done = ckptstore("verify", filled.url)
    assert (done.code, done.err) == (0, "")
    assert done.out.count("\n") == 1
    assert "4 checkpoints" in done.out
    assert "no problems" in done.out
    found = ckptstore("verify", filled.url, "--json").one
    assert (found["ok"], found["n_checkpoints"], found["problems"], found["damaged"]) == (True, 4, [], [])
    assert found["n_checked"] == found["n_chunks"] == len(filled.chunks())


def test_damage_is_a_problem_with_all_it_touches(filled: Filled) -> None:
    before = filled.chunks()
    with filled.open() as store:
        damaged = store.save("exp/run1", {"more": os.urandom(9000)})
    gone = sorted(filled.chunks() - before)
    for path in gone:
        path.unlink()
    for text, n_checkpoints in (("exp/run1", 4), ("exp/run1@", 1), (str(damaged.ref), 1)):
        done = ckptstore("verify", filled.url, text, "--json")
        assert done.code == 1
        assert not done.one["ok"]
        assert done.one["n_checkpoints"] == n_checkpoints
        assert {problem["kind"] for problem in done.one["problems"]} == {"missing"}
        assert len(done.one["problems"]) == len(gone)
        assert done.one["damaged"] == [
            {"checkpoint": str(damaged.ref), "heals": False, "older": str(filled.newest.ref)}
        ]
    done = ckptstore("verify", filled.url)
    assert done.code == 1
    for part in (
        f"{gone[0].parent.name}/{gone[0].name}",
        str(damaged.ref),
        str(filled.newest.ref),
        "missing",
    ):
        assert part in done.out
    assert ckptstore("verify", filled.url, "exp/run1@last").code == 0


def test_a_damaged_manifest_is_reported_however_it_is_named(filled: Filled) -> None:
    os.truncate(filled.manifest(filled.newest), 50)
    for words in ((), ("exp/run1",), ("exp/run1@last",)):
        done = ckptstore("verify", filled.url, *words, "--json")
        assert done.code == 1
        (problem,) = done.one["problems"]
        assert problem["key"].endswith(filled.newest.ref.name)
        assert done.one["damaged"][0]["older"] == str(filled.saved[1].ref)


def test_a_sample_can_be_drawn_again(filled: Filled) -> None:
    found = ckptstore("verify", filled.url, "--sample", "0.3", "--json").one
    again = ckptstore("verify", filled.url, "--sample", "0.3", "--seed", found["seed"], "--json").one
    assert again == found
    assert 0 < found["n_checked"] < found["n_chunks"]
    assert "--seed 7" in ckptstore("verify", filled.url, "--sample", "0.3", "--seed", "7").out
    for share in ("0", "1.1", "x"):
        assert ckptstore("verify", filled.url, "--sample", share).code == 2


def test_what_is_not_there_cannot_be_verified(filled: Filled) -> None:
    assert ckptstore("verify", filled.url, "exp/run2").code == 3
    assert ckptstore("verify", filled.url, "exp/run1@nothing").code == 3
