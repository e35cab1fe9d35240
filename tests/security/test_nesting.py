"""Values that the interpreter could not hash or free without ending the process are refused, by pickle and by graph."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict, deque
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from streams import called, load, stream

from ckptstore.config import Limits
from ckptstore.errors import LimitExceededError
from ckptstore.serializers import Registry, RestorePlan
from ckptstore.serializers._nesting import MAX_NESTING, Chains, KeyWork


def nested_deques(levels: int) -> bytes:
    """Return a stream of that many deques, each in the next."""
    return stream(called("collections", "deque") * levels, b"a" * (levels - 1))


def test_deques_nest_to_the_limit_and_no_deeper() -> None:
    assert load(nested_deques(MAX_NESTING + 1))
    with pytest.raises(LimitExceededError, match=r"'field'.*directly in one another"):
        load(nested_deques(MAX_NESTING + 2))


def nested_tuples(levels: int) -> bytes:
    return b"}" + b")" + b"\x85" * (levels - 1) + b"Ns"


def test_keys_nest_to_the_limit_and_no_deeper() -> None:
    assert load(stream(nested_tuples(MAX_NESTING)))
    with pytest.raises(LimitExceededError, match="nests more than"):
        load(stream(nested_tuples(MAX_NESTING + 1)))


@pytest.mark.parametrize(
    "change",
    [b"}%sNs", b"}(%sNu", b"\x8f(%s\x90", b"(%s\x91"],
    ids=["SETITEM", "SETITEMS", "ADDITEMS", "FROZENSET"],
)
def test_a_key_that_doubles_at_every_level_is_refused(change: bytes) -> None:
    laughs = b")" + b"\x85" + b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(22))
    with pytest.raises(LimitExceededError, match="again and again"):
        load(stream(change.replace(b"%s", laughs)))


def test_a_huge_number_is_not_hashed_again_and_again() -> None:
    number = b"\x8b" + (200_000).to_bytes(4, "little") + b"\x01" * 200_000 + b"\x940"
    with pytest.raises(LimitExceededError, match="again and again"):
        load(stream(number, b"(" + b"}h\x00Ns" * 2000 + b"t"))
    with pytest.raises(LimitExceededError, match="again and again"):
        load(stream(number, b"(" + b"}h\x00\x85Ns" * 2000 + b"t"))


def graph(nodes: list[Any], root: int = 0) -> Any:
    """Return what a graph of one field builds."""
    plan = RestorePlan(["f"], limits=Limits(), registry=Registry())
    plan.add_graph("f", msgpack.packb([[root], nodes]), [])
    return plan.build({})["f"]


@pytest.mark.parametrize("tag", ["dict", "set", "frozenset"])
def test_deep_and_doubling_keys_are_refused_in_graphs_too(tag: str) -> None:
    def holder(first: int) -> list[Any]:
        return [tag, [[first]] + [None] * (tag == "dict")]

    deep = [holder(1), *(["tuple", [[i + 1]]] for i in range(1, MAX_NESTING + 1)), ["tuple", []]]
    with pytest.raises(LimitExceededError, match="nests more than"):
        graph(deep)
    doubling = [holder(1), *(["tuple", [[i + 1], [i + 1]]] for i in range(1, 25)), ["tuple", []]]
    with pytest.raises(LimitExceededError, match="again and again"):
        graph(doubling)


def test_chains_across_pickles_are_counted_together() -> None:
    one = stream(called("collections", "deque"), b"K\x00Qa")
    last = stream(called("collections", "deque"))

    def chain(length: int) -> list[Any]:
        nodes: list[Any] = [["pickle", one, [], [[i + 1]], [], 0] for i in range(length - 1)]
        return [*nodes, ["pickle", last, [], [], [], 0]]

    assert graph(chain(MAX_NESTING + 1))
    with pytest.raises(LimitExceededError, match="directly in one another"):
        graph(chain(MAX_NESTING + 2))


@pytest.mark.parametrize(
    "kind",
    ["tuple as key", "defaultdict", "array", "deque", "cycle of deques", "deque in a pickle that fails"],
)
def test_hundreds_of_thousands_of_levels_do_not_end_the_process(kind: str) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("deep.py")), kind],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr[-2000:]) == (0, "")
    assert done.stdout.startswith("refused: ")
    if "fails" not in kind:
        assert str(MAX_NESTING) in done.stdout


def test_levels_are_counted_through_shared_containers() -> None:
    chains = Chains()
    inner: Any = deque()
    made = [inner]
    for _ in range(MAX_NESTING):
        outer = np.empty(2, dtype=object)
        outer[:] = [inner, inner]
        inner = defaultdict(None, {1: outer}) if len(made) % 2 else outer
        made.append(inner)
    for obj in made:
        chains.add(obj)
    with pytest.raises(LimitExceededError):
        chains.check()
    chains.dismantle()
    assert not made[0]


def test_what_is_no_container_of_that_kind_is_not_counted() -> None:
    chains = Chains()
    for obj in (deque([np.zeros(3), [deque()]]), np.zeros(3), [], {}):
        chains.add(obj)
    chains.check()
    chains.check()


def test_ordinary_keys_cost_nothing() -> None:
    keys = KeyWork(0)
    keys.check([1, 2**63, "x" * 1000, b"y", None, True])
    keys.check([])
    keys.check([1, "a", -(2**63)])
    with pytest.raises(LimitExceededError):
        keys.check([(1,)])
    with pytest.raises(LimitExceededError):
        keys.check(["a", 2**6400])
