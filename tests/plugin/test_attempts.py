"""An attempt that was given up and is not quite dead cannot overtake its successor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.options import DEFAULTS, parse_options
from metaflow_extensions.ckptstore.plugins.checkpoint.place import Place
from metaflow_extensions.ckptstore.plugins.checkpoint.scope import TaskIdentity


class Flow:
    """As much of a flow as the state of one needs."""

    _EPHEMERAL = ()
    _datastore = None
    name = "Flow"

    def _get_parameters(self) -> list[Any]:
        return []


def attempt(number: int, root: Path, **state: Any) -> CurrentCheckpoint:
    flow: Any = Flow()
    vars(flow).update(state)
    checkpoint = CurrentCheckpoint(
        flow,
        identity=TaskIdentity("Flow", "1", "train", "2", number, "user:ada", "_"),
        options=parse_options(DEFAULTS),
        place=Place(LocalStorage(str(root)), log=lambda message: None),
        log=lambda message: None,
    )
    checkpoint.find("fresh")
    return checkpoint


def test_what_a_given_up_attempt_saves_late_is_not_the_newest(tmp_path: Path) -> None:
    first = attempt(0, tmp_path, epoch=1)
    first.save("early")
    second = attempt(1, tmp_path, epoch=2)
    assert second.info is not None
    first.save("late, the successor has begun")
    second.save("successor")
    first.save("later still")
    third = attempt(2, tmp_path)
    assert third.info is not None
    assert third.info.name == "successor"
    for checkpoint in (first, second, third):
        checkpoint.close()
