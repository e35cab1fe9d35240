"""A pickle as opcodes, read without running any: where each begins and ends, and which names they import."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Damage", "Scan", "operations", "scan"]


class Damage(Exception):
    """A stream is not one that a pickler of protocol 5 writes; the text says why."""


def _codes(names: str) -> list[int]:
    return [getattr(pickle, name)[0] for name in names.split()]


# What the argument of each opcode takes. Opcodes of other protocols are known too, so that the names in
# such a stream can be told.
_FIXED: dict[int, int] = {
    **dict.fromkeys(
        _codes(
            "MARK STOP POP POP_MARK DUP NONE REDUCE NEWTRUE NEWFALSE APPEND APPENDS BUILD DICT EMPTY_DICT LIST "
            "EMPTY_LIST TUPLE EMPTY_TUPLE TUPLE1 TUPLE2 TUPLE3 OBJ SETITEM SETITEMS BINPERSID NEWOBJ NEWOBJ_EX "
            "EMPTY_SET ADDITEMS FROZENSET STACK_GLOBAL MEMOIZE NEXT_BUFFER READONLY_BUFFER"
        ),
        0,
    ),
    **dict.fromkeys(_codes("BININT1 BINGET BINPUT PROTO EXT1"), 1),
    **dict.fromkeys(_codes("BININT2 EXT2"), 2),
    **dict.fromkeys(_codes("BININT LONG_BINGET LONG_BINPUT EXT4"), 4),
    **dict.fromkeys(_codes("BINFLOAT FRAME"), 8),
}
_COUNTED: dict[int, int] = {
    **dict.fromkeys(_codes("LONG1 SHORT_BINSTRING SHORT_BINBYTES SHORT_BINUNICODE"), 1),
    **dict.fromkeys(_codes("LONG4 BINSTRING BINBYTES BINUNICODE"), 4),
    **dict.fromkeys(_codes("BINBYTES8 BYTEARRAY8 BINUNICODE8"), 8),
}
_LINES: dict[int, int] = {
    **dict.fromkeys(_codes("INT LONG STRING UNICODE FLOAT PERSID GET PUT"), 1),
    **dict.fromkeys(_codes("GLOBAL INST"), 2),
}

_OF_OTHER_PROTOCOLS = frozenset(
    _codes(
        "DUP DICT LIST OBJ BINPUT LONG_BINPUT EXT1 EXT2 EXT4 BINSTRING SHORT_BINSTRING "
        "INT LONG STRING UNICODE FLOAT PERSID GET PUT GLOBAL INST"
    )
)
_NAMING = frozenset(_codes("EXT1 EXT2 EXT4 OBJ PERSID GLOBAL INST"))
"""Of these, the ones that name or call something."""

(_PROTO,) = _codes("PROTO")
(_STOP,) = _codes("STOP")
(_STACK_GLOBAL,) = _codes("STACK_GLOBAL")
(_MEMOIZE,) = _codes("MEMOIZE")
_GLOBALS = frozenset(_codes("GLOBAL INST"))
_STRINGS = frozenset(_codes("SHORT_BINUNICODE BINUNICODE BINUNICODE8"))
_GETS = frozenset(_codes("BINGET LONG_BINGET"))
_NEITHER = frozenset(_codes("MEMOIZE FRAME"))


def operations(stream: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield opcode, first and end of its argument, up to and with STOP. Nothing is copied.

    Raises Damage for an unknown opcode, an argument longer than the stream, or
    bytes after STOP.
    """
    at, size = 0, len(stream)
    fixed = _FIXED
    while at < size:
        op = stream[at]
        at += 1
        width = fixed.get(op)
        if width is not None:
            end = at + width
        elif op in _COUNTED:
            start = at + _COUNTED[op]
            if start > size:
                raise Damage("it is cut off")
            end = start + int.from_bytes(stream[at:start], "little")
            at = start
        elif op in _LINES:
            end = at - 1
            for _ in range(_LINES[op]):
                end = stream.find(b"\n", end + 1)
                if end < 0:
                    raise Damage("it is cut off")
            yield op, at, end
            at = end + 1
            continue
        else:
            raise Damage(f"unknown opcode 0x{op:02x} at byte {at - 1}")
        if end > size:
            raise Damage(f"an argument of {end - at} bytes at byte {at}, and {size - at} bytes are left")
        yield op, at, end
        at = end
        if op == _STOP:
            if at != size:
                raise Damage(f"{size - at} bytes follow its end")
            return
    raise Damage("it has no end")


@dataclass(frozen=True, slots=True)
class Scan:
    """What a stream says of itself.

    ``names`` are the (module, qualified name) pairs it imports, in order, each
    once. ``damage`` says why it is not a sound stream of protocol 5, and
    ``evasive`` that it names something in a way that only running it would
    tell. Then ``names`` are those found up to there.
    """

    names: tuple[tuple[str, str], ...]
    damage: str = ""
    evasive: bool = False


def scan(stream: bytes) -> Scan:
    """Find the names that a pickle imports, without running it; one pass, whatever the stream holds."""
    names: dict[tuple[str, str], None] = {}
    memo: dict[int, str | None] = {}
    last: tuple[str | None, str | None] = (None, None)
    damage, evasive = "", False
    first = True
    try:
        for op, start, end in operations(stream):
            if first and not damage and (op != _PROTO or stream[start] != 5):
                damage = "it is not of protocol 5"
            first = False
            if op in _STRINGS:
                last = (last[1], _text(stream, start, end))
            elif op == _MEMOIZE:
                # None: whatever else it was.
                memo[len(memo)] = last[1]
            elif op in _GETS:
                last = (last[1], memo.get(int.from_bytes(stream[start:end], "little")))
            elif op == _STACK_GLOBAL:
                module, name = last
                if module is None or name is None:
                    return Scan(tuple(names), damage or "a name that is not written in it", True)
                names[module, name] = None
                last = (None, None)
            elif op in _OF_OTHER_PROTOCOLS:
                damage = damage or "it is not of protocol 5"
                evasive = evasive or op in _NAMING
                if op in _GLOBALS:
                    module_line, _, name_line = stream[start:end].partition(b"\n")
                    names[module_line.decode("utf-8", "replace"), name_line.decode("utf-8", "replace")] = None
                last = (None, None)
            elif op not in _NEITHER:
                last = (None, None)
    except Damage as exc:
        return Scan(tuple(names), str(exc), evasive)
    return Scan(tuple(names), damage, evasive)


def _text(stream: bytes, start: int, end: int) -> str | None:
    # No name is longer; the texts of a stream are many.
    return stream[start:end].decode("utf-8", "replace") if end - start <= 1000 else None
