"""An attempt of a task without a flow's run: the session that @checkpoint makes, on a flow of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint.options import DEFAULTS, parse_options
from metaflow_extensions.ckptstore.plugins.checkpoint.place import Place
from metaflow_extensions.ckptstore.plugins.checkpoint.scope import TaskIdentity
from metaflow_extensions.ckptstore.plugins.checkpoint.session import Session


class Flow:
    """As much of a flow as the state of one needs."""

    _EPHEMERAL = ()
    _datastore = None
    name = "Flow"

    def _get_parameters(self) -> list[Any]:
        return []


def begin_attempt(
    number: int,
    root: Path,
    flow: Any = None,
    *,
    log: Any = lambda message: None,
    run_id: str = "1",
    index: str = "_",
    **options: Any,
) -> Session:
    """Return the session of attempt ``number`` after its start; the store is below ``root``."""
    session = Session(
        Flow() if flow is None else flow,
        identity=TaskIdentity("Flow", run_id, "train", "2", number, "user:ada", index),
        options=parse_options(DEFAULTS | options),
        place=Place(LocalStorage(str(root)), log=log),
        log=log,
    )
    session.find_start()
    return session
