from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from trip import dumped, loaded, planned, trip, trip_one

from ckptstore.errors import CheckpointStoreError, ConfigError, UnserializableError
from ckptstore.serializers import Registry


class Guarded:
    """Cannot be pickled."""

    def __init__(self, data: Any) -> None:
        self.data = data
        self.lock = threading.Lock()


class Holder:
    def __init__(self, **attributes: Any) -> None:
        vars(self).update(attributes)


@pytest.fixture
def registry() -> Registry:
    registry = Registry()
    registry.register(Guarded, "tests.Guarded", dump=lambda obj: obj.data, restore=Guarded)
    return registry


def test_a_registered_type_is_plain_data(registry: Registry) -> None:
    value = Guarded({"w": np.arange(3)})
    field = dumped({"v": value}, registry=registry)["v"]
    assert field.kind == "tree"
    assert [leaf.path for leaf in field.leaves] == ["['w']"]
    assert trip_one(value, registry=registry).data["w"].tolist() == [0, 1, 2]


def test_a_registered_object_keeps_its_identity_also_inside_pickles(registry: Registry) -> None:
    inner = Guarded([1])
    values = {"a": Holder(g=inner), "b": [inner, inner], "c": inner.data}
    back = trip(values, registry=registry)
    assert back["a"].g is back["b"][0] is back["b"][1]
    assert back["a"].g.data is back["c"]


def test_registered_objects_nest(registry: Registry) -> None:
    assert trip_one(Guarded(Guarded((1, Guarded(None)))), registry=registry).data.data[1].data is None


def test_a_name_that_nobody_registered_is_named(registry: Registry) -> None:
    fields = dumped({"v": [Guarded(1)]}, registry=registry)
    plan = planned(fields, ["v"])
    with pytest.raises(CheckpointStoreError, match=r"field 'v'.*'tests.Guarded'.*register"):
        plan.build(loaded(fields, plan))


@pytest.mark.parametrize("through", ["itself", "list", "pickle"])
def test_a_cycle_through_a_registered_object_is_refused(registry: Registry, through: str) -> None:
    value = Guarded(None)
    value.data = {"itself": value, "list": [{"k": value}], "pickle": Holder(v=value)}[through]
    with pytest.raises(UnserializableError, match=r"leads back") as caught:
        dumped({"v": {"x": value}}, registry=registry)
    assert caught.value.path == "v['x']"


def test_errors_of_registered_functions_are_wrapped(registry: Registry) -> None:
    def fail(_: Any) -> Any:
        raise KeyError("inside")

    bad = Registry()
    bad.register(Guarded, "tests.Guarded", dump=fail, restore=fail)
    with pytest.raises(UnserializableError, match=r"v\[0\] is a .*Guarded.*KeyError") as caught:
        dumped({"v": [Guarded(1)]}, registry=bad)
    assert isinstance(caught.value.__cause__, KeyError)
    fields = dumped({"v": [Guarded(1)]}, registry=registry)
    plan = planned(fields, ["v"], registry=bad)
    with pytest.raises(CheckpointStoreError, match=r"field 'v'.*KeyError"):
        plan.build(loaded(fields, plan))


def test_subclasses_are_not_meant(registry: Registry) -> None:
    class Special(Guarded):
        pass

    with pytest.raises(UnserializableError):
        dumped({"v": Special(1)}, registry=registry)


@pytest.mark.parametrize(
    ("cls", "name"),
    [(dict, "d"), (int, "i"), (Guarded, "other"), (Holder, "tests.Guarded"), (Holder, ""), (3, "x")],
)
def test_registrations_that_clash_are_refused(registry: Registry, cls: Any, name: str) -> None:
    with pytest.raises(ConfigError):
        registry.register(cls, name, dump=lambda obj: 1, restore=lambda state: state)
