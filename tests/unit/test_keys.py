"""Names and keys: reversible, apart even where case is folded, in order, and refused when they do not fit."""

from __future__ import annotations

import enum
import re
import secrets

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ckptstore._keys import (
    COLLECTION_MARKER,
    MANIFESTS,
    MAX_EPOCH,
    MAX_SEQ,
    PIN,
    TOMBSTONE,
    CheckpointName,
    check_collection,
    check_field,
    check_run_and_label,
    chunk_key,
    collection_of,
    collection_prefix,
    manifest_key,
    parse_name,
)
from ckptstore.errors import ConfigError, InvalidNameError

UNFIT = "".join(map(chr, (*range(32), *range(127, 160), 0x2028, 0x2029)))
CHARS = st.characters(exclude_categories=["Cs"], exclude_characters=UNFIT)
TEXT = st.one_of(
    st.text(CHARS, min_size=1, max_size=12),
    st.text("aAbB+=~-._/ 0µÄ", min_size=1, max_size=12),
)
IDS = st.text("0123456789abcdef", min_size=32, max_size=32)
NAMES = st.builds(
    CheckpointName,
    st.integers(0, MAX_EPOCH),
    st.integers(0, MAX_SEQ),
    st.none() | TEXT,
    st.none() | TEXT,
    IDS,
)
GRAMMAR = re.compile(r"[0-9A-Za-z._+=~/-]+")


@st.composite
def collections(draw: st.DrawFn) -> str:
    name = draw(TEXT)
    try:
        return check_collection(name)
    except InvalidNameError:
        assume(False)
        raise


def refused(name: str) -> bool:
    try:
        check_collection(name)
    except InvalidNameError:
        return True
    return False


@given(collections())
def test_a_collection_comes_back_from_its_key(name: str) -> None:
    prefix = collection_prefix(name)
    assert prefix.startswith(MANIFESTS)
    assert prefix.endswith("/")
    component = prefix[len(MANIFESTS) : -1]
    assert "/" not in component
    assert collection_of(component) == name


@given(NAMES)
def test_a_checkpoints_name_comes_back_from_its_key(name: CheckpointName) -> None:
    check_run_and_label(name.run, name.label)
    assert parse_name(name.text) == name


@given(collections(), collections())
def test_two_collections_never_share_a_key_even_where_case_is_folded(one: str, other: str) -> None:
    keys = [collection_prefix(name).casefold() for name in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert not keys[0].startswith(keys[1]) or one == other


@given(TEXT)
def test_a_name_and_its_other_cases_have_keys_of_their_own(name: str) -> None:
    cases = {name, name.upper(), name.lower(), name.swapcase(), name.casefold(), name.title()}
    cases = {case for case in cases if not refused(case)}
    assert len({collection_prefix(case).casefold() for case in cases}) == len(cases)


def test_run_and_upper_case_run_are_apart() -> None:
    assert collection_prefix("Run") == "manifests/+run/"
    assert collection_prefix("run") == "manifests/run/"
    # The mutant: had capitals stood for themselves, a disk that folds case would mix them.
    assert "manifests/Run/".casefold() == "manifests/run/".casefold()


def test_lookalikes_are_different_names() -> None:
    """Composed and decomposed letters look the same, and file systems that normalize would mix them."""
    assert collection_prefix("\u00e9") != collection_prefix("e\u0301")


@given(NAMES, NAMES)
def test_two_checkpoints_never_share_a_key_even_where_case_is_folded(
    one: CheckpointName, other: CheckpointName
) -> None:
    assert (one.text.casefold() == other.text.casefold()) == (one == other)


@given(collections(), NAMES)
def test_keys_are_plain_ascii_and_short(collection: str, name: CheckpointName) -> None:
    for key in (manifest_key(collection, name.text + TOMBSTONE), chunk_key(bytes(32), bytes(8), "planes4")):
        assert GRAMMAR.fullmatch(key)
        assert len(key) <= 900
        assert all(0 < len(part) <= 255 for part in key.split("/"))
        assert not any(part in (".", "..") for part in key.split("/"))


def test_the_longest_names_fit_a_key_and_one_more_is_refused() -> None:
    assert check_collection("a" * 255)
    assert check_run_and_label("a" * 90, "b" * 100)
    longest = CheckpointName(MAX_EPOCH, MAX_SEQ, "a" * 90, "b" * 100, "f" * 32).text + TOMBSTONE
    assert len(longest) <= 255
    assert len(manifest_key("a" * 255, longest)) <= 900
    assert parse_name(longest[: -len(TOMBSTONE)]) is not None
    with pytest.raises(InvalidNameError, match="256 bytes"):
        check_collection("a" * 256)
    with pytest.raises(InvalidNameError, match=r"258 bytes.*upper case"):
        check_collection("A" * 129)
    with pytest.raises(InvalidNameError, match="258 bytes"):
        check_collection("\u20ac" * 28 + "=" * 2)
    with pytest.raises(InvalidNameError, match="191 bytes"):
        check_run_and_label("a" * 91, "b" * 100)
    with pytest.raises(InvalidNameError, match="192 bytes"):
        check_run_and_label(None, "B" * 96)


@given(NAMES, NAMES)
def test_the_newest_sorts_first(one: CheckpointName, other: CheckpointName) -> None:
    assume((one.epoch, one.seq) != (other.epoch, other.seq))
    assert (one.text < other.text) == ((one.epoch, one.seq) > (other.epoch, other.seq))


@pytest.mark.parametrize("seq", [0, 1, 9, 15, 16, 255, 256, 2**32, MAX_SEQ - 1])
def test_the_next_number_sorts_above(seq: int) -> None:
    newer, older = (CheckpointName(1, n, None, None, secrets.token_hex(16)) for n in (seq + 1, seq))
    assert newer.text < older.text
    assert CheckpointName(2, 0, None, None, "f" * 32).text < newer.text


@given(st.lists(NAMES, min_size=1, max_size=8, unique=True))
def test_tombstone_and_pin_follow_their_manifest_directly(names: list[CheckpointName]) -> None:
    keys = [name.text + suffix for name in names for suffix in ("", PIN, TOMBSTONE)]
    listed = sorted([*keys, COLLECTION_MARKER])
    assert listed.pop(0) == COLLECTION_MARKER
    for i in range(0, len(listed), 3):
        assert listed[i + 1 : i + 3] == [listed[i] + PIN, listed[i] + TOMBSTONE]
        assert parse_name(listed[i]) in names


NAME = CheckpointName(3, 7, "host", "best", "0123456789abcdef" * 2).text


@pytest.mark.parametrize(
    "text",
    [
        "", "-collection", "ckptstore.json", NAME + TOMBSTONE, NAME + PIN, NAME + "~", NAME + "\n", NAME[1:], NAME[:-1],
        NAME + "0", " " + NAME, NAME.upper(), NAME.replace("host", "Host"), NAME.replace("host", "ho st"),
        NAME.replace("host", "+Host"), NAME.replace("host", "+"), NAME.replace("host", "+1"),
        NAME.replace("host", "=6"), NAME.replace("host", "=68ost"), NAME.replace("host", "=C3=A4"),
        NAME.replace("host", "=c3"), NAME.replace("host", "=ed=a0=80"), NAME.replace("host", "=c1=a1"),
        NAME.replace("host", "a/b"), NAME.replace("host", "\u00e4"), NAME.replace("~best", ""),
        NAME.replace("~best", "~best~more"), NAME.replace("3", "\u0663"), "../" + NAME, ".tmp-" + NAME, "~gc/run",
    ],
)  # fmt: skip
def test_a_foreign_name_is_none(text: str) -> None:
    assert parse_name(NAME) is not None
    assert parse_name(text) is None


@given(st.text(max_size=80) | st.text("0f~+=.", min_size=50, max_size=90))
def test_whatever_is_parsed_is_written_the_same(text: str) -> None:
    name = parse_name(text)
    assert name is None or name.text == text


@pytest.mark.parametrize(
    "component", ["", ".", "..", "-x", "~gc", "~gc~x", "a b", "A", "=61", "a=2f..", "=00", "=0a", "=2f"]
)
def test_a_component_that_no_collection_has_is_none(component: str) -> None:
    assert collection_of(component) is None


WRONG_TEXTS = [
    None, 1, 1.5, b"bytes", ["list"], object(), True, "", "\0", "a\0b", "a\nb", "\r", "\t", "\x7f", "\x1b[31m", "\x85",
    "\x9b31m", "a\u2028b", "a\u2029b", "\ud800", "a\udfffb", "x" * 2000,
]  # fmt: skip
WRONG_COLLECTIONS = [
    "../x", "a/../../b", "/abs", "a/", "a//b", "/", "//", ".", "..", "./a", "a/.", "a/./b", "-", "-a", "a/-b",
    "--collection", "-collection", "../" * 50, "a/" + "x" * 2000, "\u00e4" * 100,
]  # fmt: skip


@pytest.mark.parametrize("name", [*WRONG_TEXTS, *WRONG_COLLECTIONS], ids=lambda name: ascii(name)[:20])
def test_a_collection_that_cannot_be_is_refused(name: object) -> None:
    with pytest.raises(InvalidNameError, match=r"^collection ") as info:
        check_collection(name)
    assert isinstance(info.value, (ConfigError, ValueError))
    assert len(str(info.value)) < 300
    assert str(info.value).isprintable()


@pytest.mark.parametrize("what", ["run", "label", "field"])
@pytest.mark.parametrize("name", WRONG_TEXTS, ids=lambda name: ascii(name)[:20])
def test_a_name_that_cannot_be_is_refused(what: str, name: object) -> None:
    if name is None and what != "field":
        assert check_run_and_label(None, None) == (None, None)
        return
    checks = {
        "run": lambda: check_run_and_label(name, None),
        "label": lambda: check_run_and_label("fine", name),
        "field": lambda: check_field(name),
    }
    with pytest.raises(InvalidNameError, match=rf"^{what} ") as info:
        checks[what]()
    assert len(str(info.value)) < 300
    assert str(info.value).isprintable()


@pytest.mark.parametrize("name", ["../x", "-x", ".", "a/b", "x y", "\u00e4", "~", "=00", "\U0001f600"])
def test_run_and_label_are_free_text(name: str) -> None:
    assert check_run_and_label(name, name) == (name, name)
    parsed = parse_name(CheckpointName(1, 0, name, name, "0" * 32).text)
    assert parsed is not None
    assert (parsed.run, parsed.label) == (name, name)


def test_a_field_has_at_most_1024_bytes() -> None:
    assert check_field("\u00e4" * 512)
    with pytest.raises(InvalidNameError, match="1024"):
        check_field("\u00e4" * 513)


def test_a_member_of_an_enum_stands_for_its_text() -> None:
    class Label(str, enum.Enum):
        BEST = "best"

    class Loud(str):
        def __str__(self) -> str:
            return "../x"

    for name, text in ((Label.BEST, "best"), (Loud("fine"), "fine")):
        for found in (check_collection(name), check_run_and_label(name, None)[0], check_field(name)):
            assert found == text
            assert type(found) is str


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=8, max_size=8))
def test_a_chunks_key_is_made_of_digest_nonce_and_codec(digest: bytes, nonce: bytes) -> None:
    head, shard, name = chunk_key(digest, nonce, "zstd").split("/")
    assert (head, shard) == ("chunks", digest.hex()[:2])
    assert name == f"{digest.hex()}.{nonce.hex()}.zstd"
