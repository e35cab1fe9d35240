"""What a load without trust may do with a name: rules, and what stands on the machine's stack for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from ckptstore.errors import CheckpointStoreError, LimitExceededError

__all__ = [
    "ABSENT",
    "Arguments",
    "Maker",
    "Pending",
    "Rule",
    "UnfitError",
    "Work",
    "fits",
    "resolve",
    "set_attributes",
    "shown",
    "weigh",
]


class UnfitError(Exception):
    """What a stream asks for is not what a saved object of an allowed class looks like; the text says why."""


class _Absent:
    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Any = _Absent()

Call = Callable[..., Any]


class Rule:
    """The rule of one name. On the stack it stands for the name, so that no class or function ever does.

    ``value``: what the name is where it is kept as data (a class in a list).
    ``call`` makes an object of the arguments of REDUCE, ``new`` of those of
    NEWOBJ (positional, by name); ``build`` gives an object its state and
    returns nothing; ``extend`` and ``put`` add items and pairs. What is None is
    refused. ``kind`` is the exact class of which objects are made, to find the
    rule again. With ``raw``, ``call`` is given rules in place of what they
    stand for. ``users``: the class is the caller's, and its own code runs.
    ``work`` tells for a tuple of arguments, or for a state, whatever it is, how
    many steps of ``Work`` the call takes; None if its bytes tell.
    """

    __slots__ = (
        "build",
        "call",
        "cost",
        "extend",
        "kind",
        "name",
        "new",
        "put",
        "raw",
        "users",
        "value",
        "work",
    )

    def __init__(
        self,
        name: str,
        *,
        value: Any = ABSENT,
        call: Call | None = None,
        new: Call | None = None,
        build: Call | None = None,
        extend: Call | None = None,
        put: Call | None = None,
        kind: type[Any] | None = None,
        cost: int = 400,
        raw: bool = False,
        users: bool = False,
        work: Callable[[Any], int] | None = None,
    ) -> None:
        self.name = name
        self.value = value
        self.call = call
        self.new = new
        self.build = build
        self.extend = extend
        self.put = put
        self.kind = kind
        self.cost = cost
        """Bytes that an object takes, about."""
        self.raw = raw
        self.users = users
        self.work = work

    def plain(self) -> Any:
        """Return what the name stands for as data. Raises UnfitError if it may only be called."""
        if self.value is ABSENT:
            raise UnfitError(f"{self.name} as data")
        return self.value


Maker = Callable[[str, str], Rule]
"""Makes the rule of a module and qualified name; called when a stream imports it, so it may import."""


class Pending:
    """An object that exists once ``finish`` was given its state; until then nothing can hold it.

    ``work`` is that of a rule, for the state.
    """

    __slots__ = ("_finish", "_value", "name", "work")

    def __init__(
        self, name: str, finish: Callable[[Any], Any], *, work: Callable[[Any], int] | None = None
    ) -> None:
        self.name = name
        self.work = work
        self._finish: Callable[[Any], Any] | None = finish
        self._value: Any = None

    @property
    def finished(self) -> bool:
        """Whether the object exists."""
        return self._finish is None

    def finish(self, state: Any) -> Any:
        """Return the object. Raises UnfitError, also when it was finished before."""
        if self._finish is None:
            raise UnfitError(f"a second state for a {self.name}")
        self._value = self._finish(state)
        self._finish = None
        return self._value

    def plain(self) -> Any:
        """Return the object. Raises UnfitError if it is not finished."""
        if self._finish is not None:
            raise UnfitError(f"a {self.name} that is not finished")
        return self._value


class Arguments:
    """A tuple of which some items are rules or pending; most often the arguments of a call."""

    __slots__ = ("_value", "items")

    def __init__(self, items: tuple[Any, ...]) -> None:
        self.items = items
        self._value: tuple[Any, ...] | None = None

    def plain(self) -> tuple[Any, ...]:
        """Return the tuple as data, always the same object. Raises UnfitError."""
        if self._value is None:
            tokens = (Rule, Pending, Arguments)
            self._value = tuple(item.plain() if type(item) in tokens else item for item in self.items)
        return self._value


def resolve(module: str, name: str) -> Any:
    """Return ``name`` of a module, without walking any attributes. Raises CheckpointStoreError if there is none."""
    try:
        return vars(import_module(module))[name]
    except (ImportError, KeyError) as exc:
        raise CheckpointStoreError(
            f"{module}.{name} cannot be imported here ({type(exc).__name__}): "
            "install what the writer had, or load other fields"
        ) from exc


def fits(condition: bool, what: str) -> None:
    """Raise UnfitError unless the condition holds."""
    if not condition:
        raise UnfitError(what)


def set_attributes(obj: Any, state: Any, *, hidden: Callable[[str], bool] | None = None) -> None:
    """Give an object attributes without calling any code of its class.

    ``hidden`` tells for a name that the class has a method there, which data must not replace.

    Raises UnfitError if the state is not a dict of names.
    """
    fits(type(state) is dict and all(type(key) is str for key in state), "a state that is no dict of names")
    if hidden is not None:
        for key in state:
            fits(not hidden(key), f"a state that replaces the method {key[:80]}")
    vars(obj).update(state)


_SIZED = (str, bytes, bytearray)
_LISTS = (list, tuple, set, frozenset)


def weigh(value: Any) -> int:
    """Return about how many bytes a copy of ``value``, two levels deep, may take."""
    total = 0
    for item in value if type(value) is tuple else (value,):
        kind = type(item)
        if kind in _SIZED:
            total += len(item)
        elif kind is dict:
            total += 100 * len(item)
        elif kind in _LISTS:
            total += 16 * len(item)
        elif kind is int:
            # What is computed from a long number is as long.
            total += item.bit_length() >> 3
        elif isinstance(item, Mapping):
            total += 100 * len(item)
    return total


class Work:
    """The time that calls may take in one load where it is not told by the bytes that they take, in steps.

    A step is about ten nanoseconds. What is small in a stream can be large in
    time if the stream asks for it again and again: the greatest common divisor
    of two long numbers, a seed that is spread, a path that is taken apart.
    """

    def __init__(self, steps: int = 80_000_000) -> None:
        self._left = steps

    def allow(self, steps: int) -> None:
        """Add what a stream may take for its length."""
        self._left += steps

    def spend(self, steps: int) -> None:
        """Raise LimitExceededError if there were fewer left."""
        self._left -= steps
        if self._left < 0:
            raise LimitExceededError(
                "pickles make long numbers, paths, seeds or time zones again and again, for longer than "
                "a load without trust may take over these"
            )


def shown(module: str, name: str) -> str:
    """Return a name for people, whatever it holds."""
    text = f"{module}.{name}"
    return text if text.isprintable() and len(text) <= 200 else repr(text[:200])
