"""The rules of the allowlist, to the letter: what a name stands for, what is kept, where each limit lies."""

from __future__ import annotations

import decimal
import fractions
import re
from typing import Any

import pytest
from streams import args, called, data, load, made, name, state, stream, text

from ckptstore.errors import CheckpointStoreError, LimitExceededError, UntrustedPickleError
from ckptstore.serializers import Allowlist
from ckptstore.serializers._nesting import KeyWork
from ckptstore.serializers._opcodes import imported_names
from ckptstore.serializers._rules import ABSENT, Rule, resolve, weigh

TENSOR = ["tensor", "float32", [2], None, 1, 0, "cpu", 0]
STORAGE = ["storage", "float32", 8, 1, 0, "cpu"]


def rule_of(pair: tuple[str, str]) -> Rule:
    if pair[0].startswith("torch"):
        pytest.importorskip("torch")
    try:
        found = Allowlist().find(*pair)
    except CheckpointStoreError as exc:
        pytest.skip(str(exc))
    assert found is not None
    return found


@pytest.mark.parametrize("pair", Allowlist.names(), ids=".".join)
def test_a_name_as_data_is_what_it_names_or_refused(pair: tuple[str, str]) -> None:
    rule = rule_of(pair)
    if rule.value is ABSENT:
        with pytest.raises(UntrustedPickleError, match=re.escape(".".join(pair)) + " as data"):
            load(stream(name(*pair)))
    else:
        # Python 3.13 names paths by another module.
        module = pair[0].removesuffix("._local")
        assert load(stream(name(*pair))) is resolve(module, pair[1])


@pytest.mark.parametrize("pair", Allowlist.names(), ids=".".join)
def test_a_name_itself_is_never_changed_and_the_refusal_says_which(pair: tuple[str, str]) -> None:
    rule_of(pair)
    for change in (data({}) + b"b", data(1) + b"a", data(1) + data(2) + b"s"):
        with pytest.raises(
            UntrustedPickleError, match=rf"a change of the .* of a {re.escape('.'.join(pair))},"
        ):
            load(stream(name(*pair), change))


def test_only_the_types_of_the_three_single_objects_are_told() -> None:
    for one, given in (
        (None, b"N"),
        (Ellipsis, name("builtins", "Ellipsis")),
        (NotImplemented, name("builtins", "NotImplemented")),
    ):
        assert load(stream(called("builtins", "type", given))) is type(one)
    for other in (data(1), data("x"), name("builtins", "int")):
        with pytest.raises(UntrustedPickleError, match="the type of an object"):
            load(stream(called("builtins", "type", other)))


def test_numbers_as_large_as_the_limit_are_made_and_no_larger() -> None:
    digits = "1" * 100_000
    assert load(stream(called("decimal", "Decimal", text(digits)))) == decimal.Decimal(digits)
    largest = (1 << 400_000) - 1
    made_of = called("fractions", "Fraction", data(largest), data(1))
    assert load(stream(made_of)) == fractions.Fraction(largest)
    assert load(stream(called("fractions", "Fraction", text("1" * 4000)))).denominator == 1
    for refused in (
        called("decimal", "Decimal", text(digits + "1")),
        called("fractions", "Fraction", data(largest + 1), data(1)),
        called("fractions", "Fraction", text("1" * 4001)),
        # Digits of other scripts: int() would take them.
        called("fractions", "Fraction", text("\u0661")),
    ):
        with pytest.raises(UntrustedPickleError):
            load(stream(refused))


def test_devices_have_short_names_and_few_numbers() -> None:
    torch = pytest.importorskip("torch")
    for number in (0, 1, 127):
        given = called("torch", "device", text("cuda"), data(number))
        assert load(stream(given)) == torch.device("cuda", number)
    for refused in (
        (text("cuda"), data(-1)),
        (text("cuda"), data(128)),
        (text("cuda"), data(1.0)),
        (data(1),),
        (text("cpu" + " " * 38),),
    ):
        with pytest.raises(UntrustedPickleError, match="no device"):
            load(stream(called("torch", "device", *refused)))


def parameter(*parts: bytes, kind: str = "_rebuild_parameter") -> Any:
    given = called("torch._utils", kind, b"K\x00Q", *parts)
    return load(stream(b"\x970", given), refs=[TENSOR], buffers=[b"\0\0\x80?\0\0\0@"])


def test_a_parameter_holds_its_tensor_and_no_hooks() -> None:
    torch = pytest.importorskip("torch")
    for hooks in (data(None), data({}), called("collections", "OrderedDict")):
        made_of = parameter(data(False), hooks)
        assert type(made_of) is torch.nn.Parameter
        assert (made_of.tolist(), made_of.requires_grad) == ([1.0, 2.0], False)
    assert parameter(data(True), data(None)).requires_grad is True
    for hooks in (data({1: 2}), data([]), data(1)):
        with pytest.raises(UntrustedPickleError, match="a parameter with hooks"):
            parameter(data(True), hooks)


@pytest.mark.parametrize("method", ["backward", "register_hook", "__class__"])
def test_no_state_of_a_tensor_stands_in_for_a_method(method: str) -> None:
    pytest.importorskip("torch")
    kind = "_rebuild_parameter_with_state"
    assert parameter(data(True), data(None), data({"mine": 3}), kind=kind).mine == 3
    with pytest.raises(UntrustedPickleError, match=f"replaces the method {method}"):
        parameter(data(True), data(None), data({method: 3}), kind=kind)

    def with_state(given: Any) -> Any:
        rebuild = name("torch._utils", "_rebuild_tensor_v2")
        parts = args(b"K\x00Q", data(0), data((2,)), data((1,)), data(False), data(None))
        tensor = called(
            "torch._tensor", "_rebuild_from_type_v2", rebuild, name("torch", "Tensor"), parts, data(given)
        )
        return load(stream(b"\x970", tensor), refs=[STORAGE], buffers=[bytes(8)])

    assert with_state({"mine": 3}).mine == 3
    with pytest.raises(UntrustedPickleError, match=f"replaces the method {method}"):
        with_state({method: 3})


def test_no_state_of_a_scheduler_stands_in_for_a_method() -> None:
    pytest.importorskip("torch")
    scheduler = made("torch.optim.lr_scheduler", "StepLR")
    assert load(stream(state(scheduler, data({"step_size": 3})))).step_size == 3
    with pytest.raises(UntrustedPickleError, match="replaces the method step"):
        load(stream(state(scheduler, data({"step": 3}))))


def test_a_buffer_is_an_array_of_its_own_dtype() -> None:
    for code, order, n_bytes in (
        ("u1", "|", 1),
        ("i1", "|", 1),
        ("b1", "|", 1),
        ("u4", "<", 4),
        ("f4", ">", 4),
    ):
        dtype = state(
            called("numpy", "dtype", text(code), data(False), data(True)),
            data((3, order, None, None, None, -1, -1, 0)),
        )
        given = called(
            "numpy._core.numeric", "_frombuffer", data(bytes(n_bytes)), dtype, data((1,)), text("C")
        )
        found = load(stream(given))
        assert found.dtype.str == order + code
        assert found.tolist() == [0]


@pytest.mark.parametrize("count", [1, 25, 10**9 - 1])
def test_a_time_counts_its_units(count: int) -> None:
    def dtype(count: int) -> Any:
        given = (4, "<", None, None, None, -1, -1, 0, (None, (b"s", count, 1, 1)))
        return load(stream(state(called("numpy", "dtype", text("M8"), data(False), data(True)), data(given))))

    assert dtype(count).str == f"<M8[{'' if count == 1 else count}s]"
    for refused in (0, 10**9):
        with pytest.raises(UntrustedPickleError, match="no unit"):
            dtype(refused)


def test_a_copy_weighs_what_it_holds() -> None:
    assert weigh("abc") == weigh(b"abc") == weigh(bytearray(3)) == 3
    assert weigh([1, 2]) == weigh({1, 2}) == weigh(frozenset({1, 2})) == 32
    assert weigh({1: 2, 3: 4}) == 200
    assert weigh(("abc", [1, 2], (1,), {1: 2}, 5)) == 3 + 32 + 16 + 100
    assert weigh(5) == weigh(None) == weigh(()) == 0


def test_large_numbers_as_keys_cost_their_words() -> None:
    number = 1 << 64 * 100
    KeyWork(100).check([number])
    KeyWork(101).check([(number,)])
    for parts, keys in ((99, [number]), (100, [(number,)])):
        with pytest.raises(LimitExceededError, match="again and again"):
            KeyWork(parts).check(keys)


def test_names_are_found_behind_long_memo_indices() -> None:
    memo = text("module") + b"\x94" + text("name") + b"\x940"
    assert imported_names(stream(memo, b"j\0\0\0\0j\1\0\0\0\x93")) == [("module", "name")]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("kind", ["buffer", "bytes", "objects"])
def test_an_array_has_its_elements_in_their_order(kind: str, order: str) -> None:
    code, of = ("O8", ("|", 63)) if kind == "objects" else ("u1", ("|", 0))
    dtype = state(
        called("numpy", "dtype", text(code), data(False), data(True)),
        data((3, of[0], None, None, None, -1, -1, of[1])),
    )
    numbers = [0, 1, 2, 3, 4, 5]
    if kind == "buffer":
        given = called(
            "numpy._core.numeric", "_frombuffer", data(bytes(numbers)), dtype, data((2, 3)), text(order)
        )
    else:
        held = data(numbers if kind == "objects" else bytes(numbers))
        empty = called(
            "numpy._core.multiarray", "_reconstruct", name("numpy", "ndarray"), data((0,)), data(b"b")
        )
        given = state(empty, args(data(1), data((2, 3)), dtype, data(order == "F"), held))
    rows = [[0, 2, 4], [1, 3, 5]] if order == "F" and kind != "objects" else [[0, 1, 2], [3, 4, 5]]
    found = load(stream(given))
    assert found.tolist() == rows
    assert found.flags.f_contiguous is (order == "F")
