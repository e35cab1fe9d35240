"""What a step does with checkpoints that are there: parts of them, deleting, pinning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import (
    CheckpointArgumentError,
    CheckpointException,
)
from sessions import Flow, begin_attempt

from ckptstore.errors import CheckpointDeletedError


@pytest.fixture
def flow() -> Any:
    flow = Flow()
    vars(flow).update(epoch=1, weights=np.arange(4.0))
    return flow


@pytest.fixture
def checkpoint(tmp_path: Path, flow: Any) -> Iterator[CurrentCheckpoint]:
    session = begin_attempt(0, tmp_path, flow)
    yield CurrentCheckpoint(session)
    session.close()


def test_load_of_fields_leaves_the_other_attributes_alone(checkpoint: CurrentCheckpoint, flow: Any) -> None:
    saved = checkpoint.save()
    flow.epoch, flow.weights = 2, None
    checkpoint.load(saved, fields=["weights"])
    assert flow.epoch == 2
    assert flow.weights.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_field_that_is_not_there_is_named_and_nothing_is_set(
    checkpoint: CurrentCheckpoint, flow: Any
) -> None:
    saved = checkpoint.save()
    flow.epoch = 2
    with pytest.raises(CheckpointException, match=r"holds no 'model'; it holds epoch, weights"):
        checkpoint.load(saved, fields=["epoch", "model"])
    assert flow.epoch == 2


@pytest.mark.parametrize("fields", ["epoch", [1], []], ids=str)
def test_fields_must_be_names(checkpoint: CurrentCheckpoint, fields: Any) -> None:
    with pytest.raises(CheckpointArgumentError, match="list of attribute names"):
        checkpoint.load(checkpoint.save(), fields=fields)


def test_a_deleted_checkpoint_is_gone_until_it_is_undeleted(checkpoint: CurrentCheckpoint) -> None:
    kept, gone = checkpoint.save("kept"), checkpoint.save("gone", wait=False)
    checkpoint.delete(gone)
    assert [artifact.name for artifact in checkpoint.list()] == ["kept"]
    with pytest.raises(CheckpointDeletedError):
        checkpoint.load(gone.key)
    checkpoint.undelete(gone.to_dict())
    assert checkpoint.list() == [gone, kept]


def test_delete_of_one_name_leaves_names_that_begin_alike(checkpoint: CurrentCheckpoint) -> None:
    saved = [checkpoint.save(f"name.{number}") for number in (1, 10, 19)]
    checkpoint.delete(saved[0])
    assert [artifact.name for artifact in checkpoint.list()] == ["name.19", "name.10"]


def test_diff_tells_what_changed_of_which_attribute(checkpoint: CurrentCheckpoint, flow: Any) -> None:
    older = checkpoint.save()
    flow.weights[2] = 7
    flow.extra = "new"
    newer = checkpoint.save()
    states = {name: field.state for name, field in checkpoint.diff(older.key, newer.to_dict()).fields.items()}
    assert states == {"epoch": "same", "weights": "changed", "extra": "added"}


def test_the_formats_of_metaflow_checkpoint_are_accepted_and_told_of(tmp_path: Path, flow: Any) -> None:
    lines: list[str] = []
    session = begin_attempt(0, tmp_path, flow, log=lines.append)
    saved = CurrentCheckpoint(session).save("best", {}, True, "tar")
    assert saved.storage_format == "ckptstore-v1"
    assert any("storage_format='tar'" in line and "one format, ckptstore-v1" in line for line in lines)
    with pytest.raises(CheckpointArgumentError, match="storage_format must be left out"):
        CurrentCheckpoint(session).save(storage_format="zip")
    session.close()


def test_a_flow_is_not_warned_of_pickles_that_it_trusts_anyway(
    checkpoint: CurrentCheckpoint, flow: Any, caplog: pytest.LogCaptureFixture
) -> None:
    flow.path_of_a_class = Path("x"), Flow
    flow.made = Flow()
    checkpoint.load(checkpoint.save())
    assert not caplog.records
