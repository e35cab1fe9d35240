"""The rules of the allowlist, given what no pickler writes: each refuses, naming itself."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from streams import args, called, data, load, made, name, state, stream, text

from ckptstore.errors import CheckpointStoreError, FormatError, UntrustedPickleError
from ckptstore.serializers import Allowlist, _allowlist, _safe_torch
from ckptstore.serializers._rules import ABSENT, resolve, shown

U4 = state(
    called("numpy", "dtype", text("u4"), data(False), data(True)), data((3, "<", None, None, None, -1, -1, 0))
)
F8 = state(
    called("numpy", "dtype", text("f8"), data(False), data(True)), data((3, "<", None, None, None, -1, -1, 0))
)
OBJECTS = state(
    called("numpy", "dtype", text("O8"), data(False), data(True)),
    data((3, "|", None, None, None, -1, -1, 63)),
)
ARRAY = called("numpy._core.multiarray", "_reconstruct", name("numpy", "ndarray"), data((0,)), data(b"b"))
PCG = called("numpy.random._pickle", "__bit_generator_ctor", name("numpy.random._pcg64", "PCG64"))
MT = called("numpy.random._pickle", "__bit_generator_ctor", name("numpy.random._mt19937", "MT19937"))
SEED = called(
    "numpy.random.bit_generator",
    "__pyx_unpickle_SeedSequence",
    name("numpy.random.bit_generator", "SeedSequence"),
    data(1),
    data(None),
)
RANDOM = called("random", "Random")
WORDS = (1,) * 624
GETATTR = called("builtins", "getattr", name("zoneinfo", "ZoneInfo"), text("_unpickle"))


def dtype(code: str, dtype_state: Any) -> bytes:
    return state(called("numpy", "dtype", text(code), data(False), data(True)), data(dtype_state))


def frombuffer(*parts: bytes) -> bytes:
    return called("numpy._core.numeric", "_frombuffer", *parts)


def key(dtype: bytes, n: int) -> bytes:
    return frombuffer(data(bytes(4 * n)), dtype, data((n,)), text("C"))


def bits(**parts: bytes) -> bytes:
    pairs = b"".join(text(what) + part for what, part in parts.items())
    return args(b"}(" + pairs + b"u", data(None))


def mt(words: bytes, pos: int) -> bytes:
    inner = b"}(" + text("key") + words + text("pos") + data(pos) + b"u"
    return state(MT, bits(bit_generator=text("MT19937"), state=inner))


PLAIN = (3, "<", None, None, None, -1, -1, 0)
REFUSED: dict[str, bytes] = {
    "OrderedDict of items": called("collections", "OrderedDict", data([(1, 2)])),
    "defaultdict of items": called("collections", "defaultdict", data(None), data({})),
    "deque of items": called("collections", "deque", data((1,))),
    "deque of a list": called("collections", "deque", data([])),
    "deque of a negative length": called("collections", "deque", data(()), data(-1)),
    "deque of a huge length": called("collections", "deque", data(()), data(2**62)),
    "deque of a float length": called("collections", "deque", data(()), data(1.0)),
    "Counter of a list": called("collections", "Counter", data([1])),
    "Counter of nothing": called("collections", "Counter"),
    "date of numbers": called("datetime", "date", data(2024), data(1), data(1)),
    "date of other bytes": called("datetime", "date", data(b"\xff\xff\xff\xff")),
    "datetime with a zone that is none": called(
        "datetime", "datetime", data(b"\x07\xe8\x02\x1d" + bytes(6)), text("x")
    ),
    "timedelta of floats": called("datetime", "timedelta", data(1.5), data(0), data(0)),
    "timedelta beyond all days": called("datetime", "timedelta", data(10**10), data(0), data(0)),
    "timezone of a number": called("datetime", "timezone", data(1)),
    "Decimal of a float": called("decimal", "Decimal", data(1.5)),
    "Decimal of words": called("decimal", "Decimal", text("one")),
    "Decimal that is too long": called("decimal", "Decimal", text("1" * 100_001)),
    "Fraction of floats": called("fractions", "Fraction", data(1.5), data(2)),
    "Fraction of zero": called("fractions", "Fraction", data(1), data(0)),
    "Fraction of words": called("fractions", "Fraction", text("1e999999999")),
    "Fraction that is too long": called("fractions", "Fraction", data(1 << 400_000), data(3)),
    "UUID of text": state(made("uuid", "UUID"), data({"int": "x"})),
    "UUID that is too large": state(made("uuid", "UUID"), data({"int": 2**128})),
    "UUID of another safety": state(made("uuid", "UUID"), data({"int": 1, "is_safe": 9})),
    "path of numbers": called("pathlib", "PurePosixPath", data(1)),
    "Random of a seed": called("random", "Random", data(1)),
    "Random of version 2": state(RANDOM, data((2, (*WORDS, 1), None))),
    "Random of few words": state(RANDOM, data((3, (1,), None))),
    "Random of large words": state(RANDOM, data((3, (2**32,) * 625, None))),
    "Random beyond its words": state(RANDOM, data((3, (*WORDS, 625), None))),
    "Random of another rest": state(RANDOM, data((3, (*WORDS, 1), "x"))),
    "Random of a list": state(RANDOM, data([3, (*WORDS, 1), None])),
    "Namespace of arguments": called("types", "SimpleNamespace", data(1)),
    "slice of a list": called("builtins", "slice", data([]), data(1), data(1)),
    "range of floats": called("builtins", "range", data(0.0), data(1), data(1)),
    "range of step 0": called("builtins", "range", data(0), data(1), data(0)),
    "array of another class": called(
        "array", "_array_reconstructor", data(1), text("d"), data(16), data(b"")
    ),
    "array of unicode": called(
        "array", "_array_reconstructor", name("array", "array"), text("u"), data(18), data(b"")
    ),
    "array of half a number": called(
        "array", "_array_reconstructor", name("array", "array"), text("d"), data(16), data(b"x")
    ),
    "zone of a number": GETATTR + args(data(1), data(True)) + b"R",
    "zone that nobody knows": GETATTR + args(text("No/Where"), data(True)) + b"R",
    "zone of an absolute path": GETATTR + args(text("/etc/passwd"), data(True)) + b"R",
    "dtype of a number": called("numpy", "dtype", data(1), data(False), data(True)),
    "dtype that is aligned": called("numpy", "dtype", text("f8"), data(True), data(True)),
    "dtype of fields": called("numpy", "dtype", text("f8,f8"), data(False), data(True)),
    "dtype of objects by another size": called("numpy", "dtype", text("O4"), data(False), data(True)),
    "dtype of a size that is none": dtype("f7", PLAIN),
    "dtype of a huge size": dtype("V9999999999", (3, "|", None, None, None, 1, 1, 0)),
    "dtype of objects with more": dtype("O8", (3, "|", None, None, None, -1, -1, 62)),
    "dtype of objects with a list": dtype("O8", (3, "|", None, None, [], -1, -1, 63)),
    "dtype of objects without a state": dtype("O8", None),
    "dtype of a short state": dtype("f8", (3, "<")),
    "dtype of another order": dtype("f8", (3, "=", *PLAIN[2:])),
    "dtype of a number with metadata": dtype("f8", (4, *PLAIN[1:], (None, (b"s", 1, 1, 1)))),
    "dtype of a time without a unit": dtype("M8", (4, *PLAIN[1:], None)),
    "dtype of a time with metadata": dtype("M8", (4, *PLAIN[1:], ({"a": 1}, (b"s", 1, 1, 1)))),
    "dtype of a time of -1 seconds": dtype("M8", (4, *PLAIN[1:], (None, (b"s", -1, 1, 1)))),
    "dtype of a time of thirds": dtype("M8", (4, *PLAIN[1:], (None, (b"s", 1, 3, 1)))),
    "dtype of a time of another unit": dtype("M8", (4, *PLAIN[1:], (None, (b"xx", 1, 1, 1)))),
    "scalar of few bytes": called("numpy._core.multiarray", "scalar", F8, data(b"x")),
    "scalar of a text": called("numpy._core.multiarray", "scalar", text("f8"), data(b"x" * 8)),
    "array of a number": called("numpy._core.multiarray", "_reconstruct", data(1), data((0,)), data(b"b")),
    "array of two dimensions": called(
        "numpy._core.multiarray", "_reconstruct", name("numpy", "ndarray"), data((0, 0)), data(b"b")
    ),
    "array of a short state": state(ARRAY, data((1,))),
    "array of few objects": state(ARRAY, args(data(1), data((2,)), OBJECTS, data(False), data([1]))),
    "array of objects in a tuple": state(ARRAY, args(data(1), data((1,)), OBJECTS, data(False), data((1,)))),
    "array of a huge shape": state(ARRAY, args(data(1), data((2**61, 8)), OBJECTS, data(False), data([]))),
    "array of a negative shape": state(ARRAY, args(data(1), data((-1,)), F8, data(False), data(b""))),
    "array of 65 dimensions": state(ARRAY, args(data(1), data((1,) * 65), F8, data(False), data(b"x" * 8))),
    "array of a shape that is a list": state(
        ARRAY, args(data(1), data([1]), F8, data(False), data(b"x" * 8))
    ),
    "array of few bytes": state(ARRAY, args(data(1), data((2,)), F8, data(False), data(b"x" * 8))),
    "array of text": state(ARRAY, args(data(1), data((2,)), F8, data(False), text("x" * 16))),
    "array of another dtype": state(
        ARRAY, args(data(1), data((2,)), text("f8"), data(False), data(b"x" * 16))
    ),
    "buffer of objects": frombuffer(data(b"x" * 8), OBJECTS, data((1,)), text("C")),
    "buffer that is too short": frombuffer(data(b"x"), F8, data((1,)), text("C")),
    "buffer in another order": frombuffer(data(b"x" * 8), F8, data((1,)), text("A")),
    "buffer of text": frombuffer(text("x" * 8), F8, data((1,)), text("C")),
    "bits of text": state(PCG, text("x")),
    "bits of another generator": state(PCG, bits(bit_generator=text("SFC64"))),
    "bits without a generator": state(PCG, bits(x=text("SFC64"))),
    "bits without a state": state(
        PCG, bits(bit_generator=text("PCG64"), has_uint32=data(0), uinteger=data(0))
    ),
    "bits that are too large": state(
        PCG,
        bits(
            bit_generator=text("PCG64"),
            has_uint32=data(0),
            uinteger=data(0),
            state=data({"state": 2**128, "inc": 1}),
        ),
    ),
    "bits with a seed that is none": state(
        PCG,
        args(
            data({"bit_generator": "PCG64", "has_uint32": 0, "uinteger": 0, "state": {"state": 1, "inc": 1}}),
            text("seed"),
        ),
    ),
    "bits beyond their words": mt(key(U4, 624), 625),
    "bits of few words": mt(key(U4, 623), 1),
    "bits of other words": mt(frombuffer(data(bytes(8 * 624)), F8, data((624,)), text("C")), 1),
    "bits of a list": mt(data([1] * 624), 1),
    "generator of text": called("numpy.random._pickle", "__generator_ctor", text("PCG64")),
    "generator of a dict": called("numpy.random._pickle", "__generator_ctor", data({})),
    "old generator of other bits": called("numpy.random._pickle", "__randomstate_ctor", data({})),
    "seed of another class": called(
        "numpy.random.bit_generator", "__pyx_unpickle_SeedSequence", data(1), data(1), data(None)
    ),
    "seed of a short state": state(SEED, data((1,))),
    "seed of nothing": state(SEED, data((None, 0, None, 4, ()))),
    "seed that is too long": state(SEED, data((1 << 70_000, 0, None, 4, ()))),
    "seed of many words": state(SEED, data(([1] * 1001, 0, None, 4, ()))),
    "seed of a huge pool": state(SEED, data((1, 0, None, 2**40, ()))),
    "seed of another pool": state(SEED, args(data(1), data(0), key(U4, 4), data(4), data(()))),
    "seed of a key that is a list": state(SEED, data((1, 0, None, 4, [1]))),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_no_pickler_writes_is_refused(what: str) -> None:
    with pytest.raises(UntrustedPickleError, match=r"'field' .*\(.*\)"):
        load(stream(REFUSED[what]))


def test_older_numpy_streams_are_read() -> None:
    assert load(stream(frombuffer(data(b""), F8, data((0,)), text("C")))).shape == (0,)
    assert load(
        stream(state(ARRAY, args(data(1), data((1, 2)), U4, data(True), data(b"a" * 8))))
    ).tolist() == [[0x61616161] * 2]
    assert load(stream(called("fractions", "Fraction", text("-3/7")))).denominator == 7


SHAPES = [
    (),
    (None,),
    (1,),
    ("x",),
    ((),),
    ([],),
    ({},),
    (b"", "x"),
    (1, 2, 3),
    (None,) * 4,
    ((1, 2), (), 0, {}, "x", b"y"),
]


@pytest.mark.parametrize("pair", Allowlist.names(), ids=".".join)
def test_every_rule_survives_arguments_of_every_kind(pair: tuple[str, str]) -> None:
    if pair[0].startswith("torch"):
        pytest.importorskip("torch")
    problems: set[str] = set()
    for given in SHAPES:
        for opcode in (b"R", b"\x81", b"}\x92"):
            for change in (b"", b"Nb", b"}b", b"]b", b"Na", b"NNs"):
                try:
                    load(stream(name(*pair), data(given), opcode, change))
                except (UntrustedPickleError, FormatError):
                    continue
                except CheckpointStoreError as exc:
                    problems.add(str(exc))
    # Of another platform, or of another version of its package.
    assert all("cannot be imported here" in problem or "the class it was" in problem for problem in problems)


def test_a_class_of_torch_that_changed_is_refused() -> None:
    pytest.importorskip("torch")
    with pytest.raises(CheckpointStoreError, match="is not the class it was"):
        _safe_torch.NAMES["torch.nn.modules.linear", "Linear"]("torch.nn.modules.linear", "init")


def test_a_name_that_cannot_be_imported_is_told() -> None:
    for module in ("no_such_module", "collections"):
        with pytest.raises(CheckpointStoreError, match=rf"{module}\.Gone cannot be imported here"):
            resolve(module, "Gone")


def test_names_are_shown_in_a_way_that_can_be_printed() -> None:
    assert shown("a", "b") == "a.b"
    assert shown("a\n", "b") == r"'a\n.b'"
    assert len(shown("a", "b" * 1000)) <= 202
    assert repr(ABSENT) == "ABSENT"


def test_a_missing_package_is_told_with_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_allowlist._NAMES, ("gone", "Class"), lambda m, n: resolve(m, n))
    with pytest.raises(CheckpointStoreError, match=r"field 'field': gone\.Class cannot be imported"):
        load(stream(name("gone", "Class")))


def test_graphs_without_pickles_need_no_check() -> None:
    from ckptstore.config import Limits
    from ckptstore.serializers import Registry, RestorePlan

    for trusted in (True, False):
        plan = RestorePlan(["f"], limits=Limits(), registry=Registry(), trusted=trusted)
        plan.add_graph("f", msgpack.packb([[0], [["list", [1]]]]), [])
        assert plan.streams == []
        plan.check_pickles({})
        assert plan.build({}) == {"f": [1]}


TENSOR = ["tensor", "float32", [0], None, None, 0, "cpu", 0]
STORAGE = ["storage", "float32", 8, 1, 0, "cpu"]


def torch_load(*parts: bytes, refs: Any = (TENSOR,)) -> Any:
    return load(stream(*parts), refs=refs)


def test_a_parameter_of_a_tensor_is_read() -> None:
    torch = pytest.importorskip("torch")
    made_of = args(b"K\x00Q", data(True), called("collections", "OrderedDict"))
    assert type(torch_load(name("torch._utils", "_rebuild_parameter"), made_of, b"R")) is torch.nn.Parameter
    with pytest.raises(UntrustedPickleError, match="of other arguments"):
        torch_load(
            b"0" * 0, name("torch._utils", "_rebuild_parameter"), args(b"K\x00Q", data(1), data(None)), b"R"
        )


BEYOND: dict[str, tuple[Any, ...]] = {
    "too long": (0, (3,), (1,)),
    "begun too late": (1, (2,), (1,)),
    "stepping out": (0, (2,), (2,)),
    "in front": (-1, (1,), (1,)),
    "of a negative size": (0, (-1,), (1,)),
    "going backwards": (1, (2,), (-1,)),
    "of more strides than sizes": (0, (1,), (1, 1)),
    "of 65 dimensions": (0, (1,) * 65, (1,) * 65),
    "of more elements than memory": (0, (2**31, 2**31, 0), (0, 0, 0)),
    "of float sizes": (0, (1.0,), (1,)),
}


@pytest.mark.parametrize("what", BEYOND)
def test_a_tensor_stays_within_its_storage(what: str) -> None:
    pytest.importorskip("torch")
    rebuild = name("torch._utils", "_rebuild_tensor_v2")

    def tensor(offset: Any, size: Any, stride: Any) -> Any:
        # Some bytes of a buffer stand behind the storage.
        given = args(b"K\x00Q", data(offset), data(size), data(stride), data(False), data(None))
        return load(stream(b"\x970", rebuild, given, b"R"), refs=[STORAGE], buffers=[bytes(8)])

    assert tensor(0, (2,), (1,)).tolist() == [0, 0]
    with pytest.raises(
        UntrustedPickleError, match=r"of other arguments|beyond its storage|a (malformed )?size"
    ):
        tensor(*BEYOND[what])
