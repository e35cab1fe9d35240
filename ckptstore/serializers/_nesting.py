"""Guards against values that the interpreter itself cannot hash or take apart, because they nest too deeply.

CPython hashes nested tuples, and frees deques of deques, by recursion in C that
nothing counts: a million levels end the process. A tuple that holds the same
tuple twice, forty levels down, takes hours to hash.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from typing import Any

from ckptstore.errors import LimitExceededError
from ckptstore.serializers._safe_numpy import is_object_array

__all__ = ["MAX_NESTING", "Chains", "KeyWork"]

_LARGE = 2**64

MAX_NESTING = 100
"""Levels of tuples in one key, and of deques, defaultdicts or arrays of objects directly inside one another."""


class KeyWork:
    """The work that hashing keys may take in one load."""

    def __init__(self, parts: int) -> None:
        self._left = parts

    def allow(self, parts: int) -> None:
        """Add what a stream may take for its length."""
        self._left += parts

    def check(self, keys: Sequence[Any]) -> None:
        """Raise LimitExceededError for keys that take too much work or nest too deeply to be hashed."""
        kinds = set(map(type, keys))
        if int in kinds:
            numbers = keys if len(kinds) == 1 else [key for key in keys if type(key) is int]
            if max(numbers) >= _LARGE or min(numbers) <= -_LARGE:
                self._spend(sum(map(_words, numbers)))
        if any(issubclass(kind, tuple) for kind in kinds):
            for key in keys:
                if isinstance(key, tuple):
                    self._tuple(key)

    def _tuple(self, key: tuple[Any, ...]) -> None:
        level: list[tuple[Any, ...]] = [key]
        for _ in range(MAX_NESTING):
            inner: list[tuple[Any, ...]] = []
            for part in level:
                self._spend(len(part))
                for item in part:
                    if isinstance(item, tuple):
                        inner.append(item)
                    elif type(item) is int:
                        self._spend(_words(item))
            if not inner:
                return
            level = inner
        raise LimitExceededError(f"a key nests more than {MAX_NESTING} tuples")

    def _spend(self, parts: int) -> None:
        self._left -= parts
        if self._left < 0:
            raise LimitExceededError(
                "the keys of dicts and sets refer to the same large tuples again and again"
            )


def _words(number: int) -> int:
    return number.bit_length() >> 6


class Chains:
    """The containers of one load that are freed by recursion, and how many of them lie directly in one another."""

    def __init__(self) -> None:
        self._made: list[Any] = []
        self._checked = 0
        self._depths: dict[int, int] = {}

    def add(self, obj: Any) -> None:
        """Remember a container, if it is of such a kind."""
        if _is_link(obj):
            self._made.append(obj)

    def check(self) -> None:
        """Raise LimitExceededError if the containers added since the last check nest too deeply."""
        while self._checked < len(self._made):
            top = self._made[self._checked]
            self._checked += 1
            if id(top) in self._depths:
                continue
            # Depth first without recursion; a container that is still open, in a cycle, counts as none.
            self._depths[id(top)] = 0
            stack: list[tuple[Any, Iterator[Any]]] = [(top, _inside(top))]
            while stack:
                obj, rest = stack[-1]
                for item in rest:
                    if id(item) in self._depths:
                        self._deepen(obj, item)
                    elif _is_link(item):
                        # Held, so that its id stays its own.
                        self._made.append(item)
                        self._depths[id(item)] = 0
                        stack.append((item, _inside(item)))
                        break
                else:
                    stack.pop()
                    if stack:
                        self._deepen(stack[-1][0], obj)

    def dismantle(self) -> None:
        """Empty them all, so that none is freed inside another: for a load that failed."""
        for obj in self._made:
            if type(obj) in (deque, defaultdict):
                obj.clear()
            else:
                obj.fill(None)

    def _deepen(self, outer: Any, inner: Any) -> None:
        depth = max(self._depths[id(outer)], self._depths[id(inner)] + 1)
        self._depths[id(outer)] = depth
        if depth > MAX_NESTING:
            raise LimitExceededError(
                f"more than {MAX_NESTING} deques, defaultdicts or arrays of objects lie directly in one another"
            )


def _is_link(obj: Any) -> bool:
    kind = type(obj)
    return kind is deque or kind is defaultdict or (kind.__name__ == "ndarray" and is_object_array(obj))


def _inside(obj: Any) -> Iterator[Any]:
    if type(obj) is deque:
        return iter(obj)
    return iter(obj.values()) if type(obj) is defaultdict else iter(obj.flat)
