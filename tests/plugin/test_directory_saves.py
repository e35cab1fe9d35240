"""The files of current.checkpoint.directory in checkpoints: what a save takes and what a load gives."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attempts import Attempts, contents
from metaflow_extensions.ckptstore.plugins.checkpoint import saving
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import (
    CheckpointException,
)
from metaflow_extensions.ckptstore.plugins.checkpoint.files import directory
from metaflow_extensions.ckptstore.plugins.checkpoint.files.directory_files import collect_files

from ckptstore.errors import CheckpointDeletedError, CheckpointStoreError


@pytest.fixture
def attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempts]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    attempts = Attempts(tmp_path)
    yield attempts
    attempts.end()
    assert list(temporary.iterdir()) == []


def test_the_directory_is_private_and_only_there_when_it_is_used(attempts: Attempts, tmp_path: Path) -> None:
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    checkpoint.save()
    assert list((tmp_path / "temporary").iterdir()) == []
    directory = checkpoint.directory
    assert type(directory) is str
    assert directory == checkpoint.directory
    assert Path(directory).stat().st_mode & 0o777 == 0o700
    assert Path(directory).parent.stat().st_mode & 0o777 == 0o700


def test_temp_dir_root_says_where_and_is_made(attempts: Attempts, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint = attempts.begin(temp_dir_root="scratch/disk")
    assert Path(checkpoint.directory).is_absolute()
    assert Path(checkpoint.directory).is_relative_to(tmp_path / "scratch" / "disk")
    attempts.end()
    assert list((tmp_path / "scratch" / "disk").iterdir()) == []


def test_a_temp_dir_root_that_cannot_be_is_named(attempts: Attempts, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    checkpoint = attempts.begin(temp_dir_root=str(tmp_path / "file"))
    with pytest.raises(CheckpointException, match=r"directory cannot be made: .*file.*temp_dir_root"):
        _ = checkpoint.directory


@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "in the background"])
def test_files_are_there_again_in_the_next_attempt_without_a_load(attempts: Attempts, wait: bool) -> None:
    checkpoint = attempts.begin()
    Path(checkpoint.directory, "counter").write_text("1")
    checkpoint.save(wait=wait)
    Path(checkpoint.directory, "counter").write_text("2, never saved")
    checkpoint = attempts.begin()
    assert checkpoint.is_loaded
    assert contents(checkpoint.directory) == {"counter": "1"}


@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "in the background"])
def test_overwriting_a_file_changes_no_older_checkpoint(attempts: Attempts, wait: bool) -> None:
    checkpoint = attempts.begin()
    for number in range(3):
        # In place, so that a hard link or a link into the store would show.
        Path(checkpoint.directory, "state").write_text(str(number) * 100_000)
        checkpoint.save(str(number), wait=wait)
    for saved in checkpoint.list():
        checkpoint.load(saved)
        assert contents(checkpoint.directory) == {"state": saved.name * 100_000}
        Path(checkpoint.directory, "state").write_text("overwritten after the load")
    checkpoint = attempts.begin()
    assert contents(checkpoint.directory) == {"state": "2" * 100_000}


def test_an_unchanged_file_costs_no_new_bytes(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    Path(checkpoint.directory, "big").write_bytes(random.Random(0).randbytes(20_000_000))
    first = checkpoint.save()
    Path(checkpoint.directory, "small").write_text("new")
    second = checkpoint.save()
    assert first.new_bytes >= 20_000_000
    assert second.new_bytes < 1000
    assert second.size >= 20_000_000
    files = checkpoint.inspect(second)["files"]
    assert files["big"]["bytes"] == 20_000_000
    assert files["big"]["new_bytes"] < 1000
    # What the next attempt restored and saves again is known too.
    checkpoint = attempts.begin()
    _ = checkpoint.directory
    assert checkpoint.save().new_bytes < 1000


def test_inspect_shows_files_apart_from_attributes(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    without = checkpoint.save()
    Path(checkpoint.directory, "sub").mkdir()
    Path(checkpoint.directory, "sub", "run.sh").write_text("#!")
    Path(checkpoint.directory, "sub", "run.sh").chmod(0o755)
    saved = checkpoint.save(wait=False)
    described = checkpoint.inspect(saved)
    assert list(described["fields"]) == ["epoch"]
    assert list(described["files"]) == ["sub/run.sh"]
    assert described["files"]["sub/run.sh"] | {"stored_bytes": 0, "new_bytes": 0} == {
        "bytes": 2, "stored_bytes": 0, "new_bytes": 0, "mode": 0o755, "link": None
    }  # fmt: skip
    assert checkpoint.inspect(saved.key) == described == saved.implicit_manifest
    assert checkpoint.inspect(without)["files"] == {}


def test_attributes_and_files_come_back_together(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    for number in (1, 2):
        attempts.flow.epoch = number
        Path(checkpoint.directory, f"only-{number}").write_text("x")
        checkpoint.save(str(number))
        Path(checkpoint.directory, f"only-{number}").unlink()
    inside = os.open(checkpoint.directory, os.O_RDONLY)
    checkpoint.load(checkpoint.list(name="1")[0])
    assert attempts.flow.epoch == 1
    assert contents(checkpoint.directory) == {"only-1": "x"}
    # The directory is still the same one, for whoever works in it.
    assert os.listdir(inside) == ["only-1"]
    os.close(inside)


def test_fields_of_a_load_leave_the_files_alone(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    Path(checkpoint.directory, "file").write_text("saved")
    saved = checkpoint.save()
    attempts.flow.epoch = 2
    Path(checkpoint.directory, "file").write_text("changed")
    checkpoint.load(saved, fields=["epoch"])
    assert attempts.flow.epoch == 1
    assert contents(checkpoint.directory) == {"file": "changed"}


def test_a_checkpoint_that_was_saved_without_a_directory_leaves_it_as_it_is(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    without = checkpoint.save("without")
    directory = Path(checkpoint.directory)
    empty = checkpoint.save("with an empty one")
    (directory / "file").write_text("x")
    checkpoint.load(without)
    assert contents(directory) == {"file": "x"}
    checkpoint.load(empty)
    assert contents(directory) == {}


def test_load_before_the_first_use_decides_what_the_directory_begins_with(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    attributes_only = checkpoint.save("attributes only")
    for name in ("first", "second"):
        Path(checkpoint.directory, "file").write_text(name)
        checkpoint.save(name)
    checkpoint = attempts.begin()
    checkpoint.load(checkpoint.list(name="first")[0].to_dict())
    checkpoint.load(attributes_only)
    assert contents(checkpoint.directory) == {"file": "first"}


def test_files_that_were_loaded_are_saved_again_though_nobody_looked_at_them(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    Path(checkpoint.directory, "file").write_text("x")
    checkpoint.save()
    checkpoint = attempts.begin()
    checkpoint.load()
    attempts.flow.epoch = 2
    checkpoint.save()
    checkpoint = attempts.begin()
    assert contents(checkpoint.directory) == {"file": "x"}


def test_a_damaged_file_changes_neither_attributes_nor_directory(attempts: Attempts, tmp_path: Path) -> None:
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    for name in ("a", "b"):
        Path(checkpoint.directory, name).write_bytes(random.Random(name).randbytes(50_000))
    saved = checkpoint.save()
    attempts.flow.epoch = 2
    for name in ("a", "b"):
        Path(checkpoint.directory, name).write_text("now")
    for chunk in (tmp_path / "datastore").rglob("chunks/*/*"):
        chunk.chmod(0o600)
        chunk.write_bytes(bytes(byte ^ 1 for byte in chunk.read_bytes()))
    with pytest.raises(CheckpointStoreError):
        checkpoint.load(saved)
    assert attempts.flow.epoch == 2
    assert contents(checkpoint.directory) == {"a": "now", "b": "now"}


def test_files_that_cannot_be_moved_in_change_nothing(attempts: Attempts, monkeypatch: Any) -> None:
    checkpoint = attempts.begin()
    directory = Path(checkpoint.directory)
    attempts.flow.epoch = 1
    for name in ("a", "b"):
        (directory / name).write_text("saved")
    saved = checkpoint.save()
    attempts.flow.epoch = 2
    for name in ("a", "b", "c"):
        (directory / name).write_text("now")
    real = os.rename

    def rename(source: Path, target: Path) -> None:
        if target == directory / "b" and source.read_text() == "saved":
            raise OSError(5, "Input/output error", str(target))
        real(source, target)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(CheckpointException, match="it is as it was"):
        checkpoint.load(saved)
    assert attempts.flow.epoch == 2
    assert contents(directory) == {"a": "now", "b": "now", "c": "now"}
    monkeypatch.undo()


def test_files_that_cannot_be_restored_at_the_first_use_leave_nothing_and_may_be_tried_again(
    attempts: Attempts, tmp_path: Path
) -> None:
    checkpoint = attempts.begin()
    Path(checkpoint.directory, "file").write_text("x")
    saved = checkpoint.save()
    checkpoint = attempts.begin()
    checkpoint.delete(saved)
    with pytest.raises(CheckpointDeletedError):
        _ = checkpoint.directory
    assert list((tmp_path / "temporary").iterdir()) == []
    checkpoint.undelete(saved)
    assert contents(checkpoint.directory) == {"file": "x"}


def test_a_step_that_only_has_files_can_save_and_one_that_has_nothing_is_told_of_both(
    attempts: Attempts,
) -> None:
    checkpoint = attempts.begin()
    with pytest.raises(
        CheckpointException, match=r"nothing to save: no attribute.*current\.checkpoint\.directory"
    ):
        checkpoint.save()
    _ = checkpoint.directory
    saved = checkpoint.save()
    assert checkpoint.inspect(saved)["fields"] == {}


@pytest.mark.parametrize("options", [{"include": ["epoch"]}, {"exclude": ["file", "directory"]}], ids=repr)
def test_include_and_exclude_concern_attributes_only(attempts: Attempts, options: dict[str, Any]) -> None:
    checkpoint = attempts.begin(**options)
    attempts.flow.epoch = 1
    Path(checkpoint.directory, "file").write_text("x")
    described = checkpoint.inspect(checkpoint.save())
    assert (list(described["fields"]), list(described["files"])) == (["epoch"], ["file"])


def test_what_files_a_task_went_on_with_is_the_parent_of_what_it_saves(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    Path(checkpoint.directory, "file").write_text("x")
    first = checkpoint.save()
    checkpoint = attempts.begin()
    _ = checkpoint.directory
    second = checkpoint.save()
    store, ref = attempts.sessions[-1].library.find(second)
    assert store.inspect(ref).checkpoint.parent == first.ref


def test_a_link_elsewhere_is_told_of_once(attempts: Attempts, tmp_path: Path) -> None:
    checkpoint = attempts.begin()
    (tmp_path / "weights").write_text("w")
    Path(checkpoint.directory, "link").symlink_to(tmp_path / "weights")
    for _ in range(3):
        checkpoint.save()
    assert len([message for message in attempts.log if "saved as a file" in message]) == 1


@pytest.mark.parametrize("wait", [True, False], ids=["waiting", "in the background"])
def test_the_time_that_a_step_was_blocked_has_the_reading_of_its_files_in_it(
    attempts: Attempts, monkeypatch: pytest.MonkeyPatch, wait: bool
) -> None:
    checkpoint = attempts.begin()
    Path(checkpoint.directory, "file").write_text("x")
    clock = [0.0]

    def read_for_a_minute(path: Path, *, log: Any) -> dict[str, object]:
        clock[0] += 60
        return collect_files(path, log=log)

    monkeypatch.setattr(directory, "collect_files", read_for_a_minute)
    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    checkpoint.save(wait=wait).wait()
    checkpoint.list()
    assert [message for message in attempts.log if "60.00 s" in message]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_that_ends_leaves_the_directory(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    Path(checkpoint.directory, "file").write_text("x")
    session = attempts.sessions[-1]
    child = os.fork()
    if child == 0:
        session.files.close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert contents(checkpoint.directory) == {"file": "x"}
