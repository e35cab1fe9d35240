"""What a save records of its pickles is what they import: no more and no less."""

from __future__ import annotations

import copyreg
import pickle
import pickletools
import random
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import pytest
from streams import load

from ckptstore.config import Limits
from ckptstore.errors import UntrustedPickleError
from ckptstore.serializers import Registry, dump, names_to_trust
from ckptstore.serializers._opcodes import imported_names


class Named:
    """Comes back by a name alone."""

    def __reduce__(self) -> str:
        return "NAMED"


NAMED = Named()


class Nested:
    class Deeper:
        pass


class Method:
    def run(self) -> None:
        pass


class Extended:
    pass


def recorded(value: Any) -> list[str]:
    (field,) = dump({"field": value}, limits=Limits(), registry=Registry())
    return field.globals


def run_by_pickle(stream: bytes) -> set[str]:
    """Return what pickle itself looks up."""
    seen: set[str] = set()

    class Watched(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            seen.add(f"{module}.{name}")
            return super().find_class(module, name)

    import io

    Watched(io.BytesIO(stream)).load()
    return seen


VALUES: dict[str, Any] = {
    "by a name": deque([NAMED]),
    "nested": Nested.Deeper(),
    "Ellipsis": deque([..., NotImplemented, type(None)]),
    "methods": deque([Method().run, "x".upper, dict.fromkeys]),
    "functions": deque([print, np.add, np.float32, recorded]),
    "numpy": [np.random.default_rng(1), random.Random(2)],
    "many": [deque([OrderedDict(a=Nested.Deeper()), Nested.Deeper()])] * 3,
    "shared names": deque(["Named", "collections", "os", OrderedDict(), "deque", Nested()]),
    "long texts": deque(["x" * 70_000, "é" * 300, Nested()]),
    "many frames": deque([bytes(70_000), Nested(), [str(i) for i in range(30_000)], Method()]),
}


@pytest.mark.parametrize("what", VALUES)
def test_the_names_are_those_that_pickle_looks_up(what: str) -> None:
    stream = pickle.dumps(VALUES[what], 5)
    assert {f"{module}.{name}" for module, name in imported_names(stream)} == run_by_pickle(stream)


def test_the_names_of_torch_are_those_that_pickle_looks_up() -> None:
    torch = pytest.importorskip("torch")
    stream = pickle.dumps(
        [torch.float32, torch.nn.LSTM(2, 2), torch.contiguous_format, torch.eye(2).to_sparse()], 5
    )
    assert {f"{module}.{name}" for module, name in imported_names(stream)} == run_by_pickle(stream)


@pytest.mark.parametrize("protocol", range(6))
def test_the_names_of_older_protocols_are_found_too(protocol: int) -> None:
    value = [Nested(), OrderedDict(a=print), {"x": 1.5, "y": b"b", "z": 2**70}]
    stream = pickle.dumps(value, protocol)
    found = {qualname for _, qualname in imported_names(stream)}
    assert {"Nested", "OrderedDict", "print"} <= found
    assert len(found) == sum(op.name in ("GLOBAL", "STACK_GLOBAL") for op, _, _ in pickletools.genops(stream))


def test_a_save_records_what_comes_back_by_a_name() -> None:
    assert recorded(deque([NAMED])) == ["collections.deque", f"{__name__}.NAMED"]
    assert recorded(deque([...])) == ["builtins.Ellipsis", "collections.deque"]
    assert names_to_trust(recorded(deque([NAMED, ...]))) == (f"{__name__}.NAMED",)


def test_an_extension_code_is_recorded_and_refused() -> None:
    copyreg.add_extension(__name__, "Extended", 0x7EAD)
    try:
        assert recorded(Extended()) == ["copyreg.extension 32429"]
        with pytest.raises(UntrustedPickleError, match=r"copyreg\.extension 32429"):
            load(pickle.dumps(Extended(), 5))
    finally:
        copyreg.remove_extension(__name__, "Extended", 0x7EAD)


def test_a_name_at_the_end_of_a_long_stream_is_found() -> None:
    stream = pickle.dumps([[str(i), i] for i in range(100_000)] + [Nested()], 5)
    assert imported_names(stream) == [(__name__, "Nested")]
