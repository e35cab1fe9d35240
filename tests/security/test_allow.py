"""Classes that the program allows: exactly these, through their own code."""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from round_trip import trip
from streams import args, data, load, name, stream

from ckptstore.errors import CheckpointStoreError, ConfigError, StoreClosedError, UntrustedPickleError
from ckptstore.serializers import Allowlist
from ckptstore.serializers._allowlist import names_to_trust


@dataclass
class Point:
    x: int
    y: Any = None


@dataclass
class Slotted:
    __slots__ = ("x", "y")
    x: int
    y: int


class Colour(enum.Enum):
    RED = 1


class Flags(enum.IntFlag):
    A = 1
    B = 2


class Pair(NamedTuple):
    a: int
    b: Any


class Bag(list[Any]):
    pass


class Queue:
    """Takes items one by one."""

    def __init__(self) -> None:
        self.items: list[Any] = []

    def append(self, item: Any) -> None:
        self.items.append(item)

    def __reduce__(self) -> Any:
        return Queue, (), None, iter(self.items)


class Table(OrderedDict[Any, Any]):
    pass


class WithState:
    def __init__(self, x: int) -> None:
        self.x = x

    def __getstate__(self) -> Any:
        return ("state", self.x)

    def __setstate__(self, given: Any) -> None:
        self.x = given[1] + 1


class ByName:
    def __new__(cls, *, x: int) -> ByName:
        made = super().__new__(cls)
        made.x = x  # type: ignore[attr-defined]
        return made

    def __getnewargs_ex__(self) -> Any:
        return (), {"x": self.x}  # type: ignore[attr-defined]


class Explosive:
    def __setstate__(self, given: Any) -> None:
        raise RuntimeError("not today")

    def __getstate__(self) -> Any:
        return 1


class Outer:
    class Inner:
        pass


class Child(Point):
    pass


def allowing(*classes: type[Any]) -> Allowlist:
    made = Allowlist()
    for cls in classes:
        made.allow(cls)
    return made


VALUES: dict[str, Any] = {
    "dataclass": Point(1, [2]),
    "dataclass with slots": Slotted(1, 2),
    "enum": [Colour.RED],
    "flags": deque([Flags.A | Flags.B]),
    "named tuple": Pair(1, {2: 3}),
    "list of its own": Bag([1, 2]),
    "dict of its own": Table(a=1),
    "class itself": [Point],
}


@pytest.mark.parametrize("what", VALUES)
def test_an_allowed_class_comes_back(what: str) -> None:
    allowed = allowing(Point, Slotted, Colour, Flags, Pair, Bag, Table)
    back = trip(VALUES[what], allowed=allowed)
    assert type(back) is type(VALUES[what])
    assert back == VALUES[what]
    with pytest.raises(UntrustedPickleError, match=__name__):
        trip(VALUES[what])


def test_an_object_is_restored_by_its_own_code() -> None:
    assert trip(WithState(1), allowed=allowing(WithState)).x == 2
    assert trip(ByName(x=3), allowed=allowing(ByName)).x == 3
    queue = Queue()
    queue.items = [1, [2]]
    assert trip(queue, allowed=allowing(Queue)).items == [1, [2]]
    assert type(trip(Outer.Inner(), allowed=allowing(Outer.Inner))) is Outer.Inner


def test_an_error_in_its_code_names_field_and_class() -> None:
    with pytest.raises(
        CheckpointStoreError, match=r"field 'field': .*Explosive failed with RuntimeError: not today"
    ):
        trip(Explosive(), allowed=allowing(Explosive))


class Refusing:
    def __setstate__(self, given: Any) -> None:
        raise StoreClosedError("its own store is closed")

    def __getstate__(self) -> Any:
        return 1


def test_an_error_of_ours_in_its_code_stays_what_it_is() -> None:
    with pytest.raises(StoreClosedError, match="its own store"):
        trip(Refusing(), allowed=allowing(Refusing))


def test_only_exactly_the_class_is_allowed() -> None:
    with pytest.raises(UntrustedPickleError, match=r"test_allow\.Child"):
        trip(Child(1), allowed=allowing(Point))
    with pytest.raises(UntrustedPickleError, match=r"test_allow\.Point"):
        trip(Point(1), allowed=allowing(Child))
    with pytest.raises(UntrustedPickleError, match=r"test_allow\.Outer"):
        trip(Outer(), allowed=allowing(Outer.Inner))


def test_lists_of_different_stores_are_their_own() -> None:
    first, second = allowing(Point), Allowlist()
    assert first.knows(__name__, "Point")
    assert not second.knows(__name__, "Point")


def test_an_allowed_class_is_a_default_but_not_a_way_to_others() -> None:
    allowed = allowing(Point)
    made = load(
        stream(name("collections", "defaultdict"), name(__name__, "Point"), b"\x85R"), allowed=allowed
    )
    assert made.default_factory is Point
    for tail in (data({"__init__": 1}) + b"b", b"NNs", b"Na"):
        with pytest.raises(UntrustedPickleError, match="a change of"):
            load(stream(name(__name__, "Point"), tail), allowed=allowed)
    with pytest.raises(UntrustedPickleError, match="a call of a Point"):
        load(stream(name(__name__, "Point"), data((1,)), b"R", args(), b"R"), allowed=allowed)


def test_what_is_on_the_list_already_is_left_as_it_is() -> None:
    allowed = allowing(OrderedDict)
    with pytest.raises(UntrustedPickleError, match="with arguments"):
        load(stream(name("collections", "OrderedDict"), data(([(1, 2)],)) + b"R"), allowed=allowed)


def local_class() -> type[Any]:
    class Local:
        pass

    return Local


class Impostor:
    pass


Impostor.__qualname__ = "Point"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (Point(1), "takes a class, not Point"),
        ("os.system", "takes a class, not str"),
        (print, "takes a class, not builtin_function_or_method"),
        (None, "takes a class, not NoneType"),
        (local_class(), "made inside a function"),
        (type, "makes more than objects"),
        (enum.EnumMeta, "makes more than objects"),
        (memoryview, "makes more than objects"),
        (Impostor, "another class than the one"),
    ],
    ids=str,
)
def test_what_is_no_class_of_the_users_cannot_be_allowed(given: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        allowing(given)


def test_the_names_that_need_trust_are_told_from_those_recorded() -> None:
    assert names_to_trust(["collections.deque", "x.Y", "os.system", "x.Y"]) == ("os.system", "x.Y")
    assert names_to_trust(["builtins.getattr", "zoneinfo.ZoneInfo"]) == ()
    assert names_to_trust(["builtins.getattr", "x.Y"]) == ("builtins.getattr", "x.Y")
