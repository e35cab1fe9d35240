"""The state of a flow: which attributes of ``self`` a checkpoint holds, and how they come back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, MethodType
from typing import Any

from metaflow.flowspec import INTERNAL_ARTIFACTS_SET, FlowSpec
from metaflow.parameters import Parameter

from .errors import CheckpointArgumentError, CheckpointException
from .sizing import array_bytes

__all__ = ["FlowState", "refuse_fixed_names"]

# What Metaflow itself keeps on a flow while a step runs; `_EPHEMERAL` and
# INTERNAL_ARTIFACTS_SET name only a part of it.
_INTERNAL = frozenset(INTERNAL_ARTIFACTS_SET) | {
    "_catch_exception",
    "_configs_processed",
    "_current_step",
    "_exception",
    "_foreach_num_splits",
    "_foreach_stack",
    "_foreach_var",
    "_graph_info",
    "_iteration_stack",
    "_success",
    "_task_ok",
    "_transition",
    "name",
}


class FlowState:
    """The attributes of one flow object, within ``include`` or without ``exclude``.

    State is what Metaflow would persist at the step's end: what is set on
    ``self`` and the artifacts of the step's input, touched or not, without
    functions and methods, properties (parameters and class constants are such)
    and Metaflow's own bookkeeping. A module, a class or a partial is state.
    """

    def __init__(
        self,
        flow: FlowSpec,
        *,
        include: Iterable[str] | None,
        exclude: Iterable[str],
        warn: Callable[[str], None],
    ) -> None:
        self._flow: Any = flow  # most of what a flow has is untyped
        self._include = None if include is None else frozenset(include)
        self._exclude = frozenset(exclude)
        self._warn = warn
        self._inherited: dict[str, Any] = {}
        self._unreadable: set[str] = set()

    def collect(self, *, may_be_none: bool = False) -> dict[str, Any]:
        """Return the values by name, the objects themselves.

        An inherited artifact that the step never touched is read once and kept
        here, not on the flow, where Metaflow would persist it anew. Raises
        CheckpointException if a name of ``include`` is not set, or nothing is
        (unless there ``may_be_none``: files are saved).
        """
        own = self._own()
        for name in own:
            self._inherited.pop(name, None)
        values = own | {
            name: self._inherited[name] for name in self._inherited_names(own) if self._read(name)
        }
        if self._include is not None:
            self._require_included(values)
        if not values and not may_be_none:
            raise CheckpointException(
                "there is nothing to save: no attribute is set on self. Set the state that the step needs to "
                "go on, such as self.epoch and self.model, before current.checkpoint.save(), or write "
                "files to current.checkpoint.directory."
            )
        return values

    def array_bytes(self) -> int:
        """Return about how many bytes of arrays and tensors are set on the flow. Reads no artifact."""
        return array_bytes(self._own().values())

    def check_restorable(self, names: Iterable[str]) -> None:
        """Raise CheckpointException, naming them, if fields of these names cannot be set on the flow."""
        fixed = {name: why for name in names if (why := _why_fixed(self._flow, name))}
        if fixed:
            listed = "; ".join(f"self.{name} is {why}" for name, why in sorted(fixed.items()))
            raise CheckpointException(
                f"the checkpoint cannot be restored onto {self._flow.name}, nothing was changed: {listed}."
            )

    def restore(self, values: Mapping[str, Any]) -> None:
        """Set all values on the flow, or none: what could fail is checked before the first is set."""
        self.check_restorable(values)
        self._inherited = {name: kept for name, kept in self._inherited.items() if name not in values}
        vars(self._flow).update(values)

    def _own(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self._flow).items() if self._is_state(name, value)}

    def _wanted(self, name: str) -> bool:
        if name.startswith("__") or name in _INTERNAL or name in self._flow._EPHEMERAL:
            return False
        if self._include is not None:
            return name in self._include
        return name not in self._exclude

    def _is_state(self, name: str, value: object) -> bool:
        return self._wanted(name) and not isinstance(value, (FunctionType, MethodType, Parameter))

    def _inherited_names(self, own: Mapping[str, Any]) -> list[str]:
        datastore = self._flow._datastore
        names = [name for name, _ in datastore.items()] if datastore else []
        cls = type(self._flow)
        return [
            name
            for name in names
            if self._wanted(name)
            and name not in own
            and name not in vars(self._flow)
            # What the class has hides the artifact from the step: parameters, constants, methods.
            and not hasattr(cls, name)
        ]

    def _read(self, name: str) -> bool:
        """Read an inherited artifact; an unreadable one that nobody named is left out, once told."""
        if name in self._inherited:
            return True
        if name in self._unreadable:
            return False
        try:
            value = self._flow._datastore[name]
        except Exception as error:  # unpickling runs foreign code, which may raise anything
            problem = f"self.{name}, inherited and not touched here, cannot be read: {error!r}"
            if self._include is not None:
                raise CheckpointException(f"include names it, but {problem}.") from error
            self._unreadable.add(name)
            self._warn(f"not saved: {problem}")
            return False
        if isinstance(value, (FunctionType, MethodType)):
            self._unreadable.add(name)
            return False
        self._inherited[name] = value
        return True

    def _require_included(self, values: Mapping[str, Any]) -> None:
        missing = sorted((self._include or frozenset()) - set(values))
        functions = [name for name in missing if name in vars(self._flow)]
        if functions:
            raise CheckpointException(
                f"include names what is a function, which is code and not state: {', '.join(functions)}. "
                "Metaflow does not keep it as an artifact either."
            )
        if missing:
            raise CheckpointException(
                f"include names attributes that are not set on self: {', '.join(missing)}. "
                "Set them before current.checkpoint.save()."
            )


def refuse_fixed_names(flow: FlowSpec, include: Iterable[str]) -> None:
    """Raise CheckpointArgumentError if ``include`` names what no step can change or save."""
    fixed = {name: why for name in include if (why := _why_fixed(flow, name))}
    if fixed:
        listed = "; ".join(f"{name!r} is {why}" for name, why in sorted(fixed.items()))
        raise CheckpointArgumentError(
            f"include names what is no state of the step: {listed}. "
            "It is the same in every attempt, so there is nothing to save; take it out of include."
        )


def _why_fixed(flow: Any, name: str) -> str | None:
    """Tell why an attribute of this name cannot hold state on this flow, or None."""
    if name in {variable for variable, _ in flow._get_parameters()}:
        return "a parameter"
    if name.startswith("__") or name in _INTERNAL or name in flow._EPHEMERAL:
        return "Metaflow's own"
    if not hasattr(type(flow), name):
        return None
    found = getattr(type(flow), name)
    if isinstance(found, property) or hasattr(type(found), "__set__"):
        return "a read-only constant or property of the flow's class"
    if isinstance(found, FunctionType):
        return "a step" if hasattr(found, "is_step") else "a method"
    # Metaflow makes public ones read-only when a task starts, a private one is a default.
    return None if name.startswith("_") else "a constant of the flow's class"
