"""What a checkpoint holds beside what the caller has: which array goes where, and what does not fit."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ckptstore._sides import Found, Side, kind_of
from ckptstore.errors import DestinationError
from ckptstore.serializers import LeafSpec, destination, step_text

__all__ = ["Match", "Pair", "refuse"]

_MAX_DEPTH = 200
_SHOWN = 20
_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes})


class Pair(NamedTuple):
    """An array or tensor of the caller's, and what of the checkpoint's ``field`` goes there."""

    field: str
    place: str
    destination: Any
    source: Any


class Match:
    """The matching of what the caller gave with the fields of a checkpoint.

    ``pairs`` are the arrays and tensors; ``slots`` are container, key and what
    shall stand there. Of the checkpoint's values, ``filled`` are the containers
    and modules that those of the caller's stand for, and ``others`` what comes
    as new objects.
    """

    def __init__(self, side: Side) -> None:
        self.pairs: list[Pair] = []
        self.slots: list[tuple[Any, Any, Any]] = []
        self.others: list[Any] = []
        self.filled: list[Any] = []
        self.problems: list[str] = []
        self._side = side
        self._field = ""
        # The objects themselves are kept, so that no others have their ids.
        self._met: dict[int, tuple[Any, object]] = {}
        self._tuples: dict[tuple[int, object], Any] = {}

    def run(self, field: str, target: Any, source: Any) -> Any:
        """Match what the caller gave for a field; return what stands for it afterwards."""
        self._field = field
        if not (destination.leaf_of(target) or destination.is_module(target) or kind_of(target)):
            if _is_optimizer(target):
                return self._at("", target, source, 0)
            self._problem("", f"nothing can be loaded into this ({_type(target)}): leave it out of into")
            return target
        return self._at("", target, source, 0)

    def _problem(self, path: str, what: str) -> None:
        self.problems.append(f"{self._place(path)}: {what}")

    def _place(self, path: str) -> str:
        return f"field {self._field!r}" + (f" at {path!r}" if path else "")

    def _at(self, path: str, target: Any, source: Any, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            self._problem(path, f"more than {_MAX_DEPTH} levels deep")
            return target
        if _is_optimizer(target):
            self._problem(
                path,
                "an optimizer cannot be loaded into: load its saved state_dict() without into, and give that to its "
                "load_state_dict()",
            )
            return target
        found = self._side.look(source)
        if destination.is_module(target):
            if self._is_new(path, target, source):
                self._module(path, target, source, found)
            return target
        leaf = destination.leaf_of(target)
        if leaf is not None or found.leaf is not None:
            self._leaf(path, target, source, leaf, found)
            return target
        kind = kind_of(target)
        if kind != found.kind:
            self._problem(path, f"{_type(target)} here, {_shown(found)} in the checkpoint")
            return target
        if not kind:
            self.others.append(source)
            return target if _is_same(target, source) else source
        if kind == "tuple":
            key = (id(target), self._side.identity(source))
            if key not in self._tuples:
                self._tuples[key] = self._tuple(path, target, found, depth)
            return self._tuples[key]
        if self._is_new(path, target, source):
            self._inside(path, target, found, depth)
        return target

    def _is_new(self, path: str, target: Any, source: Any) -> bool:
        identity = self._side.identity(source)
        known = self._met.get(id(target))
        if known is None:
            self._met[id(target)] = (target, identity)
            self.filled.append(source)
        elif known[1] != identity:
            self._problem(
                path, "the same object stands elsewhere too, and the checkpoint has another one here"
            )
        return known is None

    def _tuple(self, path: str, target: tuple[Any, ...], found: Found, depth: int) -> Any:
        if len(target) != len(found.entries):
            self._problem(path, f"{len(target)} elements here, {len(found.entries)} in the checkpoint")
            return target
        made = tuple(
            self._at(path + step_text(at, at), inner, found.entries[at], depth + 1)
            for at, inner in enumerate(target)
        )
        return target if all(map(_is, made, target)) else made

    def _inside(self, path: str, target: Any, found: Found, depth: int) -> None:
        if isinstance(target, list):
            if len(target) != len(found.entries):
                self._problem(path, f"{len(target)} elements here, {len(found.entries)} in the checkpoint")
                return
            items = enumerate(target)
        else:
            missing = [key for key in found.entries if key not in target]
            surplus = [] if found.partly else [key for key in target if key not in found.entries]
            self._names(path, "key", missing, surplus)
            items = ((key, value) for key, value in target.items() if key in found.entries)  # type: ignore[assignment]
        for at, (key, inner) in enumerate(items):
            stands = self._at(path + step_text(key, at), inner, found.entries[key], depth + 1)
            if stands is not inner:
                self.slots.append((target, key, stands))

    def _names(self, path: str, what: str, missing: list[Any], surplus: list[Any]) -> None:
        if missing:
            self._problem(path, f"no {what} {_some(missing)} here, and there is in the checkpoint")
        if surplus:
            self._problem(path, f"no {what} {_some(surplus)} in the checkpoint, and there is here")

    def _module(self, path: str, module: Any, source: Any, found: Found) -> None:
        saved = self._side.tensors(self._field, source, path)
        if saved is None and found.kind != "dict":
            self._problem(path, f"{_type(module)} here, {_shown(found)} in the checkpoint")
            return
        own = destination.tensors_of(module, persistent=saved is None)
        known = found.entries if saved is None else saved
        assert isinstance(known, Mapping)
        if saved is None or self._side.exact:
            missing = [name for name in known if name not in own]
            surplus = [name for name in own if name not in known]
            self._names(path, "parameter or buffer", missing, surplus)
        for name, tensor in own.items():
            if name in known:
                at = f"{path}.{name}" if path else name
                source_of = self._side.look(known[name])
                self._leaf(at, tensor, known[name], destination.leaf_of(tensor), source_of)

    def _leaf(self, path: str, target: Any, source: Any, leaf: LeafSpec | None, found: Found) -> None:
        saved = found.leaf
        if leaf is None or saved is None:
            mine = _type(target) if leaf is None else _leaf_text(leaf)
            self._problem(path, f"{mine} here, {_shown(found)} in the checkpoint")
        elif leaf[:3] != saved[:3]:
            self._problem(path, f"{_leaf_text(leaf)} here, {_shown(found)} in the checkpoint")
        elif why := destination.refusal(target):
            self._problem(path, why)
        else:
            self.pairs.append(Pair(self._field, self._place(path), target, source))


def refuse(problems: Sequence[str], checkpoint: object, *, changed: bool = False) -> None:
    """Raise DestinationError if there are problems; ``changed``: the arrays that were given have been written to."""
    if not problems:
        return
    found = list(dict.fromkeys(problems))
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    lines = "".join(f"\n  {line}" for line in [*found[:_SHOWN], *more])
    raise DestinationError(
        f"what is to be loaded into does not fit checkpoint {checkpoint}, and "
        f"{'its arrays are undefined now' if changed else 'nothing was changed'}: make it fit, or load new values "
        f"(without into){lines}"
    )


def _is(a: object, b: object) -> bool:
    return a is b


def _is_same(target: Any, source: Any) -> bool:
    """Tell whether plain values are the same, so that what holds them can stay as it is."""
    kind = type(target)
    if kind is not type(source) or kind not in _PLAIN:
        return False
    return repr(target) == repr(source) if kind in (float, complex) else bool(target == source)


def _type(value: Any) -> str:
    return type(value).__name__


def _is_optimizer(value: Any) -> bool:
    optim = getattr(sys.modules.get("torch"), "optim", None)
    return optim is not None and isinstance(value, optim.Optimizer)


def _leaf_text(leaf: LeafSpec) -> str:
    return f"{leaf.kind} {leaf.dtype} {leaf.shape}"


def _shown(found: Found) -> str:
    return _leaf_text(found.leaf) if found.leaf is not None else found.kind or "neither array nor container"


def _some(names: Sequence[Any]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"{name!r:.60}" for name in names[:5]) + more
