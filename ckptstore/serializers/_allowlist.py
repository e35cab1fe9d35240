"""The names that a load without trust may use: a fixed list, and the classes that the program allows."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from ckptstore.errors import ConfigError
from ckptstore.serializers import _safe_numpy, _safe_stdlib, _safe_torch
from ckptstore.serializers._rules import Maker, Rule

__all__ = ["Allowlist", "names_to_trust"]

_NAMES: dict[tuple[str, str], Maker] = {**_safe_stdlib.NAMES, **_safe_numpy.NAMES, **_safe_torch.NAMES}
_DOTTED = frozenset(f"{module}.{name}" for module, name in _NAMES)


class Allowlist:
    """Exact names and what may be done with each; one for every store."""

    def __init__(self) -> None:
        self._users: dict[tuple[str, str], Rule] = {}
        self._found: dict[tuple[str, str], Rule] = {}

    def allow(self, cls: type[Any]) -> None:
        """Let loads restore objects of exactly this class, through its own ``__new__``, ``__reduce__`` and so on.

        Raises ConfigError for what is no class, or one that pickle could not name.
        """
        if not isinstance(cls, type):
            raise ConfigError(f"allow takes a class, not {type(cls).__name__}")
        module, name = cls.__module__, cls.__qualname__
        if type(module) is not str or type(name) is not str or "<locals>" in name:
            raise ConfigError(
                f"{cls.__qualname__!r:.200} is made inside a function: a checkpoint cannot name it"
            )
        if issubclass(cls, type) or (module == "builtins" and (module, name) not in _NAMES):
            raise ConfigError(
                f"{module}.{name} makes more than objects that hold data, and cannot be allowed"
            )
        if (module, name) in _NAMES:
            return
        if _found_under(module, name) is not cls:
            raise ConfigError(f"{module}.{name} is another class than the one that was given: allow that one")
        self._users[module, name] = _users_rule(cls)

    @staticmethod
    def names() -> list[tuple[str, str]]:
        """Return the fixed list, as pairs of module and qualified name."""
        return sorted(_NAMES)

    def knows(self, module: str, name: str) -> bool:
        """Tell whether a name is on the list. Imports nothing."""
        return (module, name) in self._users or (module, name) in _NAMES

    def knows_dotted(self, name: str) -> bool:
        """Tell whether a name, module and qualified name in one, is that of a class that the program allowed."""
        return any(name == rule.name for rule in self._users.values())

    def find(self, module: str, name: str) -> Rule | None:
        """Return the rule of a name, None if it is not on the list.

        It imports the module of a name that is. Raises CheckpointStoreError if that cannot be done.
        """
        key = (module, name)
        rule = self._users.get(key) or self._found.get(key)
        if rule is None:
            maker = _NAMES.get(key)
            if maker is None:
                return None
            rule = self._found[key] = maker(module, name)
        return rule


def names_to_trust(names: Iterable[str]) -> tuple[str, ...]:
    """Return those of some dotted names that are not on the fixed list."""
    given = set(names)
    known = _DOTTED if "zoneinfo.ZoneInfo" in given else _DOTTED - {"builtins.getattr"}
    return tuple(sorted(given - known))


def _found_under(module: str, qualname: str) -> Any:
    # It is the program's own class that is looked for, so its outer classes may be walked.
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _users_rule(cls: Any) -> Rule:
    def new(*args: Any, **kwargs: Any) -> Any:
        return cls.__new__(cls, *args, **kwargs)

    return Rule(
        f"{cls.__module__}.{cls.__qualname__}",
        value=cls,
        call=cls,
        new=new,
        build=_build,
        extend=_extend(cls),
        put=_put,
        kind=cls,
        users=True,
    )


def _build(obj: Any, state: Any) -> None:
    """Give an object its state as pickle does."""
    setstate = getattr(obj, "__setstate__", None)
    if setstate is not None:
        setstate(state)
        return
    slots = None
    if type(state) is tuple and len(state) == 2:
        state, slots = state
    if state:
        own = obj.__dict__
        for key, value in state.items():
            own[sys.intern(key) if type(key) is str else key] = value
    if slots:
        for key, value in slots.items():
            setattr(obj, key, value)


def _extend(cls: Any) -> Callable[[Any, list[Any]], None]:
    def extend(obj: Any, items: list[Any]) -> None:
        if hasattr(cls, "extend"):
            obj.extend(items)
        else:
            for item in items:
                obj.append(item)

    return extend


def _put(obj: Any, key: Any, value: Any) -> None:
    obj[key] = value
