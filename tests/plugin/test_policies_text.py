"""What load_policy may be: every form is a text to Metaflow, and wrong ones are told with the right ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from metaflow.decorators import StepDecorator
from metaflow_extensions.ckptstore.plugins.checkpoint.artifact import CheckpointArtifact
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError
from metaflow_extensions.ckptstore.plugins.checkpoint.starting.policies import (
    Best,
    OfKey,
    OfRun,
    OfTask,
    parse_policy,
    policy_text,
)

NAME = f"{'f' * 20}~1~best~{'0' * 32}"
REF = {"store_id": "a" * 32, "collection": "Flow/train/user:ada@x.org/_", "name": NAME, "digest": "b" * 64}
VALUES: dict[str, Any] = {
    "name": "best",
    "pathspec": "Flow/1/train/2",
    "attempt": 0,
    "created_on": "2026-01-01T00:00:00+00:00",
    "size": 10,
    "stored_bytes": 9,
    "new_bytes": 8,
    "version_id": "1.0",
    "storage_format": "ckptstore-v1",
    "metadata": {},
    "store_url": "/data/mf.ckptstore",
    "ref": REF,
}
ARTIFACT = CheckpointArtifact.hydrate(VALUES)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("fresh", "fresh"),
        ("eager", "eager"),
        ("none", "none"),
        (None, "none"),
        ("best:val_loss", Best("val_loss", maximize=False)),
        ("best:val_loss:min", Best("val_loss", maximize=False)),
        ("best:accuracy:max", Best("accuracy", maximize=True)),
        ("Flow/12", OfRun("Flow", "12")),
        ("Flow/argo-flow-x7.z", OfRun("Flow", "argo-flow-x7.z")),
        ("Flow/12/train/3", OfTask("Flow/12/train/3")),
        (SimpleNamespace(pathspec="Flow/12"), OfRun("Flow", "12")),
        (SimpleNamespace(pathspec="Flow/12/train/3"), OfTask("Flow/12/train/3")),
    ],
    ids=str,
)
def test_every_form_is_a_text_that_means_it(given: object, meant: object) -> None:
    text = policy_text(given)
    assert type(text) is str
    assert parse_policy(text) == meant
    assert policy_text(text) == text


@pytest.mark.parametrize(
    "given", [ARTIFACT, ARTIFACT.to_dict(), ARTIFACT.key], ids=["artifact", "dict", "key"]
)
def test_a_checkpoint_is_its_key(given: Any) -> None:
    assert policy_text(given) == ARTIFACT.key
    meant = parse_policy(ARTIFACT.key)
    assert isinstance(meant, OfKey)
    assert (meant.ref.collection, meant.ref.name, meant.ref.digest) == tuple(REF.values())[1:]


@pytest.mark.parametrize("given", ["best:val_loss:max", "Flow/12/train/3", ARTIFACT.key, "none"])
def test_every_text_passes_the_command_line_that_metaflow_makes_of_it(given: str) -> None:
    spec = f"load_policy={given},background=True"
    _, taken_apart = StepDecorator.extract_args_kwargs_from_decorator_spec(spec)
    assert taken_apart == {"load_policy": given, "background": "True"}


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "latest",
        "Fresh",
        "best",
        "best:",
        "best: ",
        "best:loss:mean",
        "best:loss:max:1",
        "Flow",
        "Flow/",
        "Flow/12/train",
        "Flow/12/train/3/4",
        "1Flow/12",
        "Flow/1 2",
        f"train@{'b' * 64}",
        3,
        1.5,
        True,
        ["fresh"],
        SimpleNamespace(pathspec=None),
        SimpleNamespace(pathspec="Flow/12/train"),
    ],
    ids=str,
)
def test_what_is_no_policy_is_refused_with_all_forms(wrong: object) -> None:
    with pytest.raises(CheckpointArgumentError) as refused:
        policy_text(wrong)
    for form in ("'fresh'", "'eager'", "'none' or None", "'best:<metric>:max'", "artifact", "'Flow/run_id'"):
        assert form in str(refused.value)
    assert "'Flow/run_id/step/task_id'; not " in str(refused.value)


def test_a_dict_that_is_no_checkpoints_is_refused() -> None:
    with pytest.raises(CheckpointArgumentError, match="not the dict of a checkpoint"):
        policy_text({"key": "x"})
