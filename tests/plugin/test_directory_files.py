"""A directory becomes fields and comes back as it was, or it is an error that names the path."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointException
from metaflow_extensions.ckptstore.plugins.checkpoint.files import directory_files, directory_restore
from metaflow_extensions.ckptstore.plugins.checkpoint.files.directory_files import collect_files
from metaflow_extensions.ckptstore.plugins.checkpoint.files.directory_names import INDEX
from metaflow_extensions.ckptstore.plugins.checkpoint.files.directory_restore import (
    describe_files,
    restore_files,
)

from ckptstore import FieldInfo


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    source.mkdir()
    return source


@pytest.fixture
def target(tmp_path: Path) -> Path:
    target = tmp_path / "target"
    target.mkdir()
    return target


def collect(source: Path) -> dict[str, Any]:
    return collect_files(source, log=lambda message: pytest.fail(message))


def infos(fields: dict[str, Any]) -> dict[str, FieldInfo]:
    return {
        name: FieldInfo(name, "bytes", "tree", len(value) + 12, len(value), 1, (), ())
        for name, value in {"an attribute": b"", **fields}.items()
    }


def restore(fields: dict[str, Any], target: Path, loads: list[list[str]] | None = None) -> None:
    def load(names: Sequence[str]) -> dict[str, Any]:
        if loads is not None:
            loads.append(list(names))
        return {name: fields[name] for name in names}

    restore_files(infos(fields), load, target)


def tree(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """All that is kept of a directory."""
    found: dict[bytes, tuple[Any, ...]] = {}
    where = os.fsencode(root)
    for folder, folders, files in os.walk(where):
        for name in (*folders, *files):
            path = os.path.join(folder, name)
            facts = os.lstat(path)
            key = os.path.relpath(path, where)
            if os.path.islink(path):
                found[key] = ("link", os.readlink(path))
            elif os.path.isdir(path):
                found[key] = ("directory", facts.st_mtime_ns)
            else:
                with open(path, "rb") as file:
                    found[key] = ("file", file.read(), facts.st_mode & 0o777, facts.st_mtime_ns)
    return found


def test_a_directory_comes_back_as_it_was(source: Path, target: Path) -> None:
    (source / "checkpoint-20" / "rng").mkdir(parents=True)
    (source / "empty" / "er").mkdir(parents=True)
    (source / "checkpoint-20" / "model.safetensors").write_bytes(os.urandom(10_000))
    (source / "checkpoint-20" / "rng" / "state 100%.pth").write_bytes(b"")
    (source / ".hidden").write_text("hidden")
    for name in ("ü\u2028", "tab\tnew\nline", "a" * 255, "back\\slash", "directory"):
        (source / name).write_text(name)
    with open(os.path.join(os.fsencode(source), b"not utf-8 \xff\xfe"), "wb") as file:
        file.write(b"odd")
    for mode in (0o600, 0o644, 0o700, 0o755, 0o444):
        (source / oct(mode)).write_text("mode")
        (source / oct(mode)).chmod(mode)
    os.utime(source / ".hidden", ns=(1, 1_000_000_000_123_456_789))
    (source / "last").symlink_to("checkpoint-20/model.safetensors")
    (source / "chain").symlink_to("last")
    (source / "checkpoint-20" / "up").symlink_to("../empty")
    (source / "dangling").symlink_to("gone")
    (source / "loop").symlink_to("loop")
    (source / "here").symlink_to(".")
    restore(collect(source), target)
    assert tree(target) == tree(source)


def test_an_empty_directory_is_content_too(source: Path, target: Path) -> None:
    fields = collect(source)
    assert list(fields) == [INDEX]
    restore(fields, target)
    assert tree(target) == {}


def test_the_processs_umask_is_respected(source: Path, target: Path) -> None:
    (source / "script").touch()
    (source / "script").chmod(0o777)
    fields = collect(source)
    before = os.umask(0o027)
    try:
        restore(fields, target)
    finally:
        os.umask(before)
    assert (target / "script").stat().st_mode & 0o777 == 0o750


def test_contents_are_bytes_and_not_the_file(source: Path) -> None:
    (source / "file").write_bytes(b"before")
    fields = collect(source)
    (source / "file").write_bytes(b"after!")
    assert type(fields["directory/file"]) is bytes
    assert fields["directory/file"] == b"before"


def test_a_single_file_stands_alone_in_the_directory(source: Path, target: Path) -> None:
    (source / "model.ckpt").write_bytes(b"model")
    (source / "other").touch()
    restore(collect(source / "model.ckpt"), target)
    assert [path.name for path in target.iterdir()] == ["model.ckpt"]


def test_links_that_are_written_otherwise_are_kept_as_links_inside(source: Path, target: Path) -> None:
    (source / "v1" / "deep").mkdir(parents=True)
    (source / "v1" / "model").touch()
    (source / "absolute").symlink_to(source / "v1" / "model")
    (source / "v1" / "deep" / "crooked").symlink_to("./.././model")
    restore(collect(source), target)
    assert os.readlink(target / "absolute") == "v1/model"
    assert os.readlink(target / "v1" / "deep" / "crooked") == "../model"


def test_a_link_to_a_file_elsewhere_becomes_that_file(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"content")
    (source / "link").symlink_to(tmp_path / "elsewhere")
    told: list[str] = []
    restore(collect_files(source, log=told.append), target)
    assert not (target / "link").is_symlink()
    assert (target / "link").read_bytes() == b"content"
    assert len(told) == 1
    assert "elsewhere' outside of the checkpoint's directory: saved as a file" in told[0]


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "a socket, a pipe or a device"),
    "socket": (lambda path: os.mknod(path, stat.S_IFSOCK), "a socket, a pipe or a device"),
    "link to a device": (lambda path: path.symlink_to("/dev/null"), "link to '/dev/null', what is no file"),
    "link to a directory elsewhere": (
        lambda path: path.symlink_to("/usr"),
        "link to '/usr', a directory outside",
    ),
    "link to nothing elsewhere": (lambda path: path.symlink_to("/no/where"), "'/no/where', what is no file"),
}


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_no_checkpoint_can_hold_is_named(tmp_path: Path, kind: str) -> None:
    make, message = SPECIAL[kind]
    (tmp_path / "sub").mkdir()
    make(tmp_path / "sub" / "odd")
    with pytest.raises(CheckpointException, match="sub/odd' is a") as caught:
        collect(tmp_path)
    assert message in str(caught.value)


def test_a_directory_that_is_gone_is_an_error(source: Path) -> None:
    source.rmdir()
    with pytest.raises(CheckpointException, match=r"cannot be read, so nothing was saved: .*source"):
        collect(source)


def growing(path: Path, n_times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a file grow between the looks at it, so many times."""
    left = iter(range(n_times))
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        facts = real(descriptor)
        if next(left, None) is not None:
            with open(path, "ab") as file:
                file.write(b"more")
        return facts

    monkeypatch.setattr(directory_files.os, "fstat", fstat)


def test_a_file_that_changes_while_it_is_read_is_read_again(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "log").write_bytes(b"start")
    growing(source / "log", 1, monkeypatch)
    assert collect(source)["directory/log"] == b"startmore"


def test_a_file_that_never_stands_still_is_an_error(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (source / "log").write_bytes(b"start")
    monkeypatch.setattr(directory_files, "_PAUSE_S", 0.0)
    growing(source / "log", 1000, monkeypatch)
    with pytest.raises(CheckpointException, match=r"log' changed each of the 5 times.*pause the writer"):
        collect(source)


def test_a_file_that_is_removed_meanwhile_is_not_part(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers rotate their checkpoints away."""
    (source / "checkpoint-1").mkdir()
    (source / "checkpoint-1" / "old").touch()
    (source / "new").touch()
    real = os.open

    def remove_and_open(path: bytes, flags: int) -> int:
        (source / "checkpoint-1" / "old").unlink(missing_ok=True)
        return real(path, flags)

    monkeypatch.setattr(directory_files.os, "open", remove_and_open)
    assert set(collect(source)) == {INDEX, "directory/new"}


def test_files_are_loaded_in_groups(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_restore, "BATCH_BYTES", 1000)
    for name, size in (("a", 400), ("b", 400), ("c", 400), ("d", 5000), ("e", 1)):
        (source / name).write_bytes(bytes(size))
    loads: list[list[str]] = []
    restore(collect(source), target, loads)
    assert [[name[len(INDEX) :] for name in names] for names in loads] == [
        [""],
        ["a", "b"],
        ["c"],
        ["d"],
        ["e"],
    ]
    assert tree(target) == tree(source)


@pytest.mark.parametrize("content", [b"shorter", b"longer than it was", "a string", None], ids=repr)
def test_a_content_that_is_not_what_the_index_says_is_refused(
    source: Path, target: Path, content: Any
) -> None:
    (source / "file").write_bytes(b"ten bytes!")
    fields = collect(source)
    with pytest.raises(CheckpointException, match="'file' is not the 10 bytes"):
        directory_restore.restore_files(
            infos(fields), lambda names: fields | {"directory/file": content}, target
        )


def test_nothing_is_written_over_what_is_there(source: Path, target: Path, tmp_path: Path) -> None:
    """As where a file system takes two names of the list for one."""
    (source / "file").write_bytes(b"new")
    (tmp_path / "precious").write_bytes(b"old")
    (target / "file").symlink_to(tmp_path / "precious")
    with pytest.raises(CheckpointException, match=r"cannot be written: .*temp_dir_root"):
        restore(collect(source), target)
    assert (tmp_path / "precious").read_bytes() == b"old"


def test_files_without_an_index_are_refused(source: Path, target: Path) -> None:
    (source / "file").touch()
    fields = collect(source)
    del fields[INDEX]
    with pytest.raises(CheckpointException, match="its index has no version"):
        restore(fields, target)
    assert tree(target) == {}


def test_what_is_told_of_files_needs_no_content(source: Path) -> None:
    (source / "sub").mkdir()
    (source / "sub" / "100%").write_bytes(b"abc")
    (source / "sub" / "100%").chmod(0o640)
    (source / "last").symlink_to("sub/100%")
    fields = collect(source)
    described = describe_files(
        infos(fields), lambda names: {INDEX: fields[INDEX]} if names == [INDEX] else {}
    )
    assert described == {
        "last": {"bytes": 0, "stored_bytes": 0, "new_bytes": 0, "mode": 0o777, "link": "sub/100%"},
        "sub/100%": {"bytes": 3, "stored_bytes": 3, "new_bytes": 1, "mode": 0o640, "link": None},
    }
    assert describe_files({}, lambda names: {}) == {}
