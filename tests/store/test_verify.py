"""Verification: what it reads, what it reports for each kind of damage, and what it leaves out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptstore import StoreConfig
from ckptstore.errors import (
    CheckpointDeletedError,
    CheckpointNotFoundError,
    ConfigError,
    InvalidNameError,
    StoreMismatchError,
)

CONFIG = StoreConfig(durability="os", chunk_bytes=8192, inline_bytes=64, io_concurrency=3)


def values(seed: int) -> dict[str, Any]:
    """About ten chunks: five are the same for every seed."""
    return {
        "same": np.random.default_rng(0).integers(0, 256, 40_000, dtype="uint8"),
        "other": np.random.default_rng(seed).standard_normal(5000),
        "seed": seed,
    }


class Damage:
    """A local store of a test, and what can be done to its files."""

    def __init__(self, open_store: Any, folder: Path) -> None:
        self.folder = folder / "store"
        self.store = open_store(config=CONFIG)

    def chunks(self) -> set[Path]:
        return {path for path in (self.folder / "chunks").rglob("*.*") if path.is_file()}

    def new_chunks(self, collection: str, seed: int, **options: Any) -> tuple[Any, list[Path]]:
        """Save, and return the checkpoint and what it stored."""
        before = self.chunks()
        checkpoint = self.store.save(collection, values(seed), **options)
        return checkpoint, sorted(self.chunks() - before)

    def manifest(self, checkpoint: Any) -> Path:
        (path,) = (self.folder / "manifests").rglob(checkpoint.ref.name)
        return path

    def key(self, path: Path) -> str:
        return str(path.relative_to(self.folder))


@pytest.fixture
def rig(open_store: Any, tmp_path: Path) -> Damage:
    return Damage(open_store, tmp_path)


def test_a_whole_store_has_no_problem_and_every_chunk_is_read_once(store: Any) -> None:
    for seed in range(3):
        store.save("c", values(seed), label="x")
    store.save("other/one", {"n": 1})
    told: list[tuple[int, int]] = []
    report = store.verify(progress=lambda done, total: told.append((done, total)))
    assert report.ok
    assert report.problems == report.damaged == ()
    assert report.n_checkpoints == 4
    newest = store.latest("c")
    shared = 3 * newest.sizes.n_chunks - report.n_chunks
    assert 0 < shared < report.n_chunks == report.n_checked
    assert report.checked_bytes == report.chunk_bytes
    assert told[0] == (0, report.chunk_bytes)
    assert told[-1] == (report.chunk_bytes, report.chunk_bytes)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert "4 checkpoints" in str(report)
    assert "no problem" in str(report)


def test_what_is_asked_for_is_what_is_read(store: Any) -> None:
    first = store.save("c", values(1))
    store.save("c", {"n": 1})
    store.save("d", values(2))
    assert store.verify(first).n_checkpoints == 1
    assert store.verify(first.ref).n_chunks == first.sizes.n_chunks
    assert store.verify(first.ref.to_dict()).ok
    assert store.verify("c").n_checkpoints == 2
    assert store.verify().n_checkpoints == 3


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (Path.unlink, "missing"),
    "a bit flipped": (_flip, "corrupt"),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size - 1), "corrupt"),
    "empty": (lambda path: os.truncate(path, 0), "corrupt"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "corrupt"),
    "a directory": (_directory, "corrupt"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_damaged_chunk_is_reported_with_all_it_touches(rig: Damage, what: str) -> None:
    change, kind = CHANGES[what]
    first, all_of_first = rig.new_chunks("c", 1)
    second, _ = rig.new_chunks("c", 2)
    third, all_of_third = rig.new_chunks("c", 3)
    rig.store.save("untouched", {"n": 1})
    change(all_of_third[0])
    report = rig.store.verify()
    (problem,) = report.problems
    assert (problem.key, problem.kind, problem.copy) == (rig.key(all_of_third[0]), kind, None)
    assert problem.checkpoints == (str(third.ref),)
    (damaged,) = report.damaged
    assert (damaged.checkpoint, damaged.heals) == (str(third.ref), False)
    assert damaged.older == str(second.ref)
    assert not report.ok
    for text in (problem.key, str(third.ref), str(second.ref)):
        assert text in str(report)
    if what == "missing":
        for path in all_of_first:  # some of them all three need
            path.unlink()
        report = rig.store.verify("c")
        touched = {problem.checkpoints for problem in report.problems}
        assert tuple(str(one.ref) for one in (third, second, first)) in touched
        assert [damaged.older for damaged in report.damaged] == [None] * 3
        assert report.n_checked == report.n_chunks


def test_a_damaged_manifest_is_reported_and_the_rest_is_read(rig: Damage) -> None:
    first, _ = rig.new_chunks("c", 1)
    second, _ = rig.new_chunks("c", 2)
    for change in (_flip, lambda path: os.truncate(path, 10), lambda path: os.truncate(path, 0)):
        change(rig.manifest(second))
        report = rig.store.verify()
        (problem,) = report.problems
        assert problem.key == rig.key(rig.manifest(second))
        assert (problem.kind, problem.checkpoints) == ("corrupt", (str(second.ref),))
        (damaged,) = report.damaged
        assert (damaged.checkpoint, damaged.heals, damaged.older) == (str(second.ref), False, str(first.ref))
        assert report.n_checkpoints == 2
        assert report.n_checked == first.sizes.n_chunks
    assert rig.store.verify(second).problems[0].kind == "corrupt"
    assert rig.store.verify(second).damaged[0].older == str(first.ref)
    assert rig.store.verify(first).ok


def test_a_whole_manifest_under_another_name_is_reported(rig: Damage) -> None:
    first, second = (rig.new_chunks("c", seed)[0] for seed in (1, 2))
    rig.manifest(second).write_bytes(rig.manifest(first).read_bytes())
    assert [problem.checkpoints for problem in rig.store.verify().problems] == [(str(second.ref),)]


def test_a_copy_of_the_bytes_is_told_and_the_checkpoint_heals(rig: Damage) -> None:
    checkpoint, stored = rig.new_chunks("c", 1)
    _, copies = rig.new_chunks("d", 1)
    stored[0].unlink()
    (problem,) = rig.store.verify().problems
    (copy,) = [path for path in copies if path.name[:64] == stored[0].name[:64]]
    assert (problem.kind, problem.copy) == ("missing", rig.key(copy))
    assert rig.store.verify("c").damaged[0].heals
    assert "from copies" in str(rig.store.verify(checkpoint))
    assert np.array_equal(rig.store.load(checkpoint)["other"], values(1)["other"])
    _flip(copy)  # a copy that is not whole is none
    report = rig.store.verify("c")
    assert report.problems[0].copy is None
    assert not report.damaged[0].heals


def test_what_is_deleted_is_passed_over(rig: Damage) -> None:
    checkpoint, stored = rig.new_chunks("c", 1)
    rig.store.save("c", {"n": 1})
    rig.store.delete(checkpoint)
    for path in stored:
        path.unlink()
    assert rig.store.verify().ok
    assert rig.store.verify("c").n_checkpoints == 1
    with pytest.raises(CheckpointDeletedError):
        rig.store.verify(checkpoint)


def test_the_older_whole_one_is_told_for_a_single_checkpoint_and_a_sample(rig: Damage) -> None:
    first, _ = rig.new_chunks("c", 1)
    _, of_second = rig.new_chunks("c", 2)
    third, of_third = rig.new_chunks("c", 3)
    for path in (of_second[0], *of_third):
        path.unlink()
    assert rig.store.verify(third).damaged[0].older == str(first.ref)
    report = rig.store.verify("c", sample=0.9, seed=1)
    assert {str(third.ref): str(first.ref)}.items() <= {
        damaged.checkpoint: damaged.older for damaged in report.damaged
    }.items()


def test_a_sample_reads_its_share_of_the_chunks_and_every_manifest(rig: Damage) -> None:
    for seed in range(4):
        rig.new_chunks("c", seed)
    told: list[tuple[int, int]] = []
    report = rig.store.verify(sample=0.25, seed=3, progress=lambda *done: told.append(done))
    assert report.n_checked == round(report.n_chunks / 4)
    assert 0 < report.checked_bytes < report.chunk_bytes
    assert report.n_checkpoints == 4
    assert told[-1] == (report.checked_bytes, report.checked_bytes)
    assert rig.store.verify(sample=0.25, seed=3) == report
    assert rig.store.verify(sample=1).n_checked == report.n_chunks
    drawn = rig.store.verify(sample=0.25)
    assert isinstance(drawn.seed, int)
    assert f"seed {drawn.seed}" in str(drawn)
    assert rig.store.verify(sample=0.25, seed=drawn.seed) == drawn


def test_samples_of_all_seeds_find_a_damaged_chunk_in_time(rig: Damage) -> None:
    """A tenth of the chunks, a hundred times: missed by all with a probability below 3e-5."""
    _, stored = rig.new_chunks("c", 1)
    stored[3].unlink()
    found = sum(not rig.store.verify(sample=0.1, seed=seed).ok for seed in range(100))
    assert 0 < found < 50


def test_an_empty_store_is_whole_and_an_empty_collection_is_not_there(store: Any) -> None:
    assert store.verify().ok
    assert store.verify().n_checkpoints == 0
    with pytest.raises(CheckpointNotFoundError, match="'c'"):
        store.verify("c")


def test_wrong_arguments_are_refused(store: Any) -> None:
    for sample in (0, -0.1, 1.1, True, "0.1", float("nan")):
        with pytest.raises(ConfigError, match="sample"):
            store.verify(sample=sample)
    with pytest.raises(ConfigError, match="seed"):
        store.verify(sample=0.5, seed="7")
    with pytest.raises(InvalidNameError):
        store.verify("../x")
    with pytest.raises(InvalidNameError):
        store.verify(7)
    checkpoint = store.save("c", {"n": 1})
    foreign = {**checkpoint.ref.to_dict(), "store_id": "0" * 32}
    with pytest.raises(StoreMismatchError):
        store.verify(foreign)


def test_what_a_progress_raises_ends_it(store: Any) -> None:
    store.save("c", values(1))

    def stop(done: int, total: int) -> None:
        raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        store.verify(progress=stop)
    assert store.verify().ok
