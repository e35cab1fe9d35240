"""``keep``: which checkpoints of a step stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError
from metaflow_extensions.ckptstore.plugins.checkpoint.options import DEFAULTS, parse_options
from sessions import Flow, begin_attempt

from ckptstore import best, every, last


def step(root: Path, number: int = 0, **options: Any) -> tuple[Any, CurrentCheckpoint, Any]:
    flow: Any = Flow()
    flow.epoch = 0
    session = begin_attempt(number, root, flow, **options)
    return flow, CurrentCheckpoint(session), session


def names(checkpoint: CurrentCheckpoint) -> list[str]:
    return [artifact.name for artifact in checkpoint.list()]


@pytest.mark.parametrize("wait", [True, False])
def test_fifty_saves_leave_the_last_three(tmp_path: Path, wait: bool) -> None:
    flow, checkpoint, session = step(tmp_path, keep=last(3))
    for flow.epoch in range(50):
        checkpoint.save(str(flow.epoch), wait=wait)
    assert names(checkpoint) == ["49", "48", "47"]
    session.close()


def test_rules_combine_and_may_be_a_text(tmp_path: Path) -> None:
    policy = last(1) | best("loss", 2) | every(4)
    flow, checkpoint, session = step(tmp_path, keep=str(policy))
    for flow.epoch, loss in enumerate([5, 1, 4, 2, 3, 9]):
        checkpoint.save(str(flow.epoch), {"loss": loss})
    assert names(checkpoint) == ["5", "4", "3", "1", "0"]
    session.close()


def test_what_was_loaded_found_or_pinned_stays(tmp_path: Path) -> None:
    flow, checkpoint, session = step(tmp_path)
    for name in ("pinned", "loaded", "found"):
        checkpoint.save(name)
    checkpoint.pin(checkpoint.list("pinned")[0])
    loaded = checkpoint.list("loaded")[0]
    session.close()
    flow, checkpoint, session = step(tmp_path, 1, keep="last(1)")
    checkpoint.load(loaded)
    for flow.epoch in range(3):
        checkpoint.save(f"new {flow.epoch}")
    assert names(checkpoint) == ["new 2", "found", "loaded", "pinned"]
    session.close()


def test_a_retry_still_finds_its_start_after_many_that_it_never_starts_from(tmp_path: Path) -> None:
    flow, checkpoint, session = step(tmp_path, keep=last(2))
    checkpoint.save("start")
    for flow.epoch in range(5):
        checkpoint.save(f"aside {flow.epoch}", latest=False)
    session.close()
    _, checkpoint, session = step(tmp_path, 1)
    assert checkpoint.info is not None
    assert checkpoint.info.name == "start"
    session.close()


@pytest.mark.parametrize("keep", ["last(0)", "newest(3)", "", 3, ["last(3)"], "best()"], ids=str)
def test_a_policy_that_is_none_is_refused_before_the_run(keep: Any) -> None:
    with pytest.raises(CheckpointArgumentError, match="keep"):
        parse_options(DEFAULTS | {"keep": keep})
