"""An attempt of a task without a flow's run: the session that @checkpoint makes, on a flow of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.options import DEFAULTS, parse_options
from metaflow_extensions.ckptstore.plugins.checkpoint.scope import TaskIdentity
from metaflow_extensions.ckptstore.plugins.checkpoint.session import Session
from metaflow_extensions.ckptstore.plugins.checkpoint.storage.place import Place


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
    identity: Mapping[str, Any] | None = None,
    card: Any = None,
    **options: Any,
) -> Session:
    """Return the session of attempt ``number`` after its start; the store is below ``root``.

    ``identity``: whatever else its task differs in; ``card``: what writes its card.
    """
    task = {"flow": "Flow", "run_id": run_id, "step": "train", "task_id": "2", "scope": "user:ada"}
    session = Session(
        Flow() if flow is None else flow,
        identity=TaskIdentity(**task | {"attempt": number, "index": index} | dict(identity or {})),
        options=parse_options(DEFAULTS | options),
        place=Place(LocalStorage(str(root)), log=log),
        log=log,
        card=card,
    )
    session.find_start()
    return session


class Tasks:
    """Attempts of tasks in one store; each is closed at once, as a task's end does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.log: list[str] = []

    def saved(self, name: str, *, attempt: int = 0, shared: bool = False, **task: Any) -> Any:
        """Return the artifact of what an attempt saves that has looked for nothing."""
        details = {key: task.pop(key) for key in ("metadata", "latest") if key in task}
        flow = Flow()
        vars(flow).update(state=name)
        session = begin_attempt(attempt, self.root, flow, **{"load_policy": "none", **task})
        how = {"shared": True} if shared else {}
        artifact = CurrentCheckpoint(session).save(name, **details, **how)
        session.close()
        return artifact

    def found(self, load_policy: Any, *, attempt: int = 0, **task: Any) -> str | None:
        """Return the name of what an attempt finds at its start."""
        self.log.clear()
        session = begin_attempt(
            attempt, self.root, log=self.log.append, load_policy=load_policy, **{"run_id": "9", **task}
        )
        session.close()
        return None if session.info is None else session.info.name
