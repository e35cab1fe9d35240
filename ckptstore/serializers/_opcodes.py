"""A pickle as opcodes, read without running any: where each begins and ends, and which names they import."""

from __future__ import annotations

import pickle
from array import array

__all__ = ["MAX_NAMES", "NAMING", "DamageError", "argument", "imported_names"]

MAX_NAMES = 10_000
"""Different names that one stream may import."""


class DamageError(Exception):
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

NAMING = frozenset(_codes("EXT1 EXT2 EXT4 OBJ PERSID GLOBAL INST"))
"""Opcodes of other protocols that name or call something."""

(_STOP, _STACK_GLOBAL, _MEMOIZE, _BINGET, _LONG_BINGET, _SHORT_STRING, _FRAME) = _codes(
    "STOP STACK_GLOBAL MEMOIZE BINGET LONG_BINGET SHORT_BINUNICODE FRAME"
)
_STRINGS = frozenset(_codes("BINUNICODE BINUNICODE8 UNICODE"))
_GLOBALS = frozenset(_codes("GLOBAL INST"))
_EXTENSIONS = dict(zip(_codes("EXT1 EXT2 EXT4"), (1, 2, 4), strict=True))

_SKIP = [0] * 256
"""Bytes of each opcode that has no part in naming, with its argument; 0 for the others."""
for _op, _width in _FIXED.items():
    _SKIP[_op] = 1 + _width
for _op in _codes("STOP STACK_GLOBAL MEMOIZE BINGET LONG_BINGET FRAME EXT1 EXT2 EXT4"):
    _SKIP[_op] = 0

_LENGTH_BITS = 16


def argument(stream: bytes, op: int, at: int) -> tuple[int, int]:
    """Return where the argument of an opcode begins and ends, ``at`` being the byte after the opcode.

    Opcodes whose arguments are lines have none here: no one goes on behind them.

    Raises DamageError for an unknown opcode, or an argument longer than the stream.
    """
    size = len(stream)
    width = _FIXED.get(op)
    if width is not None:
        start, end = at, at + width
    elif op in _COUNTED:
        start = at + _COUNTED[op]
        if start > size:
            raise DamageError("it is cut off")
        end = start + int.from_bytes(stream[at:start], "little")
    elif op in _LINES:
        start = end = at
    else:
        raise DamageError(f"unknown opcode 0x{op:02x} at byte {at - 1}")
    if end > size:
        raise DamageError(
            f"an argument of {end - start} bytes at byte {start}, and {size - start} bytes are left"
        )
    return start, end


def imported_names(stream: bytes) -> list[tuple[str, str]]:
    """Return the (module, qualified name) pairs that a pickle imports, each once, without running it.

    It is exact for what a pickler writes. In a stream that breaks off, or names
    something in a way that only running it would tell, it is what comes before that.
    """
    # Every save goes through this loop: it knows where texts lie, and decodes only those that are names.
    found: dict[tuple[int, int], None] = {}
    other: list[tuple[str, str]] = []
    memo = array("Q")
    memoize, skip = memo.append, _SKIP
    at, size, older, newer = 0, len(stream), 0, 0
    try:
        while at < size:
            op = stream[at]
            step = skip[op]
            if step:
                at += step
                newer = 0
            elif op == _MEMOIZE:
                memoize(newer)
                at += 1
            elif op == _SHORT_STRING:
                older = newer
                newer = (at + 2) << _LENGTH_BITS | stream[at + 1]
                at += 2 + stream[at + 1]
            elif op == _BINGET:
                older = newer
                newer = memo[stream[at + 1]]
                at += 2
            elif op == _LONG_BINGET:
                older = newer
                newer = memo[int.from_bytes(stream[at + 1 : at + 5], "little")]
                at += 5
            elif op == _STACK_GLOBAL:
                if not older or not newer or len(found) >= MAX_NAMES:
                    break
                found[older, newer] = None
                at, newer = at + 1, 0
            elif op == _FRAME:
                at += 9
            elif op in _COUNTED:
                start = at + 1 + _COUNTED[op]
                length = int.from_bytes(stream[at + 1 : start], "little")
                older, newer = newer, 0
                if op in _STRINGS and length < 1 << _LENGTH_BITS:
                    newer = start << _LENGTH_BITS | length
                at = start + length
            elif op in _LINES:
                end = stream.index(b"\n", at)
                if op in _GLOBALS:
                    last = stream.index(b"\n", end + 1)
                    other.append((_decoded(stream[at + 1 : end]), _decoded(stream[end + 1 : last])))
                    end = last
                older, newer = newer, 0
                if op in _STRINGS and end - at < 1 << _LENGTH_BITS:
                    newer = (at + 1) << _LENGTH_BITS | (end - at - 1)
                at = end + 1
            elif op in _EXTENSIONS:
                end = at + 1 + _EXTENSIONS[op]
                code = int.from_bytes(stream[at + 1 : end], "little")
                other.append(("copyreg", f"extension {code}"))
                at, newer = end, 0
            else:
                break
    except (IndexError, ValueError):
        pass
    names = {(_text(stream, module), _text(stream, name)): None for module, name in found}
    return list(dict.fromkeys([*names, *other]))


def _text(stream: bytes, place: int) -> str:
    start = place >> _LENGTH_BITS
    return _decoded(stream[start : start + (place & (1 << _LENGTH_BITS) - 1)])


def _decoded(data: bytes) -> str:
    return data.decode("utf-8", "replace")
