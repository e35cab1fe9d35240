"""A policy as text: calls with literal arguments joined by ``|``, read without evaluating anything.

    policy = call { "|" call }
    call   = name "(" [ argument { "," argument } ] ")"
    argument = [ name "=" ] ( number [ unit ] | word | string | object )

A string is in double quotes as in JSON, or in single quotes without escapes; an
object is JSON; a word is a name that may hold ``. / -`` after its first letter.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from ckptstore.errors import InvalidPolicyError

__all__ = ["WORD", "Call", "Seconds", "duration_text", "parse_duration", "read_calls"]

_MAX_CHARS = 4096
_UNITS_S = {"s": 1, "min": 60, "h": 3600, "d": 86_400}

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_NAME = re.compile(r"[a-z_]+")
_NUMBER = re.compile(r"(-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)(?:\s*([A-Za-z]+))?")
_QUOTED = re.compile(r"'([^'\\]*)'")
_SPACE = re.compile(r"\s*")
_KEYWORD = re.compile(r"([a-z_]+)\s*=")


class Seconds(float):
    """A number that had a unit of time."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the text; a number with a unit has become Seconds."""

    name: str
    positional: tuple[Any, ...]
    named: dict[str, Any]


def read_calls(text: str) -> list[Call]:
    """Return the calls of a policy's text. Raises InvalidPolicyError that names the place."""
    return _Reader(text).policy()


def parse_duration(text: str) -> Seconds | None:
    """Return the seconds that ``7 d``, ``12 h``, ``30 min`` or ``45 s`` are, or None if it is nothing of the kind."""
    match = _NUMBER.fullmatch(text.strip())
    return None if match is None else _duration(*match.groups())


def duration_text(seconds: float) -> str:
    """Return a text that ``parse_duration`` reads, in the largest unit that goes without a fraction."""
    if seconds != int(seconds):
        return f"{seconds!r} s"
    unit = next(unit for unit in ("d", "h", "min", "s") if not int(seconds) % _UNITS_S[unit])
    return f"{int(seconds) // _UNITS_S[unit]} {unit}"


def _duration(number: str, unit: str | None) -> Seconds | None:
    return Seconds(float(number) * _UNITS_S[unit]) if unit in _UNITS_S else None


class _Reader:
    def __init__(self, text: str) -> None:
        if len(text) > _MAX_CHARS:
            raise InvalidPolicyError(f"a retention policy of {len(text)} characters; at most {_MAX_CHARS}")
        self._text = text
        self._at = 0

    def policy(self) -> list[Call]:
        calls = [self._call()]
        while self._took("|"):
            calls.append(self._call())
        if self._at < len(self._text):
            self._fail("'|' or the end")
        return calls

    def _call(self) -> Call:
        name = self._match(_NAME)
        if name is None or not self._took("("):
            self._fail("a rule such as last(3)")
        positional: list[Any] = []
        named: dict[str, Any] = {}
        if not self._took(")"):
            while True:
                key = self._match(_KEYWORD)
                if key is None and named:
                    self._fail("an argument with its name")
                if key is None:
                    positional.append(self._value())
                elif key.group(1) in named:
                    self._fail(f"no second {key.group(1)}")
                else:
                    named[key.group(1)] = self._value()
                if self._took(")"):
                    break
                if not self._took(","):
                    self._fail("',' or ')'")
        return Call(name.group(), tuple(positional), named)

    def _value(self) -> Any:
        self._skip()
        start = self._text[self._at : self._at + 1]
        if start in ('"', "{"):
            return self._json()
        if (match := self._match(_NUMBER)) is not None:
            return self._number(*match.groups())
        if (match := self._match(WORD)) is not None:
            return match.group()
        if (match := self._match(_QUOTED)) is not None:
            return match.group(1)
        return self._fail("a number, a word, a string or an object")

    def _json(self) -> Any:
        try:
            value, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
        except (ValueError, RecursionError):
            self._fail("a string or an object as in JSON")
        return value

    def _number(self, number: str, unit: str | None) -> Any:
        if unit is None:
            return int(number) if number.lstrip("-").isdecimal() else float(number)
        duration = _duration(number, unit)
        if duration is None:
            self._fail(f"a number with one of the units {', '.join(_UNITS_S)} before this place")
        return duration

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self._skip()
        match = pattern.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
        return match

    def _took(self, token: str) -> bool:
        self._skip()
        taken = self._text.startswith(token, self._at)
        self._at += len(token) * taken
        if taken:
            self._skip()
        return taken

    def _skip(self) -> None:
        match = _SPACE.match(self._text, self._at)
        assert match is not None  # it may be empty
        self._at = match.end()

    def _fail(self, expected: str) -> NoReturn:
        raise InvalidPolicyError(
            f"cannot read the retention policy {self._text[:200]!r}: expected {expected} at character "
            f"{self._at + 1}; an example: last(3) | best(val_loss, 2) | max_age(7 d)"
        )
