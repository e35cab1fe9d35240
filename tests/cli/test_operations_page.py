"""``docs/operations.md`` says what the command does: its names, its objects, its exit codes."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from cli_rig import Filled, ckptstore

from ckptstore import GCReport
from ckptstore.cli import command
from ckptstore.cli.app import EXIT_CODES

PAGE = (Path(__file__).parents[2] / "docs/operations.md").read_text()
SHAPES = PAGE[PAGE.index("### For programs") : PAGE.index("| exit code |")]


def documented(row: str) -> set[str]:
    """The names in the row of the table of objects that starts with ``row``."""
    (line,) = [line for line in SHAPES.splitlines() if line.startswith(f"| {row} |")]
    return set(re.findall(r"`([a-z_]+)`", line.partition("|")[2].partition("|")[2]))


def names(value: object) -> set[str]:
    """All names of an object and of the objects in its lists."""
    if isinstance(value, dict):
        return {str(name) for name in value} | {n for item in value.values() for n in names_in_list(item)}
    return set()


def names_in_list(value: object) -> set[str]:
    return {n for item in value for n in names(item)} if isinstance(value, list) else set()


def test_every_command_is_on_the_page() -> None:
    for name in command.commands:
        assert re.search(rf"`{name}[ `]", PAGE), name


def test_the_exit_codes_are_those_of_the_help() -> None:
    told = re.findall(r"^ +(\d+)  (.+)$", EXIT_CODES, re.MULTILINE)
    assert len(told) == 6
    assert told == re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("`ls URL COLLECTION`", ("ls", "exp/run1")),
        ("`diff`", ("diff", "exp/run1")),
        ("`rm`", ("rm", "exp/run1@", "--yes")),
        ("`du`", ("du",)),
        ("`doctor`", ("doctor",)),
    ],
)
def test_the_objects_have_the_names_on_the_page(filled: Filled, row: str, words: tuple[str, ...]) -> None:
    printed = {name for line in ckptstore(words[0], filled.url, *words[1:], "--json").lines for name in line}
    inner = {"name", "state", "before_bytes", "after_bytes", "arrays"} if row == "`diff`" else set()
    assert printed == documented(row) - inner


def test_the_other_objects_have_the_names_on_the_page(filled: Filled, tmp_path: Path) -> None:
    collections = ckptstore("ls", filled.url, "--json").lines[0]
    assert set(collections) == documented("`ls URL`")
    inspected = ckptstore("inspect", filled.url, "exp/run1", "--json").one
    listed = documented("`ls URL COLLECTION`")
    (field, *_), (use, *_) = inspected["fields"], inspected["codecs"]
    assert set(inspected) - listed | set(field) | set(use) == documented("`inspect`") - {"fields"}
    copied = ckptstore("copy", filled.url, tmp_path / "copy", "--json").lines[0]
    states = {"copied", "due", "there", "older", "failed"}
    assert set(copied) == documented("`copy`") - states
    pinned = ckptstore("pin", filled.url, "exp/run1@", "--json").one
    assert set(pinned) < documented("`undelete`, `pin`, `unpin`")
    collected = ckptstore("gc", filled.url, "--dry-run", "--json").one
    assert set(collected) == {field.name for field in dataclasses.fields(GCReport)} | {"freed_bytes"}
    next(iter(filled.chunks())).unlink()
    assert names(ckptstore("verify", filled.url, "--json").one) == documented("`verify`")


def test_the_policy_is_json() -> None:
    (policy,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert json.loads(policy)["Statement"][0]["Action"] == "s3:GetObject"


def test_a_lost_marker_is_written_anew_as_the_page_says(filled: Filled) -> None:
    marker = filled.url / "ckptstore.json"
    store_id = json.loads(marker.read_text())["store_id"]
    marker.unlink()
    assert ckptstore("ls", filled.url).code == 3
    (line,) = re.findall(r'^    (\{"format".*)$', PAGE, re.MULTILINE)
    marker.write_text(line)
    told = ckptstore("ls", filled.url, "exp/run1").err
    assert f"belongs to store {store_id}" in told
    marker.write_text(line.replace("0" * 32, store_id))
    assert ckptstore("verify", filled.url).code == 0
