from __future__ import annotations

import gc
import socket
import threading
from typing import Any

import pytest
from trip import dumped

from ckptstore.errors import UnserializableError


class Holder:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


class HidesItsLock:
    def __init__(self, **attributes: Any) -> None:
        self.lock = threading.Lock()
        vars(self).update(attributes)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "lock"}


class Slotted:
    __slots__ = ("lock",)


class Raises:
    def __reduce__(self) -> Any:
        raise ZeroDivisionError("reduce failed")


class Listlike(list[Any]):
    pass


def fails(values: dict[str, Any]) -> UnserializableError:
    """Return the error of a dump."""
    with pytest.raises(UnserializableError) as caught:
        dumped(values)
    return caught.value


def test_the_path_and_the_type_of_what_cannot_be_saved_are_named() -> None:
    error = fails({"fine": [1], "deep": {"x": [0, {"y": threading.Lock()}]}})
    assert (error.field, error.path, error.type_name) == ("deep", "deep['x'][1]['y']", "_thread.lock")
    assert str(error).startswith("field 'deep' cannot be saved: deep['x'][1]['y'] is a _thread.lock")
    assert "__getstate__" in str(error)
    assert isinstance(error.__cause__, TypeError)


def bad_values(tmp_path: Any) -> dict[str, Any]:
    """Return things that cannot be saved."""
    return {
        "lock": threading.Lock(),
        "generator": (x for x in ()),
        "module": gc,
        "thread": threading.Thread(),
        "lambda": lambda: 0,
        "memoryview": memoryview(b""),
        "frame": __import__("sys")._getframe(),
    }


@pytest.mark.parametrize("name", bad_values(None))
def test_what_cannot_be_saved_is_found_wherever_it_stands(name: str) -> None:
    bad = bad_values(None)[name]
    for value, path in [
        (bad, "v"),
        ([1, (2, bad)], "v[1][1]"),
        ({("k", 1): [bad]}, "v[<0>][0]"),
        ({3: {"a": bad}}, "v[3]['a']"),
        (Holder(a=1, b=[{"c": bad}]), "v.b[0]['c']"),
        ([Holder(h=Holder(deep=(1, bad)))], "v[0].h.deep[1]"),
        (Listlike([1, bad]), "v[1]"),
        (HidesItsLock(other={"x": bad}), "v.other['x']"),
    ]:
        error = fails({"v": value})
        assert error.path == path or (name == "thread" and error.path.startswith(path + "."))
        assert error.field == "v"


def test_a_slot_is_named_like_an_attribute() -> None:
    slotted = Slotted()
    slotted.lock = threading.Lock()
    assert fails({"v": [slotted]}).path == "v[0].lock"


def test_open_files_and_sockets_cannot_be_saved(tmp_path: Any) -> None:
    with open(tmp_path / "f", "w") as file, socket.socket() as sock:
        assert fails({"v": {"f": file}}).path == "v['f']"
        assert fails({"v": Holder(s=sock)}).path == "v.s"


def test_a_reduce_that_raises_is_named_with_its_exception() -> None:
    error = fails({"v": Holder(a=[Raises()])})
    assert error.path == "v.a[0]"
    assert "ZeroDivisionError: reduce failed" in str(error)
    assert isinstance(error.__cause__, ZeroDivisionError)


def test_local_classes_cannot_be_saved() -> None:
    class Local:
        pass

    error = fails({"v": [Local()]})
    assert error.path == "v[0]"
    assert "Local" in error.type_name


def test_a_chain_of_objects_too_deep_for_pickle_is_explained() -> None:
    chain = None
    for _ in range(20_000):
        chain = Holder(next=chain)
    error = fails({"chain": chain})
    assert "deeper than pickle" in str(error)
    assert error.path == "chain"
    while chain is not None:
        chain = chain.next


def test_a_very_deep_path_is_shortened() -> None:
    deep: Any = threading.Lock()
    for _ in range(5000):
        deep = [deep]
    error = fails({"v": deep})
    assert len(error.path) < 200
    assert "more)" in error.path


def test_the_search_for_the_culprit_is_bounded() -> None:
    wide = Holder(items=[Holder(x=i) for i in range(5000)], lock=threading.Lock())
    assert fails({"v": wide}).path.startswith("v")


def test_keyboard_interrupts_are_not_swallowed() -> None:
    class Interrupts:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dumped({"v": Interrupts()})
