"""``rm``, ``undelete``, ``pin``, ``unpin`` and ``gc``: what they ask, refuse and do."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest
from cli_rig import CONFIG, Filled, ckptstore

from ckptstore import CheckpointStore


def test_rm_deletes_what_is_named_and_undelete_brings_it_back(filled: Filled) -> None:
    done = ckptstore("rm", filled.url, "exp/run1@best", "exp/run1@last", "--yes")
    assert done.code == 0
    assert filled.names() == [filled.saved[1].ref.name]
    assert "ckptstore undelete" in done.err
    done = ckptstore("undelete", filled.url, "exp/run1@best", "--json")
    assert done.one == {"checkpoint": str(filled.saved[0].ref), "undeleted": True}
    assert filled.names() == [filled.saved[i].ref.name for i in (1, 0)]
    done = ckptstore("undelete", filled.url, "exp/run1@best")
    assert done.code == 3
    assert "not deleted" in done.err


def test_rm_without_yes_asks_and_refuses_where_nobody_can_be_asked(filled: Filled) -> None:
    done = ckptstore("rm", filled.url, "exp/run1@best")
    assert done.code == 2
    assert "--yes" in done.err
    assert len(filled.names()) == 3


def test_rm_only_looks_with_dry_run(filled: Filled) -> None:
    done = ckptstore("rm", filled.url, "exp/run1@best", "--dry-run", "--json")
    assert (done.code, done.one) == (0, {"checkpoint": str(filled.saved[0].ref), "deleted": False})
    assert len(filled.names()) == 3
    assert "would be" in ckptstore("rm", filled.url, "exp/run1@best", "--dry-run").err


def test_rm_finds_all_before_it_deletes_any(filled: Filled) -> None:
    assert ckptstore("rm", filled.url, "exp/run1@best", "exp/run1@nothing", "--yes").code == 3
    assert len(filled.names()) == 3


def test_rm_takes_a_whole_collection_only_with_all_and_leaves_pins(filled: Filled) -> None:
    done = ckptstore("rm", filled.url, "exp/run1", "--yes")
    assert done.code == 2
    assert "--all" in done.err
    assert ckptstore("pin", filled.url, "exp/run1@best").code == 0
    done = ckptstore("rm", filled.url, "exp/run1@best", "--yes")
    assert done.code == 2
    assert "pinned" in done.err
    done = ckptstore("rm", filled.url, "exp/run1", "--all", "--yes", "--json")
    assert (done.code, len(done.lines)) == (0, 2)
    assert "1 of exp/run1 stay" in done.err
    assert filled.names() == [filled.saved[0].ref.name]
    assert ckptstore("rm", filled.url, "exp/run1@best", "--all", "--yes").code == 2
    assert ckptstore("unpin", filled.url, "exp/run1@best").code == 0
    assert ckptstore("rm", filled.url, "exp/run1", "--all", "--yes").code == 0
    assert ckptstore("rm", filled.url, "exp/run1", "--all", "--yes").code == 3


def test_a_damaged_checkpoint_can_be_deleted(filled: Filled) -> None:
    os.truncate(filled.manifest(filled.newest), 50)
    assert ckptstore("rm", filled.url, "exp/run1@last", "--yes").code == 0
    assert filled.names() == [filled.saved[i].ref.name for i in (1, 0)]


def test_pins_are_shown_and_taken_away(filled: Filled) -> None:
    done = ckptstore("pin", filled.url, "exp/run1@best", "exp/run1@last", "--json")
    assert [line["pinned"] for line in done.lines] == [True, True]
    shown = ckptstore("ls", filled.url, "exp/run1", "--json").lines
    assert [line["pinned"] for line in shown] == [True, False, True]
    assert "unpinned exp/run1@" in ckptstore("unpin", filled.url, "exp/run1@best").out
    assert ckptstore("pin", filled.url, "exp/run1").code == 2


def test_gc_shows_what_would_go_and_deletes_it_if_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    url = tmp_path_factory.mktemp("scratch") / "store"
    with CheckpointStore.open(str(url), config=CONFIG) as store:
        store.save("c", {"n": 1})
    done = ckptstore("gc", url, "--dry-run", "--json")
    assert (done.code, done.one["dry_run"], done.one["n_checkpoints"], done.one["freed_bytes"]) == (
        0,
        True,
        1,
        0,
    )
    assert "would be freed" in ckptstore("gc", url, "--dry-run").out
    done = ckptstore("gc", url, "--yes", "--json")
    assert (done.code, done.one["dry_run"]) == (0, False)


def test_gc_asks_before_it_deletes(filled: Filled) -> None:
    chunk = next(iter(filled.chunks()))
    orphan = chunk.with_name(chunk.name.replace(chunk.suffix, "")[:65] + "0" * 16 + ".raw")
    orphan.write_bytes(b"left by a killed save")
    os.utime(orphan, (1e9, 1e9))
    done = ckptstore("gc", filled.url)
    assert done.code == 2
    assert "21 B" in done.out
    assert "--yes" in done.err
    assert orphan.exists()
    assert ckptstore("gc", filled.url, "--yes", "--json").one["n_garbage"] == 1
    assert not orphan.exists()


def test_gc_that_is_unsure_is_a_problem(filled: Filled) -> None:
    os.truncate(filled.manifest(filled.newest), 50)
    done = ckptstore("gc", filled.url, "--yes")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("GCAbortedError: ")


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 2), ("n\n", 2, 3), ("\n", 2, 3)])
def test_a_person_at_a_terminal_is_asked(filled: Filled, answer: str, code: int, left: int) -> None:
    ours, theirs = pty.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "ckptstore", "rm", str(filled.url), "exp/run1@best"],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.write(ours, answer.encode())
        _, err = process.communicate(timeout=60)
    finally:
        os.close(ours)
        os.close(theirs)
    assert process.returncode == code, err
    assert "Delete 1 checkpoint? [y/N]" in err
    assert len(filled.names()) == left
