"""The stack, the marks and the memo of a pickle that is run by rules, and what is charged for its objects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError
from ckptstore.serializers._opcodes import DamageError
from ckptstore.serializers._rules import Arguments, Pending, Rule, UnfitError

__all__ = ["PER_OPERATION", "TOKENS", "Stack", "text_bytes"]

TOKENS = frozenset({Rule, Pending, Arguments})
"""What stands on the stack for something else, and is no data itself."""
PER_OPERATION = 16
"""Bytes for the place on the stack, in the memo or in a container that each opcode may take."""


class Stack:
    """The state of one run over one stream; opcodes that push a value and name nothing."""

    def __init__(
        self, stream: bytes, refs: Sequence[Any], buffers: Sequence[memoryview], limits: Limits
    ) -> None:
        self._stream = stream
        self._refs = refs
        self._foreign = frozenset(map(id, refs))
        self._buffers = buffers
        self._n_buffers = 0
        self._limit = limits.max_pickle_memory_bytes
        # What stands in the stream itself is no amplification.
        self._left = self._limit + len(stream)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[Any] = []

    def _charge(self, n_bytes: int) -> None:
        self._left -= n_bytes
        if self._left < 0:
            self._too_large()

    def _too_large(self) -> NoReturn:
        raise LimitExceededError(
            f"the objects of a pickle take more than {self._limit} bytes beyond those of its stream "
            "(Limits.max_pickle_memory_bytes)"
        )

    def _plain(self, value: Any) -> Any:
        """Return a value as data, which rules and what is not finished are not."""
        return value.plain() if type(value) in TOKENS else value

    def _all_plain(self, values: list[Any]) -> list[Any]:
        if TOKENS.isdisjoint(map(type, values)):
            return values
        return [self._plain(value) for value in values]

    def _number(self, start: int, end: int) -> int:
        return int.from_bytes(self._stream[start:end], "little")

    def _pop(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise DamageError("it takes what lies below a mark")
        return self._stack.pop()

    def _top(self) -> Any:
        if self._marks and len(self._stack) <= self._marks[-1]:
            raise DamageError("it takes what lies below a mark")
        return self._stack[-1]

    def _items(self) -> list[Any]:
        """Take what lies above the last mark, and the mark."""
        if not self._marks:
            raise DamageError("it has no mark there")
        at = self._marks.pop()
        items = self._stack[at:]
        del self._stack[at:]
        return items

    # Opcodes; those that are met most often are in the machine's loop

    def _proto(self, start: int, end: int) -> None:
        if self._stream[start] != 5:
            raise DamageError("it is not of protocol 5")

    def _nothing(self, start: int, end: int) -> None:
        pass

    def _int(self, start: int, end: int) -> None:
        self._charge(32)
        self._stack.append(self._number(start, end))

    def _signed(self, start: int, end: int) -> None:
        self._charge(32)
        self._stack.append(int.from_bytes(self._stream[start:end], "little", signed=True))

    def _bytes(self, start: int, end: int) -> None:
        self._charge(40 + end - start)
        self._stack.append(self._stream[start:end])

    def _bytearray(self, start: int, end: int) -> None:
        self._charge(64 + end - start)
        self._stack.append(bytearray(self._stream[start:end]))

    def _text(self, start: int, end: int) -> None:
        data = self._stream[start:end]
        self._charge(text_bytes(data))
        self._stack.append(data.decode("utf-8", "surrogatepass"))

    def _next_buffer(self, start: int, end: int) -> None:
        if self._n_buffers >= len(self._buffers):
            raise DamageError(f"it uses more than {len(self._buffers)} buffers")
        self._charge(200)
        self._stack.append(self._buffers[self._n_buffers])
        self._n_buffers += 1

    def _readonly_buffer(self, start: int, end: int) -> None:
        buffer = self._pop()
        if type(buffer) is not memoryview:
            raise DamageError("it makes something else than a buffer read-only")
        self._charge(200)
        self._stack.append(buffer.toreadonly())

    def _persistent(self, start: int, end: int) -> None:
        pid = self._pop()
        if type(pid) is not int:
            raise UnfitError("a persistent id that is no number")
        if not 0 <= pid < len(self._refs):
            raise DamageError("it refers to something it does not hold")
        self._stack.append(self._refs[pid])

    def _drop(self, start: int, end: int) -> None:
        # Of a mark with nothing above it, it takes the mark.
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def _drop_to_mark(self, start: int, end: int) -> None:
        self._items()


def text_bytes(data: bytes) -> int:
    """Return about how many bytes the text of these takes: one character beyond Latin-1 makes all of them wide."""
    return 64 + (len(data) if data.isascii() else 4 * len(data))
