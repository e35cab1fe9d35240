"""An attempt that was given up and is not quite dead cannot overtake its successor."""

from __future__ import annotations

from pathlib import Path

from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from sessions import Flow, begin_attempt


def flow_at(epoch: int) -> Flow:
    flow = Flow()
    vars(flow).update(epoch=epoch)
    return flow


def test_what_a_given_up_attempt_saves_late_is_not_the_newest(tmp_path: Path) -> None:
    first = begin_attempt(0, tmp_path, flow_at(1))
    CurrentCheckpoint(first).save("early")
    second = begin_attempt(1, tmp_path, flow_at(2))
    assert second.info is not None
    CurrentCheckpoint(first).save("late, the successor has begun")
    CurrentCheckpoint(second).save("successor")
    CurrentCheckpoint(first).save("later still")
    third = begin_attempt(2, tmp_path)
    assert third.info is not None
    assert third.info.name == "successor"
    for session in (first, second, third):
        session.close()
