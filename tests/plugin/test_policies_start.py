"""Where an attempt finds its start, by the policy and by what was saved before."""

from __future__ import annotations

from pathlib import Path

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointException
from sessions import Tasks, begin_attempt

from ckptstore.errors import CheckpointStoreError


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    return Tasks(tmp_path)


def test_fresh_finds_the_newest_of_this_tasks_earlier_attempts_and_nothing_else(tasks: Tasks) -> None:
    tasks.saved("of another run", run_id="8")
    tasks.saved("of another branch", run_id="9", index="1")
    assert tasks.found("fresh") is None
    assert tasks.log == []
    assert tasks.found("fresh", attempt=1) is None
    assert tasks.log == [
        "found no checkpoint; looked for earlier attempts of this task (Flow/train/user:ada/_)"
    ]
    tasks.saved("first", run_id="9")
    tasks.saved("second", run_id="9", attempt=1)
    tasks.saved("aside", run_id="9", attempt=1, latest=False)
    assert tasks.found("fresh", attempt=2) == "second"
    assert "the newest of earlier attempts of this task" in tasks.log[0]


def test_fresh_finds_what_the_run_that_is_resumed_saved_for_this_very_task(tasks: Tasks) -> None:
    tasks.saved("origin's", run_id="8")
    tasks.saved("origin's other branch", run_id="8", index="1")
    tasks.saved("newer, of a run that is not resumed", run_id="7")
    resumed = {"identity": {"origin_run_id": "8"}}
    assert tasks.found("fresh", **resumed) == "origin's"
    assert "this task in run 8, which is resumed" in tasks.log[0]
    assert tasks.found("fresh", attempt=1, **resumed) == "origin's"
    tasks.saved("own", run_id="9")
    assert tasks.found("fresh", attempt=1, **resumed) == "own"


def test_eager_finds_the_newest_of_any_run_in_the_scope(tasks: Tasks) -> None:
    assert tasks.found("eager") is None
    assert "looked for any run (Flow/train/user:ada/_)" in tasks.log[0]
    tasks.saved("older", run_id="7")
    tasks.saved("newer", run_id="8")
    tasks.saved("aside", run_id="8", latest=False)
    tasks.saved("elsewhere", run_id="8", identity={"scope": "user:bob"})
    assert tasks.found("eager") == "newer"


@pytest.mark.parametrize("policy", ["none", None])
def test_none_finds_nothing(tasks: Tasks, policy: str | None) -> None:
    tasks.saved("own", run_id="9")
    assert tasks.found(policy, attempt=1) is None
    assert tasks.log == []


def test_best_finds_the_best_number_of_any_run(tasks: Tasks) -> None:
    tasks.saved("middle", run_id="6", metadata={"loss": 2})
    tasks.saved("smallest", run_id="7", metadata={"loss": 1.5})
    tasks.saved("largest", run_id="8", metadata={"loss": 30.0})
    tasks.saved("aside", run_id="8", metadata={"loss": 0.5}, latest=False)
    assert tasks.found("best:loss") == tasks.found("best:loss:min", attempt=1) == "smallest"
    assert "the smallest 'loss' of any run (Flow/train/user:ada/_): 1.5" in tasks.log[0]
    assert tasks.found("best:loss:max") == "largest"
    assert tasks.found("best:loss", index="1") is None
    assert "one with a number for 'loss' in Flow/train/user:ada/1" in tasks.log[0]


def test_best_never_takes_what_has_no_number_and_of_equals_the_newest(tasks: Tasks) -> None:
    for loss in (float("nan"), None, "0", True, [0]):
        tasks.saved("no number", metadata={"loss": loss})
    tasks.saved("no metadata")
    assert tasks.found("best:loss") is tasks.found("best:loss:max") is None
    tasks.saved("equal", metadata={"loss": 3})
    tasks.saved("equal and newer", metadata={"loss": 3.0})
    tasks.saved("nan, newest", metadata={"loss": float("nan")})
    assert tasks.found("best:loss") == tasks.found("best:loss:max") == "equal and newer"


def test_a_given_checkpoint_is_found_in_any_scope_and_though_saved_aside(tasks: Tasks) -> None:
    given = tasks.saved("given", run_id="5", index="3", identity={"scope": "user:bob"}, latest=False)
    tasks.saved("newer", run_id="8")
    for reference in (given, given.to_dict(), given.key):
        assert tasks.found(reference) == "given"
    assert f"which load_policy names ({given.key})" in tasks.log[0]


def test_an_earlier_attempt_goes_before_what_is_given_on_a_resume_too(tasks: Tasks) -> None:
    given = tasks.saved("given", run_id="5", index="3")
    assert tasks.found(given.key, attempt=1) == "given"
    tasks.saved("of the run resumed", run_id="8")
    assert tasks.found(given.key) == "given"
    assert tasks.found(given.key, identity={"origin_run_id": "8"}) == "of the run resumed"
    tasks.saved("own", run_id="9")
    assert tasks.found(given.key, attempt=1) == "own"


def test_a_given_run_stands_for_its_newest_of_this_step_and_branch(tasks: Tasks) -> None:
    tasks.saved("old", run_id="5")
    tasks.saved("newest", run_id="5")
    tasks.saved("aside", run_id="5", latest=False)
    tasks.saved("other branch", run_id="5", index="1")
    tasks.saved("other run", run_id="6")
    assert tasks.found("Flow/5") == "newest"
    assert tasks.found("Flow/5/train/2") == "newest"


def test_a_run_of_another_flow_may_be_given(tasks: Tasks) -> None:
    tasks.saved("theirs", run_id="5", identity={"flow": "Other"})
    assert tasks.found("Other/5") == "theirs"
    assert "Other/5/train/2, attempt 0" in tasks.log[0]


def test_what_is_given_and_not_there_fails_the_task(tasks: Tasks) -> None:
    given = tasks.saved("given", run_id="5")
    with pytest.raises(
        CheckpointException, match=r"names run Flow/404, which saved no checkpoint for step 'train'"
    ):
        tasks.found("Flow/404")
    with pytest.raises(CheckpointException, match="names task Flow/5/train/77, which saved no checkpoint"):
        tasks.found("Flow/5/train/77")
    with pytest.raises(CheckpointException, match="cannot be had: it is neither in"):
        tasks.found(given.key.replace(given.ref.name, given.ref.name[:-4] + "0000"))
    session = begin_attempt(0, tasks.root, load_policy="none")
    CurrentCheckpoint(session).delete(given)
    session.close()
    with pytest.raises(CheckpointException, match="it was deleted"):
        tasks.found(given.key)


def test_a_key_whose_content_is_not_what_it_pins_fails_the_task(tasks: Tasks) -> None:
    key = tasks.saved("given").key
    other = key[:-1] + ("0" if key[-1] != "0" else "1")
    with pytest.raises(CheckpointStoreError):
        tasks.found(other)


@pytest.mark.parametrize("policy", ["fresh", "eager", "best:loss"])
def test_a_damaged_newest_checkpoint_raises_and_never_means_a_start_from_nothing(
    tasks: Tasks, policy: str
) -> None:
    tasks.saved("older", run_id="9", metadata={"loss": 1})
    newest = tasks.saved("newest", run_id="9", metadata={"loss": 1})
    (manifest,) = tasks.root.rglob(newest.ref.name)
    manifest.write_bytes(manifest.read_bytes()[:-40])
    data = bytearray(manifest.read_bytes())
    data[60] ^= 0xFF
    manifest.write_bytes(data)
    with pytest.raises(CheckpointStoreError, match="newest"):
        tasks.found(policy, attempt=1)
    assert tasks.found("none", attempt=1) is None


@pytest.fixture
def no_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks Metaflow's client fails."""

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("the metadata service is down")

    monkeypatch.setattr("metaflow.client.core.MetaflowObject.__init__", fail)


@pytest.mark.usefixtures("no_client")
def test_the_client_is_not_asked_at_a_tasks_start(tasks: Tasks) -> None:
    given = tasks.saved("given", run_id="5", metadata={"loss": 1})
    for policy in ("eager", "best:loss", given.key, "Flow/5"):
        assert tasks.found(policy) == "given"
    tasks.saved("own", run_id="9")
    assert tasks.found("fresh", attempt=1) == "own"
    assert tasks.found("fresh", attempt=1, identity={"origin_run_id": "8"}) == "own"
    assert tasks.found("fresh", index="4") is None


@pytest.mark.usefixtures("no_client")
def test_what_the_client_cannot_tell_of_a_run_that_is_resumed_is_logged_and_no_failure(tasks: Tasks) -> None:
    assert tasks.found("fresh", identity={"origin_run_id": "8"}) is None
    assert tasks.log == [
        "cannot tell more of run 8, which is resumed: RuntimeError: the metadata service is down",
        "found no checkpoint; looked for this task in run 8, which is resumed (Flow/train/user:ada/_)",
    ]
