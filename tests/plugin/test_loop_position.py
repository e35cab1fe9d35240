"""What a checkpoint says of loops, and that nothing else is taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointException
from metaflow_extensions.ckptstore.plugins.checkpoint.loops.loop_position import (
    Node,
    Position,
    Positions,
    Status,
)

POSITIONS = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(
        st.text(max_size=3), st.builds(Position, st.integers(0), st.booleans(), inner)
    ),
    max_leaves=5,
)


def plain(loops, at=()):
    return {"version": 1, "loops": {name: one.to_plain() for name, one in loops.items()}, "at": list(at)}


@given(POSITIONS, st.lists(st.text(max_size=3)))
def test_positions_survive_being_plain_data(loops, at):
    assert Positions.from_plain(plain(loops, at)) == Positions(loops, tuple(at))


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"version": 1},
        {"version": 1, "loops": {}, "at": None},
        {"version": 1, "loops": {"a": {}}, "at": []},
        {"version": 1, "loops": {"a": {"finished": -1, "over": False, "inner": {}}}, "at": []},
        {"version": 1, "loops": {"a": {"finished": True, "over": False, "inner": {}}}, "at": []},
        {"version": 1, "loops": {"a": {"finished": 1, "over": 0, "inner": {}}}, "at": []},
        {"version": 1, "loops": {"a": {"finished": 1, "over": False, "inner": []}}, "at": []},
        {"version": 1, "loops": {1: {"finished": 1, "over": False, "inner": {}}}, "at": []},
    ],
    ids=repr,
)
def test_what_is_not_ours_is_refused(value):
    with pytest.raises(CheckpointException, match="loops of this checkpoint"):
        Positions.from_plain(value)


def test_a_later_version_is_told_from_damage():
    with pytest.raises(CheckpointException, match="version 2, this release reads version 1"):
        Positions.from_plain({"version": 2, "loops": {}, "at": []})


def test_a_finished_iteration_forgets_the_loops_in_it_and_a_successor_makes_a_loop_over():
    root = Node("", None, Status.BODY)
    outer = root.add(None)
    outer.begin()
    inner = outer.add("batches")
    inner.begin()
    inner.finish_iteration()
    assert root.to_plain()["at"] == ["#1", "batches"]
    assert outer.add("batches") is None
    outer.finish_iteration()
    assert outer.add("batches") is not None
    assert Positions.from_plain(root.to_plain()) == Positions({"#1": Position(1, False, {})}, ("#1",))
    root.add(None).begin()
    assert Positions.from_plain(root.to_plain()) == Positions(
        {"#1": Position(1, True, {}), "#2": Position(0, False, {})}, ("#2",)
    )


def test_what_was_restored_stays_noted_until_the_loop_begins():
    root = Node("", None, Status.BODY)
    root.expected = {"#1": Position(3, False, {"#1": Position(2, False, {})}), "#2": Position(4, True, {})}
    outer = root.add(None)
    outer.begin()
    noted = Positions.from_plain(root.to_plain()).loops
    assert noted == {"#1": Position(3, False, {"#1": Position(2, False, {})}), "#2": Position(4, True, {})}
    outer.finish_iteration()
    assert Positions.from_plain(root.to_plain()).loops["#1"] == Position(4, False, {})
