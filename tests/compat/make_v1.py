"""Makes the frozen store of format 1: the values are seeded, ids and times are not.

    python tests/compat/make_v1.py tests/compat/data/v1

Format 1 is frozen with its data: run this again only into another folder. The
tests build what they expect with the same functions.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ckptstore import CheckpointStore, Registry, StoreConfig

Values = dict[str, Any]

PLAIN, ARRAYS, TENSORS, TRAIN = "plain", "Exp/run 1", "=+~ наука/🧪", "train"
METADATA = {"loss": 0.25, "note": "né\n", "nested": {"list": [1, None, True, b"\0\xff"], "big": 2**63}}
ATTRIBUTES = {"step": "start/1"}


def registry() -> Registry:
    """Fractions travel as data, under the name `ratio`."""
    result = Registry()
    result.register(
        Fraction, "ratio", dump=lambda f: [f.numerator, f.denominator], restore=lambda v: Fraction(*v)
    )
    return result


def noise(seed: np.random.RandomState, n: int) -> Any:
    """Numbers from -1 to 1 that are the same bits everywhere."""
    return (np.frombuffer(seed.bytes(8 * n), "<i8") >> 10) / 2.0**53


def plain() -> Values:
    """Every node of plain data; objects that two fields share; cycles."""
    shared = ["shared", {"by": "two fields"}]
    ring: list[Any] = ["ring"]
    ring.append({"ring": ring, "pair": (ring, 1)})
    closed: list[Any] = []
    pair = (closed, "closed")
    closed.append(pair)
    ordered = OrderedDict([("b", 1), ("a", shared)])
    ordered._metadata = OrderedDict([("", {"version": 1})])  # type: ignore[attr-defined]
    return {
        "nothing": None,
        "flags": [True, False],
        "floats": [0.1, -0.0, float("inf"), float("-inf"), float("nan"), 5e-324],
        "ints": [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, 2**64, -(2**63) - 1, 3**5000, -(3**5000)],
        "texts": ["", "é🧪", "x" * 256, "é" * 200, "y" * 257, "lone \ud800 and \udfff", "z\udc80" * 200],
        "bytes": [b"", b"\0" * 256, bytes(range(256)) * 2, bytearray(b"ab"), bytearray(b"c" * 5000)],
        "complex": [1j, complex(-0.0, float("nan"))],
        "tuples": ((), (1, (2,)), [], {}),
        "sets": [set(), {1, "a", b"b", (1, 2)}, frozenset(), frozenset({frozenset({None}), 2.5})],
        "dict": {None: 1, 2: "int", 2.5: "float", (1, "t"): "tuple", b"k": {}, "z": shared, 2**70: 0},
        "ordered": ordered,
        "shared": shared,
        "ring": ring,
        "closed": pair,
        "again": [shared, ring, ordered],
        "ratio": [Fraction(1, 3), Fraction(2**80, 7)],
        "a name: with / = + é": 1,
        "many": [[i, {"i": i, "name": f"item {i}"}] for i in range(300)],
        "long": "".join(chr(0x20 + i * i % 400) for i in range(9000)),
    }


def arrays() -> Values:
    """Arrays of every sort: dtypes, orders, strides, shared memory."""
    seed = np.random.RandomState(1)
    base = np.arange(24, dtype="<i4").reshape(4, 6)
    frozen = np.arange(3, dtype="<i8")
    frozen.flags.writeable = False
    record = np.dtype([("id", ">u2"), ("pos", "<f4", (3,)), ("inner", [("name", "S3"), ("ok", "?")])])
    aligned = np.dtype({"names": ["a", "b"], "formats": ["i1", "<f8"]}, align=True)
    titled = np.dtype([(("the title", "x"), "<i2"), ("y", "<i2")])
    gaps = np.dtype({"names": ["late", "soon"], "formats": ["<i4", "u1"], "offsets": [8, 1], "itemsize": 16})
    numbers = np.array([0, 1, 2, 100], "<i8")
    tail = np.append(noise(seed, 1000).astype("<f4").view("u1"), np.arange(3, dtype="u1"))
    letters = [
        "?", "i1", "u1", "<i2", ">i2", "<u4", ">u4", "<i8", "<u8", "<f2", ">f2", "<f4", ">f8", "<c8", ">c16",
    ]  # fmt: skip
    return {
        "dtypes": {dtype: numbers.astype(dtype) for dtype in letters},
        "extremes": np.array([np.nan, np.inf, -0.0, 5e-324]),
        "times": [
            np.array(["1969-07-20", "NaT"], "<M8[ns]"),
            np.array([1, 2], ">m8[s]"),
            np.array([7], "<M8[25s]"),
        ],
        "texts": [np.array(["a", "é🧪", ""]), np.array(["be"], ">U3"), np.array([b"ab", b""]), np.zeros(2, "V5")],
        "records": [
            np.array([(1, (1, 2, 3), (b"abc", True)), (2, (4, 5, 6), (b"", False))], record),
            np.array([(1, 2.5)], aligned),
            np.array([(1, 2)], titled),
            np.array([(-1, 255)], gaps),
        ],
        "views": [base, base[:, ::2], base[::-1], base.T, base[1], base[2:, 1:3]],
        "more views": [base[3], base],
        "fortran": np.asfortranarray(base.astype("<f4")),
        "broadcast": np.broadcast_to(np.arange(3, dtype="<f8"), (4, 3)),
        "0-d": np.array(7.5),
        "empty": [np.empty((0, 3)), np.empty(0, "<U4"), np.empty((2, 0, 2), "?")],
        "readonly": frozen,
        "scalars": [
            np.float32(1.5), np.int64(-1), np.bool_(True), np.complex64(1j), np.str_("é"), np.bytes_(b"a\0b"),
            np.datetime64("2024-01-02", "D"), np.timedelta64(5, "ms"), np.array([(1, 2)], titled)[0],
        ],
        "dtype": [np.dtype("<f8"), record, np.dtype(("<i2", (2, 2)))],
        "noise f2": noise(seed, 6000).astype("<f2"),
        "noise f4": noise(seed, 3000).astype("<f4"),
        "noise f8": noise(seed, 1500),
        "stairs i2": (np.arange(4000) // 7).astype("<i2"),
        "steps i2": (np.arange(4000) * 257).astype("<i2"),
        "steps i4": np.arange(3001, dtype="<i4") * 3,
        "steps i8": np.arange(1500, dtype="<i8") * 1000003,
        "noise": np.frombuffer(seed.bytes(5000), "u1").copy(),
        "zeros": np.zeros(20000, "u1"),
        "tail": [tail[:4000].view("<f4"), tail],
        "small": [noise(seed, 50) for _ in range(6)],
    }  # fmt: skip


def tensors() -> Values:
    """Tensors of many dtypes; parameters, tied weights, views, bits."""
    import torch

    seed = np.random.RandomState(3)
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    weight = torch.nn.Parameter(torch.tensor(noise(seed, 1200).astype("<f4")).reshape(40, 30))
    small = torch.tensor([0.0, 1.0, -2.5, 448.0])
    complex_ = torch.tensor([1 + 2j, -3j])
    names = [
        "float64",
        "float16",
        "bfloat16",
        "float8_e4m3fn",
        "float8_e5m2",
        "uint8",
        "int8",
        "int16",
        "int32",
    ]
    return {
        "dtypes": {
            name: small.abs().to(getattr(torch, name)) for name in [*names, "int64", "bool", "complex64"]
        },
        "weight": weight,
        "tied": {"head": weight, "data": weight.data, "row": weight.detach()[3]},
        "frozen": torch.nn.Parameter(torch.ones(3), requires_grad=False),
        "wants grad": torch.ones(2, requires_grad=True),
        "views": [base, base.t(), base[:, 1], base[1:], base.unsqueeze(0), base.view(torch.int32)],
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "0-d": torch.tensor(3),
        "empty": torch.empty(0, 4),
        "meta": torch.empty(2, 3, device="meta"),
        "bits": [complex_, complex_.conj(), torch.view_as_real(complex_), complex_.conj().imag],
        "storages": [base.untyped_storage(), torch.ones(4, dtype=torch.int16).untyped_storage()],
        "words": [torch.float32, torch.device("cpu"), torch.device("cuda", 1), torch.Size([2, 3])],
        "noise bf16": torch.tensor(noise(seed, 6000)).to(torch.bfloat16),
    }


def objects() -> Values:
    """Objects that are pickled, with arrays inside that are not."""
    inside = np.arange(2000, dtype="<f4")
    first, second = SimpleNamespace(name="first"), SimpleNamespace(name="second")
    first.other, second.other = second, first
    return {
        "inside": inside,
        "object": SimpleNamespace(weights=inside, shared=[1, 2], text="é"),
        "couple": [first, second],
        "second": second,
    }


def training(step: int) -> Values:
    """A state of which one step changes a part."""
    seed = np.random.RandomState(2)
    weights = noise(seed, 6000).astype("<f4")
    weights[:500] += step
    return {
        "weights": weights,
        "frozen": (np.frombuffer(seed.bytes(6000), "u1") % 9).astype("<i4"),
        "step": step,
    }


def make(url: str, *, chunk_bytes: int = 8192) -> None:
    """Save all of it into a new store at `url`."""
    config = StoreConfig(chunk_bytes=chunk_bytes, inline_bytes=256)

    def reopen() -> CheckpointStore:
        return CheckpointStore.open(url, config=config, registry=registry())

    with reopen() as store:
        store.save(PLAIN, plain(), label="Best é/~", run="run=1", metadata=METADATA, attributes=ATTRIBUTES)
        store.save(ARRAYS, arrays())
        if find_spec("torch"):
            store.save(TENSORS, tensors(), label="tensors")
        store.save(TENSORS, objects(), label="objects")
        first = store.save(TRAIN, training(0), run="A", label="first")
        store.pin(first)
        second = store.save(TRAIN, training(1), run="A")
        store.delete(second)
    with reopen() as store:
        store.save(TRAIN, training(2), run="B", label="last", parent=first.ref)


# Where each part is: collection and label.
PARTS: dict[str, tuple[Callable[[], Values], str, str | None]] = {
    "plain": (plain, PLAIN, "Best é/~"),
    "arrays": (arrays, ARRAYS, None),
    "tensors": (tensors, TENSORS, "tensors"),
    "objects": (objects, TENSORS, "objects"),
    "first": (lambda: training(0), TRAIN, "first"),
    "last": (lambda: training(2), TRAIN, "last"),
}

if __name__ == "__main__":
    folder = Path(sys.argv[1]).resolve()
    if folder.exists():
        sys.exit(f"{folder} is there already; make another version's data, do not change this one's")
    make(str(folder))
