"""``ls``, ``inspect``, ``diff`` and ``du`` as an operator and a program see them."""

from __future__ import annotations

import os
from typing import Any

import pytest
from cli_rig import Filled, ckptstore, values

from ckptstore.cli.output import nbytes, plain, safe


def test_ls_lists_collections(filled: Filled) -> None:
    done = ckptstore("ls", filled.url)
    assert (done.code, done.err) == (0, "")
    assert "exp/run1" in done.out
    assert "other" in done.out
    run1, other = ckptstore("ls", filled.url, "--json").lines
    assert {name: run1[name] for name in ("collection", "n_checkpoints", "n_deleted", "n_pinned")} == {
        "collection": "exp/run1",
        "n_checkpoints": 3,
        "n_deleted": 0,
        "n_pinned": 0,
    }
    assert run1["newest"]["name"] == filled.newest.ref.name
    assert other["collection"] == "other"
    assert [line["collection"] for line in ckptstore("ls", filled.url, "exp/", "--json").lines] == [
        "exp/run1"
    ]


def test_ls_lists_the_checkpoints_of_a_collection_newest_first(filled: Filled) -> None:
    lines = ckptstore("ls", filled.url, "exp/run1", "--json").lines
    assert [line["checkpoint"] for line in lines] == [str(one.ref) for one in reversed(filled.saved[:3])]
    newest = lines[0]
    assert (newest["label"], newest["run"], newest["epoch"], newest["seq"]) == ("last", "r2", 1, 2)
    assert newest["raw_bytes"] == filled.newest.sizes.raw_bytes
    assert newest["created"] == filled.newest.created.isoformat()
    assert newest["fields"] == ["model", "epoch"]
    assert (newest["pinned"], newest["deleted"], newest["problem"]) == (False, False, None)
    text = ckptstore("ls", filled.url, "exp/run1").out
    for one in filled.saved[:3]:
        assert f"exp/run1@{filled.id(one)[:8]}" in text
    for options, expected in (
        (("--label", "best"), [0]),
        (("--run", "r1"), [1, 0]),
        (("-n", "1"), [2]),
        (("--run", "r1", "--label", "last"), []),
    ):
        found = ckptstore("ls", filled.url, "exp/run1", "--json", *options).lines
        assert [line["name"] for line in found] == [filled.saved[i].ref.name for i in expected]


def test_ls_shows_deleted_ones_only_if_asked(filled: Filled) -> None:
    with filled.open() as store:
        store.delete(filled.newest)
        store.pin(filled.saved[0])
    assert len(ckptstore("ls", filled.url, "exp/run1", "--json").lines) == 2
    lines = ckptstore("ls", filled.url, "exp/run1", "--deleted", "--json").lines
    assert [line["deleted"] for line in lines] == [True, False, False]
    assert [line["pinned"] for line in lines] == [False, False, True]
    assert "pinned" in ckptstore("ls", filled.url, "exp/run1").out


def test_ls_shows_damaged_ones_and_goes_on(filled: Filled) -> None:
    os.truncate(filled.manifest(filled.saved[1]), 50)
    done = ckptstore("ls", filled.url, "exp/run1")
    assert done.code == 1
    assert "damaged" in done.out
    assert filled.saved[1].ref.name in done.err
    lines = ckptstore("ls", filled.url, "exp/run1", "--json").lines
    assert [line["problem"] is None for line in lines] == [True, False, True]
    assert lines[1]["raw_bytes"] is None
    assert lines[1]["name"] == filled.saved[1].ref.name
    os.truncate(filled.manifest(filled.newest), 50)
    done = ckptstore("ls", filled.url, "--json")
    assert done.code == 1
    assert done.lines[0]["newest"]["problem"]


@pytest.mark.parametrize(
    ("which", "number"),
    [("", 2), ("@", 2), ("@best", 0), ("@last", 2), ("@ID", 1), ("@NAME", 1), ("@FULL", 1)],
)
def test_a_checkpoint_is_found_by_label_id_or_name(filled: Filled, which: str, number: int) -> None:
    one = filled.saved[1]
    text = {
        "@ID": f"@{filled.id(one)[:7]}",
        "@FULL": f"@{filled.id(one)}",
        "@NAME": f"@{one.ref.name}",
    }.get(which, which)
    done = ckptstore("inspect", filled.url, f"exp/run1{text}", "--json")
    assert done.code == 0
    assert done.one["name"] == filled.saved[number].ref.name


def test_what_names_nothing_or_several_is_said(filled: Filled) -> None:
    for text, word in (("exp/run1@nothing", "nothing"), ("exp/run2", "exp/run2"), ("exp/run1@abc", "abc")):
        done = ckptstore("inspect", filled.url, text)
        assert (done.code, done.out) == (3, "")
        assert word in done.err
    with filled.open() as store:
        id_start = filled.id(filled.newest)[:5]
        store.save("exp/run1", values(4), label=id_start)
        store.delete(filled.saved[0])
    done = ckptstore("inspect", filled.url, f"exp/run1@{id_start}")
    assert done.code == 2
    assert filled.id(filled.newest) in done.err
    done = ckptstore("inspect", filled.url, "exp/run1@best")
    assert done.code == 3
    assert "ckptstore undelete" in done.err


def test_a_collection_with_an_at_in_its_name_can_be_named(filled: Filled) -> None:
    with filled.open() as store:
        store.save("a@b", {"n": 1}, label="x")
    assert ckptstore("inspect", filled.url, "a@b@x", "--json").one["collection"] == "a@b"
    assert ckptstore("inspect", filled.url, "a@b@", "--json").one["collection"] == "a@b"


def test_inspect_shows_what_a_checkpoint_says(filled: Filled) -> None:
    found = ckptstore("inspect", filled.url, "exp/run1@best", "--json").one
    assert found["metadata"] == {"loss": 0.5}
    assert found["parent"] is None
    assert found["digest"] == filled.saved[0].ref.digest
    model, epoch = found["fields"]
    assert (model["name"], model["type"], epoch["kind"]) == ("model", "builtins.dict", "tree")
    assert {"path": "['w']", "kind": "numpy", "dtype": "float64", "shape": [2000], "nbytes": 16000} in model[
        "arrays"
    ]
    assert (
        ckptstore("inspect", filled.url, "exp/run1", "--json").one["parent"] == filled.saved[1].ref.to_dict()
    )
    text = ckptstore("inspect", filled.url, "exp/run1@best").out
    for part in ("best", "r1", "0.5", "['w']", "float64", "(2000,)"):
        assert part in text
    told = {use["codec"]: use for use in found["codecs"]}
    assert sum(use["stored_bytes"] for use in told.values()) < found["stored_bytes"]  # the graphs are inline
    raw = told["raw"]
    assert raw["raw_bytes"] == raw["stored_bytes"] >= 20_000
    size = nbytes(raw["raw_bytes"])
    (line,) = [line for line in text.splitlines() if line.startswith("codec raw ")]
    assert line.split(maxsplit=2)[2].rstrip() == f"{size} stored as {size}, chunks: {raw['n_chunks']}"
    os.truncate(filled.manifest(filled.newest), 50)
    done = ckptstore("inspect", filled.url, "exp/run1@last")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("ManifestCorruptError: ")
    assert done.err.count("\n") == 1


def test_diff_shows_what_changed(filled: Filled) -> None:
    done = ckptstore("diff", filled.url, "exp/run1@best", "exp/run1", "--json")
    assert done.code == 0
    assert (done.one["before"]["name"], done.one["after"]["name"]) == tuple(
        filled.saved[i].ref.name for i in (0, 2)
    )
    assert not done.one["same"]
    model = done.one["fields"][0]
    assert (model["name"], model["state"]) == ("model", "changed")
    assert model["arrays"] == [{"path": "['w']", "state": "changed"}]
    assert done.one["metadata"] == [{"name": "loss", "state": "removed", "before": 0.5, "after": None}]
    text = ckptstore("diff", filled.url, "exp/run1").out
    assert "epoch" in text
    before = ckptstore("diff", filled.url, "exp/run1", "--json").one["before"]
    assert before["name"] == filled.saved[1].ref.name
    done = ckptstore("diff", filled.url, "exp/run1@best")
    assert done.code == 3
    assert "before" in done.err


def test_du_tells_what_collections_share_and_deleting_frees(filled: Filled) -> None:
    with filled.open() as store:
        raw = sum(checkpoint.sizes.raw_bytes for checkpoint in store.list("exp/run1"))
    run1, other, total = ckptstore("du", filled.url, "--json").lines
    chunks = sum(path.stat().st_size for path in filled.chunks())
    manifests = sum(filled.manifest(one).stat().st_size for one in filled.saved[:3])
    assert (run1["collection"], run1["n_checkpoints"], run1["raw_bytes"]) == ("exp/run1", 3, raw)
    assert run1["stored_bytes"] == run1["unique_bytes"] == chunks + manifests
    assert run1["ratio"] == raw / run1["stored_bytes"]
    assert other["stored_bytes"] == filled.manifest(filled.saved[3]).stat().st_size
    assert total["collection"] is None
    assert total["stored_bytes"] == run1["stored_bytes"] + other["stored_bytes"]
    assert ckptstore("du", filled.url, "other", "--json").lines == [other]
    text = ckptstore("du", filled.url).out
    assert nbytes(run1["stored_bytes"]) in text
    assert ckptstore("du", filled.url, "none").code == 3
    os.truncate(filled.manifest(filled.newest), 50)
    done = ckptstore("du", filled.url)
    assert done.code == 1
    assert filled.newest.ref.name in done.err


def test_what_a_store_holds_cannot_command_a_terminal(filled: Filled) -> None:
    with filled.open() as store:
        store.save(
            "[bold]x[/bold]", {"n": 1}, label="[red]\u202elabel", metadata={"\x1b[2J": "\x1b]0;owned\x07"}
        )
    for done in (
        ckptstore("ls", filled.url),
        ckptstore("ls", filled.url, "[bold]x[/bold]"),
        ckptstore("inspect", filled.url, "[bold]x[/bold]"),
    ):
        assert "[bold]x[/bold]" in done.out
        assert not any(char in done.out for char in "\x1b\x07\u202e")


def test_values_that_json_has_not_are_written_as_text() -> None:
    value: Any = {"a": [b"\x00\xff", float("nan"), float("inf"), 1.5, True, None], "b": (1, 2)}
    assert plain(value) == {"a": [{"hex": "00ff"}, "nan", "inf", 1.5, True, None], "b": [1, 2]}
    assert safe("a\x1b[31m\u202e\nb") == "a\\x1b[31m\\u202e\nb"
    assert [nbytes(n) for n in (0, 1023, 1024, 5 * 2**30)] == ["0 B", "1023 B", "1.0 KiB", "5.0 GiB"]
