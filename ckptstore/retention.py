"""Which checkpoints of a collection stay: rules that combine with ``|``.

    keep = last(3) | best("val_loss", 2) | every(10) | max_age("7 d")
    await store.save("exp/run1", values, keep=keep)

What any rule keeps is kept. Rules only choose: the store never deletes a pinned
checkpoint or the newest, whatever they say. This module is pure and needs the
standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ckptstore._policy_text import WORD, duration_text, parse_duration, read_calls
from ckptstore.errors import InvalidPolicyError

__all__ = ["Candidate", "Keep", "best", "every", "last", "max_age"]

_MAX_AGE_S = 1e9
_MAX_COUNT = 2**48
_SCALARS = (type(None), bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Candidate:
    """What rules may look at of one checkpoint.

    ``seq`` is its number in its epoch, ``age_s`` its age in seconds by the
    storage's clock. ``metadata`` and ``attributes`` are None where they were not
    asked for, or cannot be read: a rule that needs them then keeps it.
    """

    seq: int
    age_s: float = 0.0
    metadata: Mapping[str, object] | None = None
    attributes: Mapping[str, object] | None = None


class _Rule(Protocol):
    @property
    def reads(self) -> bool:
        """True if it needs metadata or attributes."""

    def kept(self, candidates: Sequence[Candidate]) -> set[int]:
        """Return the positions of those it keeps; candidates come newest first."""


@dataclass(frozen=True, slots=True)
class _Last:
    n: int
    attributes: str
    """Canonical JSON, so that 1, 1.0 and true are three; empty for any."""

    @property
    def reads(self) -> bool:
        return bool(self.attributes)

    def kept(self, candidates: Sequence[Candidate]) -> set[int]:
        if not self.attributes:
            return set(range(min(self.n, len(candidates))))
        wanted = json.loads(self.attributes)
        known = [(at, one.attributes) for at, one in enumerate(candidates)]
        matching = [at for at, found in known if found is not None and _contains(found, wanted)]
        return {*matching[: self.n], *(at for at, found in known if found is None)}

    def __str__(self) -> str:
        return f"last({self.n}, {self.attributes})" if self.attributes else f"last({self.n})"


@dataclass(frozen=True, slots=True)
class _Best:
    metric: str
    n: int
    mode: str
    reads = True

    def kept(self, candidates: Sequence[Candidate]) -> set[int]:
        values: list[tuple[float, int]] = []
        unknown: set[int] = set()
        for at, one in enumerate(candidates):
            if one.metadata is None:
                unknown.add(at)
            elif (value := _number(one.metadata.get(self.metric))) is not None:
                values.append((value, at))
        # The order of the candidates, newest first, stays among equals, also reversed.
        values.sort(key=lambda item: item[0], reverse=self.mode == "max")
        return unknown | {at for _, at in values[: self.n]}

    def __str__(self) -> str:
        metric = self.metric if WORD.fullmatch(self.metric) else json.dumps(self.metric)
        return f"best({metric}, {self.n})" if self.mode == "min" else f"best({metric}, {self.n}, {self.mode})"


@dataclass(frozen=True, slots=True)
class _Every:
    n: int
    reads = False

    def kept(self, candidates: Sequence[Candidate]) -> set[int]:
        return {at for at, one in enumerate(candidates) if one.seq % self.n == 0}

    def __str__(self) -> str:
        return f"every({self.n})"


@dataclass(frozen=True, slots=True)
class _MaxAge:
    seconds: float
    reads = False

    def kept(self, candidates: Sequence[Candidate]) -> set[int]:
        return {at for at, one in enumerate(candidates) if one.age_s < self.seconds}

    def __str__(self) -> str:
        return f"max_age({duration_text(self.seconds)})"


@dataclass(frozen=True, slots=True)
class Keep:
    """A retention policy: one rule, or several joined by ``|``. Made by ``last``, ``best``, ``every``, ``max_age``.

    It can be compared, hashed and pickled; ``str`` gives a text that ``parse`` reads.
    """

    _rules: tuple[_Rule, ...]

    def __post_init__(self) -> None:
        if not self._rules:
            raise InvalidPolicyError(
                "a retention policy without a rule would keep nothing: begin with last(1)"
            )

    def __or__(self, other: Keep) -> Keep:
        """Return the policy that keeps what either of the two keeps."""
        if not isinstance(other, Keep):
            return NotImplemented
        return Keep(tuple(dict.fromkeys((*self._rules, *other._rules))))

    @property
    def reads(self) -> bool:
        """True if a rule needs the metadata or attributes of every checkpoint."""
        return any(rule.reads for rule in self._rules)

    @property
    def needs_age(self) -> bool:
        """True if a rule needs to know how old a checkpoint is."""
        return any(isinstance(rule, _MaxAge) for rule in self._rules)

    def kept(self, candidates: Sequence[Candidate]) -> set[int]:
        """Return the positions of what the rules keep among ``candidates``, which come newest first."""
        return set().union(*(rule.kept(candidates) for rule in self._rules))

    def __str__(self) -> str:
        return " | ".join(map(str, self._rules))

    def __repr__(self) -> str:
        return f"Keep.parse({str(self)!r})"

    @classmethod
    def parse(cls, text: str) -> Keep:
        """Return the policy that a text says: ``last(3) | best(val_loss, 2) | every(10) | max_age(7 d)``.

        Arguments may also be given as in Python: ``best("accuracy", n=1,
        mode="max")``, ``last(3, {"attempt": 0})``. Nothing is evaluated.

        Raises InvalidPolicyError that says what is wrong, and where.
        """
        if not isinstance(text, str):
            raise InvalidPolicyError(f"a retention policy's text must be a string, not {type(text).__name__}")
        rules: list[_Rule] = []
        for call in read_calls(text):
            make, names = _MAKERS.get(call.name, (None, ()))
            if make is None:
                raise InvalidPolicyError(
                    f"{call.name[:40]!r} is no retention rule; there are {', '.join(_MAKERS)}"
                )
            given = dict(zip(names, call.positional, strict=False))
            twice = given.keys() & call.named.keys()
            if len(call.positional) > len(names) or twice or not call.named.keys() <= set(names):
                raise InvalidPolicyError(
                    f"{call.name} takes {', '.join(names)}, each once; see {text[:200]!r}"
                )
            if not (given or call.named) or (names[0] not in given and names[0] not in call.named):
                raise InvalidPolicyError(f"{call.name} needs {names[0]}; see {text[:200]!r}")
            rules += make(**given, **call.named)._rules
        return cls(tuple(dict.fromkeys(rules)))


def last(n: int, *, attributes: Mapping[str, object] | None = None) -> Keep:
    """Keep the ``n`` newest; with ``attributes``, of those whose attributes contain these items.

    ``attributes`` maps names to None, a bool, int, float or str.

    Raises InvalidPolicyError.
    """
    _check_count("last", "n", n)
    if attributes is None:
        return Keep((_Last(n, ""),))
    if not isinstance(attributes, Mapping) or not attributes:
        raise InvalidPolicyError("last: attributes must be a mapping with at least one item")
    for name, value in attributes.items():
        if not isinstance(name, str):
            raise InvalidPolicyError(f"last: attributes has a name that is a {type(name).__name__}")
        if not _is_unicode(name) or (isinstance(value, str) and not _is_unicode(value)):
            raise InvalidPolicyError(f"last: attributes has text that is no Unicode at {name[:80]!r}")
        if type(value) not in _SCALARS or (isinstance(value, (int, float)) and not abs(value) < 2**64):
            raise InvalidPolicyError(
                f"last: attributes[{name[:80]!r}] must be None, a bool, a number of at most 64 bits or a str, "
                f"not a {type(value).__name__}{' beyond that' if type(value) in _SCALARS else ''}"
            )
    return Keep((_Last(n, json.dumps(dict(attributes), sort_keys=True)),))


def best(metric: str, n: int = 1, mode: Literal["min", "max"] = "min") -> Keep:
    """Keep the ``n`` with the smallest (``mode="max"``: largest) number in ``metadata[metric]``.

    One without that number, or with NaN there, is never among the best; of
    equals the newer wins.

    Raises InvalidPolicyError.
    """
    if not isinstance(metric, str) or not metric or not _is_unicode(metric):
        raise InvalidPolicyError(f"best: metric must be the name of a metadata value, not {metric!r:.80}")
    _check_count("best", "n", n)
    if not isinstance(mode, str) or mode not in ("min", "max"):
        raise InvalidPolicyError(f"best: mode must be 'min' or 'max', not {mode!r:.80}")
    return Keep((_Best(str.__str__(metric), n, str.__str__(mode)),))


def every(n: int) -> Keep:
    """Keep those whose number in their epoch (``Checkpoint.seq``, from 0) is a multiple of ``n``.

    What was deleted before makes no difference. Raises InvalidPolicyError.
    """
    _check_count("every", "n", n)
    return Keep((_Every(n),))


def max_age(age: float | str) -> Keep:
    """Keep those younger than ``age``: seconds, or text such as ``"7 d"``, ``"12 h"``, ``"30 min"``, ``"45 s"``.

    Ages are by the storage's own clock: from the time that it gives an object
    to the time it tells now, or, where it tells none, to that of the
    collection's newest object. No clock of a writer counts.

    Raises InvalidPolicyError.
    """
    seconds: object = parse_duration(age) if isinstance(age, str) else age
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= _MAX_AGE_S:
        raise InvalidPolicyError(
            f"max_age: the age must be seconds above 0, at most {_MAX_AGE_S:g}, or text such as '7 d', '12 h', "
            f"'30 min', '45 s'; not {age!r:.80}"
        )
    return Keep((_MaxAge(float(seconds)),))


def _number(value: object) -> int | float | None:
    """Return a value by which checkpoints can be ranked, or None: a bool is none, nor is NaN."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        return None
    return value


def _contains(found: Mapping[str, object], wanted: Mapping[str, object]) -> bool:
    return all(
        name in found
        and isinstance(found[name], bool) == isinstance(value, bool)
        and bool(found[name] == value)
        for name, value in wanted.items()
    )


def _is_unicode(text: str) -> bool:
    """Tell whether metadata can hold the text: halves of surrogate pairs it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _check_count(rule: str, name: str, n: object) -> None:
    if type(n) is not int or not 0 < n <= _MAX_COUNT:
        raise InvalidPolicyError(f"{rule}: {name} must be an int of at least 1, not {n!r:.80}")


_MAKERS: dict[str, tuple[Callable[..., Keep], tuple[str, ...]]] = {
    "last": (last, ("n", "attributes")),
    "best": (best, ("metric", "n", "mode")),
    "every": (every, ("n",)),
    "max_age": (max_age, ("age",)),
}
