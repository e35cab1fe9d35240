"""The first argument of current.checkpoint.save: a name, or the path of files to save instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attempts import Attempts, contents
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError


@pytest.fixture
def attempts(tmp_path: Path) -> Iterator[Attempts]:
    attempts = Attempts(tmp_path)
    yield attempts
    attempts.end()


@pytest.mark.parametrize(
    "save",
    [
        lambda checkpoint, path: checkpoint.save(path=path),
        lambda checkpoint, path: checkpoint.save(path),
        lambda checkpoint, path: checkpoint.save(str(path)),
        lambda checkpoint, path: checkpoint.save("outside", name="best"),
        lambda checkpoint, path: checkpoint.save("./outside", {"epoch": 1}, wait=False),
    ],
    ids=["path=", "a path", "an absolute text", "beside a name", "a relative text"],
)
def test_a_path_is_saved_instead_of_the_directory(
    attempts: Attempts, tmp_path: Path, monkeypatch: Any, save: Callable[[CurrentCheckpoint, Path], Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "deep" / "file").write_text("x")
    checkpoint = attempts.begin()
    Path(checkpoint.directory, "inside").write_text("not this")
    save(checkpoint, tmp_path / "outside")
    assert contents(checkpoint.directory) == {"inside": "not this"}
    checkpoint = attempts.begin()
    assert contents(checkpoint.directory) == {"deep/file": "x"}


def test_the_path_of_a_file_saves_that_file_under_its_own_name(attempts: Attempts) -> None:
    checkpoint = attempts.begin()
    for name in ("epoch=1.ckpt", "epoch=2.ckpt"):
        Path(checkpoint.directory, name).write_text(name)
    saved = checkpoint.save(Path(checkpoint.directory, "epoch=1.ckpt"), name="best", latest=True)
    assert saved.name == "best"
    checkpoint = attempts.begin()
    assert contents(checkpoint.directory) == {"epoch=1.ckpt": "epoch=1.ckpt"}


def test_any_other_first_argument_is_a_name_and_a_file_of_that_name_is_told_of(
    attempts: Attempts, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "best").mkdir()
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    assert [checkpoint.save(name).name for name in ("best", "best", "epoch/3", "latest")] == [
        "best", "best", "epoch/3", "latest"
    ]  # fmt: skip
    assert [message for message in attempts.log if "not the path" in message] == [
        "'best' is the checkpoint's name, not the path of the file that is called so; "
        "save(path='best') saves that file"
    ]


@pytest.mark.parametrize(
    ("given", "named", "message"),
    [
        (["/no/such/file"], {}, "no file or directory '/no/such/file'"),
        (["model"], {"name": "best"}, "no file or directory 'model'.*when name= is given too"),
        ([], {"path": 5}, "path must be the path"),
        ([], {"path": ""}, "path must be the path"),
        ([Path("/")], {"path": "/"}, "two paths or names"),
        (["best"], {"path": "/"}, "two paths or names"),
    ],
    ids=str,
)
def test_paths_that_cannot_be_are_refused(attempts: Attempts, given: Any, named: Any, message: str) -> None:
    checkpoint = attempts.begin()
    attempts.flow.epoch = 1
    with pytest.raises(CheckpointArgumentError, match=message):
        checkpoint.save(*given, **named)
    assert checkpoint.list() == []
