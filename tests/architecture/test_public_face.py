"""What a user sees: exactly the public names, twins that agree, and an import that costs nothing."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import pytest

import ckptstore
from ckptstore import (
    AsyncCapturedSave,
    AsyncCheckpointHandle,
    AsyncCheckpointStore,
    AsyncPendingSave,
    AsyncSavedPart,
    CapturedSave,
    CheckpointHandle,
    CheckpointStore,
    PendingSave,
    SavedPart,
    errors,
)


def test_all_is_what_is_visible() -> None:
    for name in ckptstore.__all__:
        assert getattr(ckptstore, name) is not None
    visible = {name for name in dir(ckptstore) if not name.startswith("_")}
    # Modules that were imported become attributes of the package, as everywhere in Python.
    modules = {name for name in visible if inspect.ismodule(getattr(ckptstore, name)) and name != "errors"}
    typing_only = {"annotations", "import_module", "TYPE_CHECKING", "METAFLOW_PACKAGE_POLICY"}
    assert visible - modules - typing_only == set(ckptstore.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        ckptstore.nothing_of_that_name  # noqa: B018


def test_every_error_is_public_and_of_our_tree() -> None:
    classes = {
        name: value
        for name, value in vars(errors).items()
        if inspect.isclass(value) and name != "annotations"
    }
    assert set(errors.__all__) == set(classes)
    for value in classes.values():
        assert issubclass(value, errors.CheckpointStoreError)
        assert value.__name__ in (errors.__doc__ or "")


def public(cls: type) -> dict[str, object]:
    """What a class offers, also by the class it stands on; ``object`` has no public names."""
    offered = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    return {name: value for name, value in offered.items() if not name.startswith("_")}


def test_async_and_sync_twins_have_the_same_methods_and_signatures() -> None:
    asynchronous, blocking = public(AsyncCheckpointStore), public(CheckpointStore)
    asynchronous["close"] = asynchronous.pop("aclose")
    assert set(asynchronous) == set(blocking)
    for name, value in asynchronous.items():
        twin = blocking[name]
        if isinstance(value, property):
            assert isinstance(twin, property)
            continue
        parameters = [
            inspect.signature(getattr(method, "__func__", method)).parameters for method in (value, twin)
        ]
        assert [
            (parameter.name, parameter.kind, parameter.default, parameter.annotation)
            for parameter in parameters[0].values()
        ] == [
            (parameter.name, parameter.kind, parameter.default, parameter.annotation)
            for parameter in parameters[1].values()
        ], name


def test_pending_twins_offer_the_same() -> None:
    wanted = {"captured", "committed", "progress", "skipped", "done", "cancel", "add_done_callback"}
    assert wanted <= set(public(AsyncPendingSave))
    assert wanted - {"captured", "committed"} <= set(public(PendingSave))


def test_captured_twins_offer_the_same() -> None:
    assert set(public(AsyncCapturedSave)) == set(public(CapturedSave)) == {"raw_bytes", "save", "discard"}


@pytest.mark.parametrize(
    "twins", [(AsyncCheckpointHandle, CheckpointHandle), (AsyncSavedPart, SavedPart)], ids=["handle", "part"]
)
def test_twins_that_read_offer_the_same(twins: tuple[type, type]) -> None:
    asynchronous, blocking = map(public, twins)
    assert set(asynchronous) == set(blocking)
    for name, value in asynchronous.items():
        twin = blocking[name]
        assert isinstance(value, property) == isinstance(twin, property)
        if inspect.isfunction(value) and inspect.isfunction(twin):
            assert inspect.signature(value).parameters == inspect.signature(twin).parameters
    special = {"__getitem__", "__iter__", "__len__", "__repr__"}
    for cls in twins:
        assert special <= set(vars(cls))


def test_every_public_name_has_a_docstring() -> None:
    for name in ckptstore.__all__:
        value = getattr(ckptstore, name)
        assert inspect.getdoc(value), name
        if inspect.isclass(value) and not issubclass(value, Exception):
            for member, method in public(value).items():
                if inspect.isfunction(method) or isinstance(method, property):
                    assert inspect.getdoc(method), f"{name}.{member}"


IMPORT = """
import sys, json, time
before = set(sys.modules)
start = time.perf_counter()
import ckptstore
seconds = time.perf_counter() - start
print(json.dumps([sorted(set(sys.modules) - before), seconds]))
"""


def imported() -> tuple[list[str], float]:
    done = subprocess.run(
        [sys.executable, "-I", "-c", IMPORT], check=True, capture_output=True, text=True, timeout=60
    )
    names, seconds = json.loads(done.stdout)
    return names, seconds


def test_import_brings_no_third_party_module() -> None:
    names, _ = imported()
    tops = {name.partition(".")[0] for name in names}
    allowed = set(sys.stdlib_module_names) | {"ckptstore"}
    assert tops <= allowed, tops - allowed
    assert [name for name in names if name.startswith("ckptstore")] == ["ckptstore"]


def test_import_takes_less_than_50_ms() -> None:
    # The best of five: a busy machine slows a run down, nothing speeds one up.
    assert min(imported()[1] for _ in range(5)) < 0.05
