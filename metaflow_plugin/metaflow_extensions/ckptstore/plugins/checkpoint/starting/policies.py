"""Load policies: how they are written, and where a task that has one looks for its start. No I/O here."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import ckptstore

from ..artifact import CheckpointArtifact, parse_key
from ..errors import CheckpointArgumentError
from ..scope import TaskIdentity

__all__ = [
    "Best",
    "Lookup",
    "OfKey",
    "OfRun",
    "OfTask",
    "Policy",
    "best_of",
    "newest_of",
    "parse_policy",
    "plan",
    "policy_text",
]

_FORMS = (
    "'fresh', 'eager', 'none' or None, 'best:<metric>' or 'best:<metric>:max' (default min), or what to start "
    "from: a checkpoint (its artifact, the artifact's dict or key), a Run or its pathspec 'Flow/run_id', "
    "a Task or its pathspec 'Flow/run_id/step/task_id'"
)
_KEY = re.compile(r".+/.+@[0-9a-f]{64}")
_PATHSPEC = re.compile(r"(?P<run>[^\W\d]\w*/[^/@\s]+)(/[^\W\d]\w*/[^/@\s]+)?")


@dataclass(frozen=True, slots=True)
class Best:
    """The one with the best number of this name in its metadata."""

    metric: str
    maximize: bool


@dataclass(frozen=True, slots=True)
class OfKey:
    """One checkpoint."""

    ref: ckptstore.CheckpointRef
    """Its store is not known: ``store_id`` says nothing."""


@dataclass(frozen=True, slots=True)
class OfRun:
    """The newest that a run saved for the same step and index."""

    flow: str
    run_id: str


@dataclass(frozen=True, slots=True)
class OfTask:
    """The newest that a task saved."""

    pathspec: str


Policy = Literal["fresh", "eager", "none"] | Best | OfKey | OfRun | OfTask


@dataclass(frozen=True, slots=True)
class Lookup:
    """One place to look for the newest: a line, and who must have written; ``what`` it is, for people."""

    collection: str
    run: str | None
    what: str


def policy_text(value: object) -> str:
    """Return the text that means the same as a ``load_policy``, whatever it was given as.

    Metaflow hands a decorator's arguments on as text. Raises
    CheckpointArgumentError for what is no policy.
    """
    if value is None:
        return "none"
    pathspec = getattr(value, "pathspec", None)
    if isinstance(value, (CheckpointArtifact, Mapping)):
        text = CheckpointArtifact.hydrate(value).key
    else:
        text = value if isinstance(value, str) else pathspec if isinstance(pathspec, str) else ""
    if not text:
        raise _wrong(value)
    parse_policy(text)
    return text


def parse_policy(text: str) -> Policy:
    """Return what a policy's text means. Raises CheckpointArgumentError."""
    if text in ("fresh", "eager", "none"):
        return text  # type: ignore[return-value]  # mypy does not narrow a str to the literals
    if text.startswith("best:"):
        _, metric, *rest = text.split(":")
        if not metric.strip() or rest not in ([], ["min"], ["max"]):
            raise _wrong(text)
        return Best(metric, maximize=rest == ["max"])
    if _KEY.fullmatch(text):
        return OfKey(parse_key(text, "0" * 32))
    found = _PATHSPEC.fullmatch(text)
    if found is None:
        raise _wrong(text)
    if found["run"] != text:
        return OfTask(text)
    flow, run_id = text.split("/")
    return OfRun(flow, run_id)


def plan(policy: Policy, identity: TaskIdentity) -> tuple[Lookup, ...]:
    """Return where an attempt looks for the newest, in this order, before anything else that its policy says.

    What a rank of a @parallel step saved goes before what was shared with it:
    two lines have no order in common, and clocks are not asked.
    """
    if policy == "none" or isinstance(policy, Best):
        return ()
    again = identity.attempt > 0
    earlier = _lookups(identity, identity.run, "earlier attempts of this task") if again else ()
    if policy == "eager":
        # Without the first two an old checkpoint of the rank would go before what this run shared.
        this_run = earlier if identity.shared_index is not None else ()
        return (*this_run, *_lookups(identity, None, "any run"))
    if identity.origin_run_id is None:
        return earlier
    return (*earlier, *origin_lookups(identity, identity.origin_run_id))


def origin_lookups(identity: TaskIdentity, run_id: str) -> tuple[Lookup, ...]:
    """Return where the task's predecessor is in a run that this one resumes."""
    return _lookups(identity, run_id, f"this task in run {run_id}, which is resumed")


def newest_of(checkpoints: Iterable[ckptstore.Checkpoint]) -> ckptstore.Checkpoint | None:
    """Return the first of a line that may be chosen: not one that was saved with ``latest=False``."""
    return next((one for one in checkpoints if _may_be_chosen(one)), None)


def best_of(checkpoints: Iterable[ckptstore.Checkpoint], best: Best) -> ckptstore.Checkpoint | None:
    """Return the best that may be chosen and has a number for the metric; of equals the first, the newest."""
    scored = [
        (score, checkpoint)
        for checkpoint in checkpoints
        if (_may_be_chosen(checkpoint) or _is_in_loop(checkpoint))
        and (score := _score(checkpoint.metadata.get(best.metric))) is not None
    ]
    choose = max if best.maximize else min
    return choose(scored, key=lambda pair: pair[0])[1] if scored else None


def _lookups(identity: TaskIdentity, run: str | None, who: str) -> tuple[Lookup, ...]:
    own = Lookup(identity.collection, run, f"{who} ({identity.collection})")
    shared = identity.shared_collection
    if shared is None:
        return (own,)
    return (own, Lookup(shared, run, f"what ranks shared there ({shared})"))


def _may_be_chosen(checkpoint: ckptstore.Checkpoint) -> bool:
    return checkpoint.attributes.get("latest") is True


def _is_in_loop(checkpoint: ckptstore.Checkpoint) -> bool:
    """Whether it was saved in the middle of an iteration: no start to go on from, but one to be asked for."""
    return checkpoint.attributes.get("in_loop") is True


def _score(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value):
        return None
    return value


def _wrong(value: object) -> CheckpointArgumentError:
    return CheckpointArgumentError(f"load_policy must be {_FORMS}; not {value!r}.")
