"""User types that travel as data instead of as pickle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from ckptstore.errors import ConfigError

__all__ = ["CustomType", "Registry"]

T = TypeVar("T")

_CORE = (type(None), bool, int, float, complex, str, bytes, bytearray, list, tuple, dict, set, frozenset)


@dataclass(frozen=True, slots=True)
class CustomType:
    """How one registered type is saved and restored."""

    cls: type[Any]
    name: str
    dump: Callable[[Any], object]
    restore: Callable[[Any], Any]


class Registry:
    """The types a store saves through functions of the user, by exact type and by stable name.

    Values of a registered type need no trust to load, wherever they stand,
    because restoring them calls only what the loading program registered.
    """

    def __init__(self) -> None:
        self._by_type: dict[type[Any], CustomType] = {}
        self._by_name: dict[str, CustomType] = {}

    def register(
        self, cls: type[T], name: str, *, dump: Callable[[T], object], restore: Callable[[Any], T]
    ) -> None:
        """Save objects whose type is exactly ``cls`` as ``dump(obj)``, and load them with ``restore``.

        ``name`` is written to the checkpoint and must stay the same for ever.
        ``dump`` returns any value that can be saved and must not contain the
        object itself; ``restore`` gets an equal value and returns the object.

        Raises ConfigError if the type or the name is taken or cannot be registered.
        """
        if not isinstance(cls, type):
            raise ConfigError(f"cls must be a class, not {type(cls).__name__}")
        if cls in _CORE:
            raise ConfigError(f"{cls.__name__} is saved by the store itself and cannot be registered")
        if type(name) is not str or not name.isprintable() or not 0 < len(name) <= 200:
            raise ConfigError(f"name must be a printable str of 1 to 200 characters, not {name!r:.80}")
        if not callable(dump) or not callable(restore):
            raise ConfigError("dump and restore must be callables")
        if cls in self._by_type:
            raise ConfigError(f"{cls.__qualname__} is already registered as {self._by_type[cls].name!r}")
        if name in self._by_name:
            raise ConfigError(f"the name {name!r} is already taken by {self._by_name[name].cls.__qualname__}")
        custom = CustomType(cls, name, dump, restore)
        self._by_type[cls] = custom
        self._by_name[name] = custom

    def types(self) -> list[type[Any]]:
        """Return the registered types, in order of registration."""
        return list(self._by_type)

    def of_type(self, cls: type[Any]) -> CustomType | None:
        """Return the registration of exactly ``cls``, or None."""
        return self._by_type.get(cls)

    def of_name(self, name: str) -> CustomType | None:
        """Return the registration under ``name``, or None."""
        return self._by_name.get(name)
