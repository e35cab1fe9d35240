"""Names of files among a checkpoint's fields, and an index that nobody can trust before it is checked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointException
from metaflow_extensions.ckptstore.plugins.checkpoint.files.directory_names import (
    INDEX,
    Entries,
    FileFacts,
    decode,
    encode,
    is_file_field,
    is_link_target,
    read_index,
)

from ckptstore._keys import check_field

ENTRIES = Entries(
    files={
        b"sub/deep/weights": FileFacts(3, 0o644, 1_700_000_000_123_456_789),
        b"run.sh": FileFacts(0, 0o755, -5),
    },
    directories={b"empty": 0, b"sub": 1, b"sub/deep": 2},
    links={b"last": b"sub/deep/weights", b"sub/deep/up": b"../../run.sh"},
)


@given(st.lists(st.binary(min_size=1, max_size=60).filter(lambda step: not set(step) & {0, 47}), max_size=4))
def test_every_path_of_a_file_system_has_a_name_that_leads_back(steps: list[bytes]) -> None:
    path = b"/".join(steps)
    assert check_field(INDEX + encode(path)) == INDEX + encode(path)
    assert decode(encode(path)) == path


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("métrique.txt".encode(), "métrique.txt"),
        (b"100%", "100%25"),
        (b"line\nend", "line%0Aend"),
        (b"latin\xe9", "latin%E9"),
        ("paragraph\u2029".encode(), "paragraph%E2%80%A9"),
    ],
)
def test_a_name_reads_as_the_path_where_it_can(path: bytes, name: str) -> None:
    assert encode(path) == name


def test_a_path_that_no_name_can_hold_is_an_error_that_shows_it() -> None:
    with pytest.raises(CheckpointException, match=r"'xxxx.*too long.*1024 bytes"):
        encode(b"x" * 1020)


@pytest.mark.parametrize("text", ["100%", "%0a", "%41", "a\nb", "%C3%A9", "\ud800", 5, None])
def test_a_second_spelling_of_a_name_is_refused(text: Any) -> None:
    with pytest.raises(CheckpointException, match="nothing was written"):
        decode(text)


def test_no_attribute_is_taken_for_a_file() -> None:
    assert is_file_field(INDEX)
    assert is_file_field(INDEX + "a")
    assert not is_file_field("directory")
    assert not is_file_field("loop/directory/")


def test_what_an_index_says_comes_back() -> None:
    assert read_index(ENTRIES.to_index(), names_of(ENTRIES.to_index())) == ENTRIES


def names_of(index: dict[str, Any]) -> list[str]:
    return [INDEX, *(INDEX + name for name in index["files"])]


def change(index: dict[str, Any], part: str, name: str, value: Any) -> None:
    index[part][name] = value


FACTS = [0, 0o644, 0]
HOSTILE: dict[str, Callable[[dict[str, Any]], Any]] = {
    "an absolute file": lambda index: change(index, "files", "/etc/cron.d/x", FACTS),
    "a file above": lambda index: change(index, "files", "../x", FACTS),
    "a file above, from below": lambda index: change(index, "files", "sub/../../x", FACTS),
    "the root as a file": lambda index: change(index, "files", "", FACTS),
    "a dot": lambda index: change(index, "files", "sub/./x", FACTS),
    "a slash at the end": lambda index: change(index, "files", "x/", FACTS),
    "a file with a zero": lambda index: change(index, "files", "x%00", FACTS),
    "a directory above": lambda index: change(index, "directories", "..", 0),
    "a file through a link": lambda index: change(index, "files", "last/x", FACTS),
    "a file through a file": lambda index: change(index, "files", "run.sh/x", FACTS),
    "a file in a directory that is not listed": lambda index: change(index, "files", "new/x", FACTS),
    "a link through a link": lambda index: change(index, "links", "last/x", "run.sh"),
    "a file and a link of one path": lambda index: change(index, "links", "run.sh", "last"),
    "a file and a directory of one path": lambda index: change(index, "directories", "run.sh", 0),
    "a link to an absolute path": lambda index: change(index, "links", "x", "/etc/passwd"),
    "a link out": lambda index: change(index, "links", "x", ".."),
    "a link out, from below": lambda index: change(index, "links", "sub/x", "../../x"),
    "a link that climbs after it descended": lambda index: change(
        index, "links", "x", "sub/deep/up/../../.."
    ),
    "an empty link": lambda index: change(index, "links", "x", ""),
    "a link with a zero": lambda index: change(index, "links", "x", "a%00"),
    "a set-user-ID bit": lambda index: change(index, "files", "run.sh", [0, 0o4755, 0]),
    "a negative mode": lambda index: change(index, "files", "run.sh", [0, -1, 0]),
    "a negative size": lambda index: change(index, "files", "run.sh", [-1, 0o644, 0]),
    "a mode that is a flag": lambda index: change(index, "files", "run.sh", [0, True, 0]),
    "a time beyond all": lambda index: change(index, "files", "run.sh", [0, 0o644, 2**70]),
    "a directory without a time": lambda index: change(index, "directories", "sub", None),
    "facts that are no list": lambda index: change(index, "files", "run.sh", "rwx"),
    "files that are a list": lambda index: index.update(files=["run.sh"]),
    "no links": lambda index: index.pop("links"),
    "another part": lambda index: index.update(owners={}),
    "no version": lambda index: index.pop("version"),
    "a version that is a flag": lambda index: index.update(version=True),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_index_is_refused(how: str) -> None:
    index = copy.deepcopy(ENTRIES.to_index())
    HOSTILE[how](index)
    fields = [INDEX, *(INDEX + str(name) for name in index["files"])]
    with pytest.raises(CheckpointException, match="nothing was written"):
        read_index(index, fields)


@pytest.mark.parametrize("index", [None, [], b"", {}, "index"], ids=repr)
def test_an_index_of_another_kind_is_refused(index: Any) -> None:
    with pytest.raises(CheckpointException, match="has no version"):
        read_index(index, [INDEX])


def test_an_index_of_a_later_release_says_what_to_do() -> None:
    with pytest.raises(
        CheckpointException, match=r"version 2, this release reads version 1\. Update ckptstore"
    ):
        read_index(ENTRIES.to_index() | {"version": 2}, names_of(ENTRIES.to_index()))


@pytest.mark.parametrize("fields", [[INDEX], ["more"], None], ids=["missing", "more", "without the index"])
def test_an_index_that_does_not_fit_the_fields_is_refused(fields: list[str] | None) -> None:
    index = ENTRIES.to_index()
    held = names_of(index)
    given = [INDEX + "run.sh"] if fields is None else fields if fields == [INDEX] else [*held, INDEX + "more"]
    with pytest.raises(CheckpointException, match="other files than it holds"):
        read_index(index, given)


@pytest.mark.parametrize(
    ("path", "target", "stays"),
    [
        (b"a", b"b", True),
        (b"a", b".", True),
        (b"d/a", b"..", True),
        (b"d/e/a", b"../../b/c", True),
        (b"a", b"..", False),
        (b"d/a", b"../..", False),
        # Where d is a link downwards this would lead out, however it looks.
        (b"a", b"d/../b", False),
        (b"a", b"./b", False),
        (b"a", b"b/", False),
        (b"a", b"/b", False),
    ],
)
def test_a_link_stays_inside_whatever_the_other_links_are(path: bytes, target: bytes, stays: bool) -> None:
    assert is_link_target(path, target) is stays
