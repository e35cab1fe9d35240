"""Rules for classes of the standard library that hold data and nothing else."""

from __future__ import annotations

import argparse
import array
import datetime
import decimal
import fractions
import pathlib
import random
import re
import types
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque
from functools import partial
from typing import Any

from ckptstore.serializers._rules import Maker, Pending, Rule, UnfitError, fits, set_attributes

__all__ = ["NAMES"]

_MAX_DIGITS = 100_000
_MAX_BITS = 400_000
_INTS = (int, bool)
_ZONE_KEY = re.compile(r"[A-Za-z0-9_+-]{1,64}(?:/[A-Za-z0-9_+-]{1,64}){0,3}")


def _value(value: Any) -> Maker:
    return lambda module, name: Rule(f"{module}.{name}", value=value)


def _odict(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        fits(not args, "an OrderedDict with arguments")
        return OrderedDict()

    return Rule(
        f"{module}.{name}",
        value=OrderedDict,
        call=make,
        build=partial(set_attributes, hidden=partial(hasattr, OrderedDict)),
        put=OrderedDict.__setitem__,
        kind=OrderedDict,
        cost=600,
    )


def _defaultdict(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        # It is called for every key that is missing, so it has to be one whose calls are harmless.
        fits(len(args) <= 1, "a defaultdict with items")
        factory = args[0] if args else None
        if factory is None:
            return defaultdict()
        harmless = type(factory) is Rule and (factory.users or factory.name in _FACTORIES)
        fits(harmless, "a defaultdict whose default is made by something else than a plain class")
        return defaultdict(factory.plain())

    return Rule(
        f"{module}.{name}",
        value=defaultdict,
        call=make,
        put=defaultdict.__setitem__,
        kind=defaultdict,
        raw=True,
    )


_FACTORIES = frozenset(
    {f"builtins.{name}" for name in ("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset")}
    | {f"builtins.{name}" for name in ("int", "list", "object", "set", "str", "tuple")}
    | {f"collections.{name}" for name in ("Counter", "OrderedDict", "defaultdict", "deque")}
    | {"torch.amp.grad_scaler._refresh_per_optimizer_state"}
)


def _deque(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        fits(not args or (len(args) <= 2 and type(args[0]) is tuple and not args[0]), "a deque with items")
        maxlen = args[1] if len(args) == 2 else None
        fits(
            maxlen is None or (type(maxlen) is int and 0 <= maxlen < 2**62),
            "a deque of a length that is none",
        )
        return deque(maxlen=maxlen)

    return Rule(f"{module}.{name}", value=deque, call=make, extend=deque.extend, kind=deque, cost=900)


def _counter(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        fits(len(args) == 1 and type(args[0]) is dict, "a Counter of something else than a dict")
        made: Counter[Any] = Counter()
        dict.update(made, args[0])
        return made

    build = partial(set_attributes, hidden=partial(hasattr, Counter))
    return Rule(f"{module}.{name}", value=Counter, call=make, build=build, kind=Counter)


def _called(cls: Any, *shapes: tuple[Any, ...], cost: int = 120) -> Maker:
    """Rule of a class whose arguments are of exact types, one of ``shapes``."""

    def make(*args: Any) -> Any:
        for shape in shapes:
            if len(args) == len(shape) and all(
                type(arg) in kinds for arg, kinds in zip(args, shape, strict=True)
            ):
                return cls(*args)
        raise UnfitError(f"a {cls.__name__} of other arguments")

    return lambda module, name: Rule(f"{module}.{name}", value=cls, call=make, cost=cost)


def _letters(args: Any) -> int:
    return sum(len(arg) for arg in args if type(arg) is str)


def _decimal(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        fits(len(args) == 1 and type(args[0]) is str and len(args[0]) <= _MAX_DIGITS, "a Decimal of no text")
        return decimal.Decimal(args[0])

    return Rule(f"{module}.{name}", value=decimal.Decimal, call=make, work=lambda args: _letters(args) >> 1)


def _fraction(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        if len(args) == 1 and type(args[0]) is str:  # Python 3.10
            fits(re.fullmatch(r"-?\d{1,4000}(?:/\d{1,4000})?", args[0], re.ASCII) is not None, "no Fraction")
            return fractions.Fraction(args[0])
        fits(len(args) == 2 and all(type(arg) is int for arg in args), "a Fraction of other arguments")
        fits(all(arg.bit_length() <= _MAX_BITS for arg in args), "a Fraction of too large numbers")
        return fractions.Fraction(*args)

    def work(args: Any) -> int:
        # It looks for the common divisor.
        bits = sum(min(arg.bit_length(), _MAX_BITS) for arg in args if type(arg) is int)
        return (bits * bits >> 14) + (_letters(args) ** 2 >> 10)

    return Rule(f"{module}.{name}", value=fractions.Fraction, call=make, work=work)


def _uuid(module: str, name: str) -> Rule:
    def finish(state: Any) -> Any:
        fits(type(state) is dict and set(state) - {"is_safe"} == {"int"}, "no UUID")
        fits(type(state["int"]) is int, "no UUID")
        return uuid.UUID(int=state["int"], is_safe=uuid.SafeUUID(state.get("is_safe")))

    def new() -> Any:
        return Pending(f"{module}.{name}", finish)

    return Rule(f"{module}.{name}", value=uuid.UUID, new=new)


def _path(module: str, name: str) -> Rule:
    cls = getattr(pathlib, name)

    def make(*args: Any) -> Any:
        fits(all(type(arg) is str for arg in args), "a path of other arguments")
        return cls(*args)

    return Rule(f"{module}.{name}", value=cls, call=make, cost=600, work=lambda args: 3 * _letters(args))


def _random(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        fits(not args, "a Random with arguments")
        return random.Random(0)

    def build(obj: Any, state: Any) -> None:
        fits(type(state) is tuple and len(state) == 3 and state[0] == 3, "no state of a Random")
        fits(type(state[1]) is tuple and len(state[1]) == 625, "no state of a Random")
        fits(all(type(word) is int and 0 <= word < 2**32 for word in state[1]), "no state of a Random")
        fits(state[1][624] <= 624 and type(state[2]) in (float, type(None)), "no state of a Random")
        obj.setstate(state)

    return Rule(
        f"{module}.{name}",
        value=random.Random,
        call=make,
        build=build,
        kind=random.Random,
        cost=3000,
        work=lambda given: 5000,
    )


def _namespace(cls: Any) -> Maker:
    def make(*args: Any) -> Any:
        fits(not args, "a namespace with arguments")
        return cls()

    def rule(module: str, name: str) -> Rule:
        return Rule(f"{module}.{name}", value=cls, call=make, new=make, build=set_attributes, kind=cls)

    return rule


def _slice(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        # Slices of slices would nest without limit, and taking them apart recurses.
        plain = all(arg is None or type(arg) in (int, bool, float, str) for arg in args)
        fits(len(args) == 3 and plain, "a slice of other arguments")
        return slice(*args)

    return Rule(f"{module}.{name}", value=slice, call=make)


def _type(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        fits(len(args) == 1 and any(args[0] is one for one in _SINGLETONS), "the type of an object")
        return type(args[0])

    return Rule(f"{module}.{name}", call=make)


def _object(module: str, name: str) -> Rule:
    return Rule(f"{module}.{name}", value=object, new=object, cost=64)


def _array(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        fits(
            len(args) == 4
            and args[0] is array.array
            and type(args[1]) is str
            and type(args[2]) is int
            and type(args[3]) is bytes
            and len(args[1]) == 1
            and args[1] in "bBhHiIlLqQfd",
            "an array of other arguments",
        )
        # It checks the rest, and makes an array of as many bytes.
        return array._array_reconstructor(*args)  # type: ignore[attr-defined]

    return Rule(f"{module}.{name}", call=make)


def _getattr(module: str, name: str) -> Rule:
    def make(*args: Any) -> Any:
        # How pickle writes a bound method. Only the way a zone is made is one.
        fits(len(args) == 2 and type(args[1]) is str, "builtins.getattr")
        if args[0] is zoneinfo.ZoneInfo and args[1] == "_unpickle":
            # One that shall not be the interpreter's own is read from its file each time.
            return Rule("zoneinfo.ZoneInfo._unpickle", call=_zone, work=lambda args: 5000)
        raise UnfitError(f"builtins.getattr of {args[1][:80]!r}, a method or an attribute")

    return Rule(f"{module}.{name}", call=make)


def _zone(*args: Any) -> Any:
    key_and_flag = len(args) == 2 and type(args[0]) is str and type(args[1]) in _INTS
    fits(key_and_flag and _ZONE_KEY.fullmatch(args[0]) is not None, "no zone")
    return zoneinfo.ZoneInfo(args[0]) if args[1] else zoneinfo.ZoneInfo.no_cache(args[0])


_SINGLETONS = (None, Ellipsis, NotImplemented)
_ZONES = (datetime.timezone, zoneinfo.ZoneInfo)
_STATE = (bytes,)
_BUILTIN_TYPES = (
    bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple,
)  # fmt: skip

NAMES: dict[tuple[str, str], Maker] = {
    **{("builtins", cls.__name__): _value(cls) for cls in _BUILTIN_TYPES},
    ("builtins", "Ellipsis"): _value(Ellipsis),
    ("builtins", "NotImplemented"): _value(NotImplemented),
    ("builtins", "complex"): _called(complex, ((float,), (float,))),
    ("builtins", "getattr"): _getattr,
    ("builtins", "object"): _object,
    ("builtins", "range"): _called(range, (_INTS, _INTS, _INTS)),
    ("builtins", "slice"): _slice,
    ("builtins", "type"): _type,
    ("argparse", "Namespace"): _namespace(argparse.Namespace),
    ("array", "array"): _value(array.array),
    ("array", "_array_reconstructor"): _array,
    ("collections", "Counter"): _counter,
    ("collections", "OrderedDict"): _odict,
    ("collections", "defaultdict"): _defaultdict,
    ("collections", "deque"): _deque,
    ("datetime", "date"): _called(datetime.date, (_STATE,)),
    ("datetime", "datetime"): _called(datetime.datetime, (_STATE,), (_STATE, _ZONES)),
    ("datetime", "time"): _called(datetime.time, (_STATE,), (_STATE, _ZONES)),
    ("datetime", "timedelta"): _called(datetime.timedelta, (_INTS, _INTS, _INTS)),
    ("datetime", "timezone"): _called(
        datetime.timezone, ((datetime.timedelta,),), ((datetime.timedelta,), (str,))
    ),
    ("decimal", "Decimal"): _decimal,
    ("fractions", "Fraction"): _fraction,
    # Where Python 3.13 has them.
    **{
        (module, name): _path
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath")
    },
    ("random", "Random"): _random,
    ("types", "SimpleNamespace"): _namespace(types.SimpleNamespace),
    ("uuid", "UUID"): _uuid,
    ("zoneinfo", "ZoneInfo"): _value(zoneinfo.ZoneInfo),
}
