"""Finds the object that makes a value unsaveable, and says where it is and what to do."""

from __future__ import annotations

import copyreg
import time
from collections.abc import Callable, Iterator, Sequence
from types import BuiltinFunctionType, FunctionType
from typing import Any

from ckptstore.errors import SaveError, UnserializableError
from ckptstore.serializers import _paths
from ckptstore.serializers._nodes import Node
from ckptstore.serializers.pickling import PROTOCOL, Unit, dump_unit

__all__ = [
    "copy_failed",
    "custom_failed",
    "cycle_through_custom",
    "device_failed",
    "never_settles",
    "pickle_failed",
]

_MAX_TRIALS = 2000
_MAX_SEARCH_S = 5.0
_ADVICE = (
    "keep it out of what is saved, drop it in __getstate__, or register the type with the store's registry"
)


def pickle_failed(
    roots: dict[str, Any], pickled: Sequence[Node], exc: Exception, outside: Callable[[Any], bool]
) -> UnserializableError:
    """Return the error for a pickle of some objects that failed with ``exc``.

    Looks for the deepest object that still fails on its own, within a bounded
    number of trials and time. ``outside`` tells what would not be part of the pickle.
    """
    best: tuple[Node, list[str], Any, Exception] | None = None
    for root in pickled:
        failure = _attempt(root.value, root.value, outside)
        if failure is not None:
            way, culprit, cause = _descend(root.value, failure, outside)
            best = (root, way, culprit, cause)
            break
    if best is None:
        best = (pickled[0], [], pickled[0].value, exc)
    node, way, culprit, cause = best
    field, before = _paths.find(roots, node)
    path = _paths.join(field, before + way)
    name = _type_name(culprit)
    if isinstance(cause, RecursionError):
        why = "it nests deeper than pickle can follow"
        advice = "keep it in lists and dicts, which may nest without limit, or raise the recursion limit"
    else:
        why = f"{type(cause).__name__}: {_short(cause)}"
        advice = _ADVICE
    return UnserializableError(
        f"field {field!r} cannot be saved: {path} is a {name} ({why}); {advice}",
        field=field,
        path=path,
        type_name=name,
    )


def custom_failed(roots: dict[str, Any], node: Node, name: str, exc: Exception) -> UnserializableError:
    """Return the error for a registered dump function that raised."""
    return _error(
        roots, node, f"the dump function registered as {name!r} raised {type(exc).__name__}: {_short(exc)}"
    )


def cycle_through_custom(roots: dict[str, Any], node: Node, name: str) -> UnserializableError:
    """Return the error for a registered object whose state leads back to it."""
    return _error(
        roots,
        node,
        f"the state that {name!r} dumps leads back to the object itself: leave that reference out",
    )


def never_settles(roots: dict[str, Any], unit: Unit) -> UnserializableError:
    """Return the error for an object that shares something else each time it is pickled."""
    return _error(roots, unit.roots[0], "each time it is pickled it shares other objects with its neighbours")


def copy_failed(roots: dict[str, Any], node: Node, space: str, exc: Exception) -> UnserializableError:
    """Return the error for a tensor that could not be copied from its device."""
    return _error(roots, node, f"it cannot be copied from {space}, {type(exc).__name__}: {_short(exc)}")


def device_failed(space: str, exc: Exception) -> SaveError:
    """Return the error for a device that does not do what it is told."""
    return SaveError(
        f"the tensors on {space} cannot be saved: {type(exc).__name__}: {_short(exc)}; some work before the save "
        "may have failed there, and a device that failed answers again in a new process only"
    )


def _error(roots: dict[str, Any], node: Node, why: str) -> UnserializableError:
    field, path = _paths.place(roots, node)
    name = _type_name(node.value)
    return UnserializableError(
        f"field {field!r} cannot be saved: {path} is a {name}: {why}", field=field, path=path, type_name=name
    )


def _type_name(value: Any) -> str:
    kind = type(value)
    if kind is FunctionType and "<lambda>" in value.__qualname__:
        return "lambda"
    return (
        kind.__qualname__
        if kind.__module__ in ("builtins", None)
        else f"{kind.__module__}.{kind.__qualname__}"
    )


def _short(exc: BaseException) -> str:
    text = str(exc)
    return text if len(text) <= 300 else text[:297] + "..."


def _attempt(value: Any, root: Any, outside: Callable[[Any], bool]) -> Exception | None:
    def persistent(obj: Any) -> int | None:
        return 0 if obj is not value and obj is not root and outside(obj) else None

    try:
        dump_unit(value, persistent, lambda buffer: None)
    except Exception as exc:  # noqa: BLE001 - the user's code
        return exc
    return None


def _descend(
    root: Any, failure: Exception, outside: Callable[[Any], bool]
) -> tuple[list[str], Any, Exception]:
    way: list[str] = []
    value = root
    seen: list[Any] = [root]
    seen_ids = {id(root)}
    trials = 0
    deadline = time.monotonic() + _MAX_SEARCH_S
    # Below something too deep everything is too deep: its start is all there is to say.
    while not isinstance(failure, RecursionError):
        for child, step in _children(value):
            if id(child) in seen_ids or outside(child):
                continue
            if trials >= _MAX_TRIALS or time.monotonic() > deadline:
                return way, value, failure
            trials += 1
            seen.append(child)
            seen_ids.add(id(child))
            inner = _attempt(child, root, outside)
            if inner is not None:
                way.append(step)
                value, failure = child, inner
                break
        else:
            break
    return way, value, failure


def _children(value: Any) -> Iterator[tuple[Any, str]]:
    """Yield what a pickle of ``value`` would hold, with the step that leads there."""
    kind = type(value)
    if kind in (list, tuple):
        for at, item in enumerate(value):
            yield item, f"[{at}]"
        return
    if kind in (set, frozenset):
        for at, item in enumerate(value):
            yield item, f"{{{at}}}"
        return
    if kind is dict:
        yield from _items(value.items())
        return
    if isinstance(value, type) or kind in (FunctionType, BuiltinFunctionType):
        return
    reduced = _reduce(value)
    if reduced is None:
        return
    state = reduced[2] if len(reduced) > 2 else None
    parts = state if type(state) is tuple and len(state) == 2 else (state,)
    for part in parts:
        if type(part) is dict:
            for name, item in part.items():
                yield item, f".{name}"
        elif part is not None:
            yield part, ".__getstate__()"
    if len(reduced) > 3 and reduced[3] is not None:
        for at, item in enumerate(reduced[3]):
            yield item, f"[{at}]"
    if len(reduced) > 4 and reduced[4] is not None:
        yield from _items(reduced[4])
    for at, item in enumerate(reduced[1] or ()):
        if item is not kind:
            yield item, f".__reduce__()[1][{at}]"
    if reduced[0] is not kind:
        yield reduced[0], ".__reduce__()[0]"


def _items(pairs: Any) -> Iterator[tuple[Any, str]]:
    for at, (key, item) in enumerate(pairs):
        yield key, f"<key {at}>"
        yield item, f"[{_paths.key_text(key, at)}]"


def _reduce(value: Any) -> tuple[Any, ...] | None:
    try:
        reducer = copyreg.dispatch_table.get(type(value))
        reduced: Any = reducer(value) if reducer is not None else value.__reduce_ex__(PROTOCOL)
    except Exception:  # noqa: BLE001 - this very call is what fails: the object itself is to blame
        return None
    return reduced if type(reduced) is tuple and 2 <= len(reduced) <= 6 else None
