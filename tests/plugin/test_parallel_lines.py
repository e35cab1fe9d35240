"""Ranks of a @parallel step: a line each, and one that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError
from sessions import Flow, Tasks, begin_attempt

SHARED = {"shared_index": "shared"}


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    return Tasks(tmp_path)


def rank(index: int, root: Path, *, attempt: int = 0, **state: Any) -> Any:
    """Return the session of a rank, whose task is named after it."""
    flow = Flow()
    vars(flow).update(state)
    identity = SHARED | {"task_id": f"2_node_{index}"}
    return begin_attempt(attempt, root, flow, index=str(index), identity=identity)


def test_every_rank_gets_its_own_state_back(tmp_path: Path) -> None:
    for attempt in range(3):
        ranks = [rank(n, tmp_path, attempt=attempt, at=[n, attempt]) for n in range(3)]
        for n, session in enumerate(ranks):
            if attempt:
                CurrentCheckpoint(session).load()
                assert session.info.pathspec == f"Flow/1/train/2_node_{n}"
                assert session.state.collect() == {"at": [n, attempt - 1]}
                vars(session.state._flow).update(at=[n, attempt])
            CurrentCheckpoint(session).save(f"{n}")
            session.close()


def test_what_one_rank_shares_all_ranks_find_and_load(tmp_path: Path) -> None:
    saver = rank(2, tmp_path, epoch=7)
    saved = CurrentCheckpoint(saver).save("for all", shared=True)
    assert saved.shared
    assert saved.ref.collection == "Flow/train/user:ada/shared"
    saver.close()
    for n in range(3):
        session = rank(n, tmp_path, attempt=1)
        CurrentCheckpoint(session).load()
        assert session.state.collect() == {"epoch": 7}
        assert session.info.pathspec == "Flow/1/train/2_node_2"
        session.close()


def test_a_rank_lists_its_own_then_the_shared_ones(tmp_path: Path) -> None:
    sessions = [rank(n, tmp_path, n=n) for n in range(2)]
    first, second = map(CurrentCheckpoint, sessions)
    first.save("own 0")
    first.save("shared 0", shared=True)
    second.save("own 1", wait=False)
    second.save("shared 1", shared=True, wait=False)
    assert [one.name for one in second.list()] == ["own 1", "shared 1", "shared 0"]
    assert [one.name for one in first.list()] == ["own 0", "shared 1", "shared 0"]
    assert [one.shared for one in second.list()] == [False, True, True]
    assert [one.name for one in second.list(shared=True)] == ["shared 1", "shared 0"]
    assert [one.name for one in second.list(shared=False, full_namespace=True)] == ["own 1"]
    assert [one.name for one in first.list("shared 1")] == ["shared 1"]
    for session in sessions:
        session.close()


def test_shared_outside_of_a_parallel_step_is_refused_before_anything_is_done(tmp_path: Path) -> None:
    session = begin_attempt(0, tmp_path)
    checkpoint = CurrentCheckpoint(session)
    for call in (checkpoint.save, checkpoint.list):
        with pytest.raises(
            CheckpointArgumentError, match="for the ranks of a @parallel step, and 'train' is none"
        ):
            call(shared=True)
    assert checkpoint.list(shared=False) == []
    session.close()
    parallel = rank(0, tmp_path, n=0)
    with pytest.raises(CheckpointArgumentError, match="shared must be True or False, not 1"):
        CurrentCheckpoint(parallel).save(shared=1)  # type: ignore[arg-type]
    parallel.close()
    assert not list(tmp_path.rglob("chunks"))


def test_what_a_given_up_rank_shares_late_is_not_the_newest(tmp_path: Path) -> None:
    zombie = rank(0, tmp_path, state="given up")
    CurrentCheckpoint(zombie).save("early", shared=True)
    successor = rank(1, tmp_path, attempt=1, state="successor")
    CurrentCheckpoint(zombie).save("late", shared=True)
    CurrentCheckpoint(successor).save("successor's", shared=True)
    CurrentCheckpoint(zombie).save("later still", shared=True)
    third = rank(0, tmp_path, attempt=2)
    assert third.info.name == "successor's"
    for session in (zombie, successor, third):
        session.close()


def test_own_goes_before_shared_in_the_same_run_whenever_they_were_saved(tasks: Tasks) -> None:
    rank = {"index": "1", "identity": SHARED}
    tasks.saved("shared", run_id="9", shared=True, index="0", identity=SHARED)
    assert tasks.found("fresh", attempt=1, **rank) == "shared"
    tasks.saved("own", run_id="9", **rank)
    tasks.saved("shared, newest", run_id="9", shared=True, index="0", identity=SHARED)
    assert tasks.found("fresh", attempt=1, **rank) == "own"
    assert tasks.found("fresh", attempt=1, index="2", identity=SHARED) == "shared, newest"


def test_what_this_run_shared_goes_before_what_a_rank_had_in_another(tasks: Tasks) -> None:
    rank = {"index": "1", "identity": SHARED}
    tasks.saved("own of another run", run_id="8", **rank)
    assert tasks.found("eager", **rank) == "own of another run"
    tasks.saved("shared", run_id="9", shared=True, index="0", identity=SHARED)
    assert tasks.found("eager", attempt=1, **rank) == "shared"
    assert tasks.found("eager", **rank) == "own of another run"
    assert tasks.found("eager", run_id="10", index="2", identity=SHARED) == "shared"
    assert tasks.found("Flow/9", run_id="10", **rank) == "shared"


def test_best_compares_what_is_shared_with_the_ranks_own(tasks: Tasks) -> None:
    rank = {"index": "1", "identity": SHARED}
    tasks.saved("own", run_id="8", metadata={"loss": 2}, **rank)
    tasks.saved("shared", run_id="8", metadata={"loss": 1}, shared=True, index="0", identity=SHARED)
    assert tasks.found("best:loss", **rank) == "shared"
    assert tasks.found("best:loss:max", **rank) == "own"
