"""The machine that runs pickles by rules: what it takes, what it refuses, and where its limits lie."""

from __future__ import annotations

import pickle
import struct
from typing import Any

import pytest
from streams import P5, args, called, data, load, made, name, state, stream, text

from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError, ManifestCorruptError, UntrustedPickleError
from ckptstore.serializers._opcodes import imported_names

ODICT = called("collections", "OrderedDict")

TAKEN: dict[str, tuple[bytes, Any]] = {
    "an empty tuple": (stream(b")"), ()),
    "a mark that is dropped": (stream(b"(0N"), None),
    "what lies above a mark, dropped": (stream(b"(NNN1K\x05"), 5),
    "a value that is dropped": (stream(b"K\x05N0"), 5),
    "the same object twice": (stream(b"]\x94h\x00\x86"), ([], [])),
    "a memo beyond 255": (stream(b"]" + b"\x94" * 300, b"j" + struct.pack("<I", 299), b"\x86"), ([], [])),
    "frames that lie": (P5 + b"\x95" + b"\xff" * 8 + b"N.", None),
    "an int without bytes": (stream(b"\x8a\x00"), 0),
    "a long int": (stream(b"\x8b" + struct.pack("<I", 2) + b"\xff\x7f"), 32767),
    "a long text": (stream(pickle.BINUNICODE8 + struct.pack("<Q", 2) + b"ab"), "ab"),
    "long bytes": (stream(pickle.BINBYTES8 + struct.pack("<Q", 2) + b"ab"), b"ab"),
    "a bytearray": (stream(pickle.BYTEARRAY8 + struct.pack("<Q", 2) + b"ab"), bytearray(b"ab")),
    "a tuple of a class, twice": (
        stream(name("builtins", "list"), b"\x85\x94h\x00\x86"),
        ((list,), (list,)),
    ),
    "a call by keyword without any": (
        stream(name("builtins", "object"), b")}\x92", b"0N"),
        None,
    ),
}


@pytest.mark.parametrize("what", TAKEN)
def test_a_sound_stream_gives_its_object(what: str) -> None:
    given, expected = TAKEN[what]
    assert load(given) == expected


def test_a_tuple_of_a_class_is_one_object_however_often_it_is_used() -> None:
    one, other = load(TAKEN["a tuple of a class, twice"][0])
    assert one is other


DAMAGED: dict[str, bytes] = {
    "nothing": P5,
    "no end": P5 + b"N",
    "protocol 0": b"N.",
    "protocol 4": b"\x80\x04N.",
    "protocol 6": b"\x80\x06N.",
    "a second protocol": P5 + b"\x80\x04N.",
    "bytes after the end": P5 + b"N.N",
    "nothing on the stack": stream(b""),
    "two objects": stream(b"NN"),
    "an open mark": stream(b"(N"),
    "an unknown opcode": stream(b"\xff"),
    "an opcode of protocol 0": stream(b"I1\n"),
    "a dict of protocol 0": stream(b"(d"),
    "a list of protocol 0": stream(b"(l"),
    "DUP": stream(b"N2"),
    "a place in the memo chosen": stream(b"Nq\x00"),
    "a place in the memo that is huge": stream(b"Nr" + struct.pack("<I", 2**28)),
    "a memo index that is not there": stream(b"h\x00"),
    "a memo index of 2**28": stream(b"Nj" + struct.pack("<I", 2**28)),
    "a text that is cut": P5 + b"\x8c\x05ab.",
    "a length that is cut": P5 + b"X\x01\x00",
    "a text longer than the stream": stream(b"X" + struct.pack("<I", 2**31) + b"ab"),
    "bytes longer than the stream": stream(b"B" + struct.pack("<I", 2**32 - 1) + b"ab"),
    "bytes of 2**63": stream(pickle.BINBYTES8 + struct.pack("<Q", 2**63) + b"ab"),
    "an int longer than the stream": stream(b"\x8b" + struct.pack("<i", -1)),
    "a line that is cut": P5 + b"I1",
    "a float that is cut": P5 + b"G\x00.",
    "a text that is none": stream(b"\x8c\x01\xff"),
    "an append to nothing": stream(b"a"),
    "an append below a mark": stream(b"](Na"),
    "a drop from nothing": stream(b"0"),
    "a memo of a mark": stream(b"](\x94"),
    "items without a mark": stream(b"]Ne"),
    "a tuple below a mark": stream(b"N(\x85"),
    "a key without a value": stream(b"}(Nu"),
    "a list as a key": stream(b"}]Ns"),
    "a list in a set": stream(b"\x8f(]\x90"),
    "a list in a frozenset": stream(b"(]\x91"),
    "elements of a list": stream(b"](N\x90"),
    "arguments that are a list": stream(name("collections", "OrderedDict"), b"]R"),
    "arguments by name that are a list": stream(name("builtins", "object"), b")]\x92"),
    "arguments by number": stream(name("builtins", "object"), b")}K\x01Ns\x92"),
    "a buffer that is not there": stream(b"\x97"),
    "a read-only list": stream(b"]\x98"),
    "a persistent id beyond": stream(b"K\x00Q"),
    "a persistent id below": stream(b"J\xff\xff\xff\xffQ"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_stream_is_refused_as_damaged(what: str) -> None:
    with pytest.raises(ManifestCorruptError, match="'field'"):
        load(DAMAGED[what])


def test_buffers_are_used_exactly_once_each() -> None:
    whole = b"\x97\x97\x98\x86"
    first, second = load(stream(whole), buffers=[b"one", b"two"])
    assert (bytes(first), bytes(second), second.readonly) == (b"one", b"two", True)
    with pytest.raises(ManifestCorruptError, match="uses 2 of 3 buffers"):
        load(stream(whole), buffers=[b"one", b"two", b"three"])
    with pytest.raises(ManifestCorruptError, match="more than 1 buffers"):
        load(stream(whole), buffers=[b"one"])


def test_what_comes_from_outside_a_pickle_is_not_changed_by_it() -> None:
    refs = [["list", [1]]]
    assert load(stream(b"K\x00Q"), refs=refs) == [1]
    for change in (b"Na", b"(Ne", b"NNs", b"(NNu", b"(N\x90", b"}b"):
        with pytest.raises(ManifestCorruptError, match="not its own"):
            load(stream(b"K\x00Q", change), refs=refs)


def test_a_persistent_id_that_is_no_number_is_refused() -> None:
    for pid in (text("os"), b"\x88"):
        with pytest.raises(UntrustedPickleError, match="persistent id that is no number"):
            load(stream(pid, b"Q"), refs=[["list", [1]]])


def test_a_state_with_slots_is_refused_for_attributes() -> None:
    with pytest.raises(UntrustedPickleError, match="dict of names"):
        load(stream(state(made("argparse", "Namespace"), data((None, {"x": 1})))))


def test_an_object_that_is_not_finished_is_not_data() -> None:
    with pytest.raises(UntrustedPickleError, match="not finished"):
        load(stream(b"]", made("uuid", "UUID"), b"a"))
    twice = stream(made("uuid", "UUID"), b"\x94", data({"int": 1}), b"bh\x00\x86")
    one, other = load(twice)
    assert one is other
    again = data({"int": 1}) + b"b"
    with pytest.raises(UntrustedPickleError, match="second state"):
        load(stream(made("uuid", "UUID"), b"\x94h\x00", again, b"0", again))


def test_a_pickle_is_as_long_as_the_limit_and_no_longer() -> None:
    given = stream(data("x" * 100))
    assert load(given, limits=Limits(max_pickle_bytes=len(given))) == "x" * 100
    with pytest.raises(LimitExceededError, match="max_pickle_bytes"):
        load(given, limits=Limits(max_pickle_bytes=len(given) - 1))


def test_objects_take_as_much_memory_as_the_limit_and_no_more() -> None:
    given = stream(b"(" + b"]" * 1000 + b"t")
    # 1003 opcodes with PROTO, 88 bytes for a list, and the tuple; the stream itself is free.
    needed = 16 * 1004 + 88 * 1000 + 64 + 8 * 1000 - len(given)
    assert len(load(given, limits=Limits(max_pickle_memory_bytes=needed))) == 1000
    with pytest.raises(LimitExceededError, match="max_pickle_memory_bytes"):
        load(given, limits=Limits(max_pickle_memory_bytes=needed - 1))


BOMBS: dict[str, bytes] = {
    "lists": b"(" + b"]" * 1_000_000 + b"t",
    "sets": b"(" + b"\x8f" * 1_000_000 + b"t",
    "a memo": b"N" + b"\x94" * 2_000_000,
    "one dict many times": stream(data(dict.fromkeys(range(1000))))[2:-1]
    + b"\x940"
    + name("collections", "Counter")
    + b"\x940("
    + b"h\x02h\x00\x85R" * 20_000
    + b"t",
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_small_stream_does_not_take_much_memory(what: str) -> None:
    limits = Limits(max_pickle_memory_bytes=20 * 2**20)
    with pytest.raises(LimitExceededError, match="max_pickle_memory_bytes"):
        load(P5 + BOMBS[what] + b".", limits=limits)


def test_the_names_of_a_stream_are_found_without_running_it() -> None:
    for protocol in range(6):
        found = imported_names(pickle.dumps([print, pytest.raises, len], protocol))
        assert [qualname for _, qualname in found] == ["print", "raises", "len"]
    assert imported_names(stream(text("a"), b"\x94", text("b"), b"\x940h\x00h\x01\x93")) == [("a", "b")]
    assert imported_names(stream(text("a"), b"\x95" + bytes(8), text("b"), b"\x93")) == [("a", "b")]
    long = text("m" * 300) + text("n" * 300) + b"\x93"
    assert imported_names(stream(b"N" + b"\x94" * 300, long)) == [("m" * 300, "n" * 300)]


@pytest.mark.parametrize(
    "given",
    [
        b"\x80",
        b"X\x01",
        b"c",
        b"cos\n",
        b"N\xff",
        text("a") + b"N" + text("b") + b"0\x93",
        b"h\x05",
        b"j\x00",
    ],
)
def test_names_end_where_a_stream_is_broken(given: bytes) -> None:
    whole = stream(name("a", "b"), given)
    assert imported_names(whole) == [("a", "b")]


def test_many_names_are_told_in_part() -> None:
    many = stream(args(*(name("os", f"f{i}") for i in range(20))))
    with pytest.raises(UntrustedPickleError, match=r"os\.f0, .*os\.f7 and 12 more"):
        load(many)
