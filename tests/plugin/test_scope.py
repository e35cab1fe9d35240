"""Which line a task continues: scope, foreach branch and iteration, told without asking anybody."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metaflow_extensions.ckptstore.plugins.checkpoint.scope import (
    TaskIdentity,
    identify,
    index_path,
    line,
    namespace_scope,
    shared_index_path,
)

from ckptstore._keys import check_collection

PARTS = st.text(st.characters(exclude_characters="/~", exclude_categories=["Cc", "Cs", "Zl", "Zp"])).filter(
    lambda part: part not in ("", ".", "..") and not part.startswith("-")
)


class Current:
    """What Metaflow's ``current`` tells in a task, and nothing that would ask the metadata service."""

    namespace = "user:ada"

    def __init__(self, **known: Any) -> None:
        self.known = known

    def get(self, name: str) -> Any:
        return self.known.get(name)


def identity(*, ubf: str | None = None, flow: Any = None, **known: Any) -> TaskIdentity:
    flow = flow or SimpleNamespace()
    flow.name = "Flow"
    return identify(flow, Current(**known), step="train", run_id="7", task_id="3", attempt=0, ubf_context=ubf)


def frames(*indexes: int | None) -> list[Any]:
    return [SimpleNamespace(index=index, value=object()) for index in indexes]


def test_scope_is_the_project_branch_or_the_identity_of_who_runs():
    assert namespace_scope("user:ada") == "user:ada"
    assert namespace_scope("user:ada", project="fraud", branch="user.ada") == "project:fraud:user.ada"


def test_checkpoint_tags_make_the_scope_whatever_their_order():
    tags = {"checkpoint:b", "checkpoint:a", "other", "checkpointed:no"}
    assert namespace_scope("user:ada", project="p", branch="b", tags=tags) == "checkpoint:a+b"
    assert namespace_scope("x", tags=["checkpoint:b", "checkpoint:a", "checkpoint:b"]) == "checkpoint:a+b"
    assert namespace_scope("user:ada", tags=["other", "checkpointed:no"]) == "user:ada"


def test_scope_is_one_part_of_a_name_and_different_scopes_stay_apart():
    scopes = ["user:a/b", "user:a%2Fb", "user:a b", "user:\u00e4", "user:a\nb", "user:a~b", "user:a%7Eb"]
    written = [namespace_scope(scope) for scope in scopes]
    tagged = [["checkpoint:a+b"], ["checkpoint:a", "checkpoint:b"], ["checkpoint:"], ["checkpoint:a,b=c"]]
    written += [namespace_scope("user:ada", tags=tags) for tags in tagged]
    assert len(set(written)) == len(scopes) + len(tagged)
    assert not any(mark in scope for scope in written for mark in "/\n~,=")


def test_index_path_is_made_of_positions_only():
    assert index_path([SimpleNamespace(index=3, value=object()), *frames(0)]) == "3.0"
    assert index_path([]) == "_"
    assert index_path(frames(None)) == "0"


def test_iterations_of_a_recursive_step_have_a_line_each():
    assert [index_path([], [n]) for n in (0, 11)] == ["i0", "i11"]
    assert index_path(frames(2), [3]) == "2.i3"


def test_ranks_have_a_line_each_and_share_one():
    control = identity(ubf="ubf_control", flow=SimpleNamespace(_foreach_stack=frames(4, None)))
    worker = identity(ubf="ubf_task", flow=SimpleNamespace(_foreach_stack=frames(4, 1)))
    assert (control.index, worker.index) == ("4.0", "4.1")
    assert control.shared_collection == worker.shared_collection == "Flow/train/user:ada/4.shared"
    assert (control.is_control, worker.is_control) == (True, False)
    assert shared_index_path(frames(1)) == "shared"


def test_a_task_of_another_step_shares_no_line_and_speaks_for_itself():
    task = identity(flow=SimpleNamespace(_foreach_stack=frames(1), _iteration_stack=[]))
    assert task.shared_collection is None
    assert task.lines == ("Flow/train/user:ada/1",)
    assert task.is_control


def test_who_a_task_is_comes_from_what_its_process_knows():
    task = identity(
        project_name="p", branch_name="test.b", tags={"x"}, origin_run_id="6", flow=SimpleNamespace()
    )
    assert task.collection == "Flow/train/project:p:test.b/_"
    assert task.origin_run_id == "6"
    assert identity(tags={"checkpoint:z", "checkpoint:y"}).scope == "checkpoint:y+z"
    assert identity(origin_run_id=None, tags=None).origin_run_id is None


@pytest.mark.parametrize("kind", range(4))
def test_a_part_that_is_too_long_keeps_its_beginning_and_a_digest(kind):
    long = [("P" if kind == 0 else "p") * 200 + end for end in "xy"]
    named = [line(*["a"] * kind, text, *["a"] * (3 - kind)) for text in long]
    assert named[0] != named[1]
    for name in named:
        check_collection(name)
        assert name.split("/")[kind].startswith(long[0][:7])
        assert name.split("/")[kind].rpartition("~")[2].isalnum()
    assert line("Flow", "train", "user:ada", "0") == "Flow/train/user:ada/0"


def test_the_lines_of_a_long_scope_are_the_same_from_run_to_run():
    # Frozen: another result would hide what is stored.
    assert line("Flow", "train", "checkpoint:" + "+".join(f"trial-{n}" for n in range(20)), "0") == (
        "Flow/train/checkpoint:trial-0+trial-1+trial-2+tr~435e065c0e25c00e2877/0"
    )


@given(PARTS, PARTS, PARTS, PARTS)
def test_every_line_has_room_in_a_key(flow, step, scope, index):
    check_collection(line(flow, step, scope, index))


@given(st.lists(PARTS, min_size=2, max_size=2, unique=True))
def test_different_parts_never_share_a_line(parts):
    assert line("Flow", parts[0], "s", "_") != line("Flow", parts[1], "s", "_")
