"""The parts of the extension that need no flow."""

import pickle

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.artifact import CheckpointArtifact, parse_key
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import (
    CheckpointArgumentError,
    CheckpointException,
)
from metaflow_extensions.ckptstore.plugins.checkpoint.options import DEFAULTS, parse_options
from metaflow_extensions.ckptstore.plugins.checkpoint.scope import parse_pathspec

from ckptstore.errors import StoreMismatchError, StoreNotFoundError

NAME = f"{'f' * 20}~1=2f2~best~{'0' * 32}"
VALUES = {
    "name": "best",
    "pathspec": "Flow/1/train/2",
    "attempt": 0,
    "created_on": "2026-01-01T00:00:00+00:00",
    "size": 10,
    "stored_bytes": 9,
    "new_bytes": 8,
    "version_id": "1.0",
    "storage_format": "ckptstore-v1",
    "metadata": {"loss": 0.5},
    "store_url": "/data/mf.ckptstore",
    "ref": {"store_id": "a" * 32, "collection": "Flow/train/user:ada/_", "name": NAME, "digest": "b" * 64},
}


@pytest.mark.parametrize("task", ["", "Flow/1/train", "Flow/1/train/2/x", "Flow//train/2", 3, None])
def test_task_must_be_a_tasks_pathspec(task):
    with pytest.raises(CheckpointArgumentError, match="Flow/run_id/step/task_id"):
        parse_pathspec(task)


@pytest.mark.parametrize(("given", "meant"), [(True, True), ("True", True), ("false", False), (None, False)])
def test_flags_may_arrive_as_metaflow_writes_them(given, meant):
    assert parse_options(DEFAULTS | {"background": given}).background is meant


def test_artifact_survives_its_dict_and_a_pickle():
    artifact = CheckpointArtifact.hydrate(VALUES)
    assert CheckpointArtifact.hydrate(artifact.to_dict()) == pickle.loads(pickle.dumps(artifact)) == artifact
    assert CheckpointArtifact.hydrate(artifact) is artifact
    assert parse_key(artifact.key, "a" * 32) == artifact.ref
    assert len({artifact, CheckpointArtifact.hydrate(VALUES)}) == 1


def test_artifact_can_be_unpickled_where_metaflow_was_not_imported(run_command):
    pickled = pickle.dumps(CheckpointArtifact.hydrate(VALUES))
    ended = run_command("-c", f"import pickle; print(pickle.loads({pickled!r}).name)")
    assert ended.stdout == "best\n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempt": "0"},
        {"attempt": True},
        {"size": None},
        {"metadata": []},
        {"extra": 1},
        {"ref": {"store_id": "x"}},
        {"ref": VALUES["ref"] | {"name": "../x"}},
        {"ref": VALUES["ref"] | {"digest": "b"}},
    ],
    ids=str,
)
def test_a_dict_that_is_not_of_a_checkpoint_is_refused(wrong):
    with pytest.raises(CheckpointArgumentError):
        CheckpointArtifact.hydrate(VALUES | wrong)


@pytest.mark.parametrize("missing", VALUES)
def test_a_dict_with_a_part_missing_is_refused(missing):
    with pytest.raises(CheckpointArgumentError, match=missing):
        CheckpointArtifact.hydrate({name: value for name, value in VALUES.items() if name != missing})


@pytest.mark.parametrize("key", ["", "x", "a/b", "a/b@c", f"/{NAME}@{'b' * 64}", f"a/../{NAME}@{'b' * 64}"])
def test_a_text_that_is_not_a_key_is_refused(key):
    with pytest.raises(CheckpointArgumentError, match="not the key of a checkpoint"):
        parse_key(key, "a" * 32)


def test_the_manifest_of_an_artifact_whose_store_is_not_here_is_an_error():
    with pytest.raises((StoreMismatchError, StoreNotFoundError)):
        _ = CheckpointArtifact.hydrate(VALUES).implicit_manifest


def test_the_artifact_of_a_failed_save_stays_picklable_and_raises_where_it_is_used():
    def failing():
        raise OSError("disk full")

    artifact = CheckpointArtifact(
        {"name": "best", "pathspec": "Flow/1/train/2", "attempt": 0, "store_url": "/x"}, commit=failing
    )
    assert artifact.is_pending
    revived = pickle.loads(pickle.dumps(artifact))
    assert artifact.has_failed
    assert revived.has_failed
    with pytest.raises(CheckpointException, match="never saved: OSError: disk full"):
        _ = revived.size


def test_an_interrupted_wait_says_nothing_about_the_save():
    outcomes = [TimeoutError("the alarm"), OSError("disk full"), OSError("disk full")]
    ends = [False, True]

    def commit():
        raise outcomes.pop(0)

    artifact = CheckpointArtifact(
        {"name": "best", "pathspec": "Flow/1/train/2", "attempt": 0, "store_url": "/x"},
        commit=commit,
        ended=lambda: ends.pop(0),
    )
    with pytest.raises(TimeoutError, match="the alarm"):
        artifact.wait()
    assert artifact.is_pending
    assert not artifact.has_failed
    with pytest.raises(OSError, match="disk full"):
        artifact.wait()
    assert artifact.has_failed


def test_an_artifact_is_not_pickled_unsettled():
    def interrupted():
        raise TimeoutError("the alarm")

    artifact = CheckpointArtifact(
        {"name": "best", "store_url": "/x"}, commit=interrupted, ended=lambda: False
    )
    with pytest.raises(TimeoutError):
        pickle.dumps(artifact)
