"""What one open store trusts, and what it has told of it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Literal

from ckptstore.checkpoint import FieldInfo
from ckptstore.errors import ConfigError
from ckptstore.serializers import Allowlist

__all__ = ["Trust", "Trusted", "check_trusted"]

_log = logging.getLogger("ckptstore")

Trusted = bool | Literal["verified"]
_SHOWN = 5


def check_trusted(trusted: object) -> Trusted:
    """Return ``trusted`` if it is one of its three values. Raises ConfigError."""
    if type(trusted) is bool:
        return trusted
    if type(trusted) is str and trusted == "verified":
        return "verified"
    raise ConfigError(f"trusted must be False, True or 'verified', not {trusted!r:.80}")


class Trust:
    """The classes that the program allows, and each thing worth saying said once."""

    def __init__(self, *, warn: bool) -> None:
        self.allowed = Allowlist()
        self._warn = warn
        self._warned: set[str] = set()
        self._ran = False

    def saved(self, fields: Iterable[FieldInfo]) -> None:
        """Say which fields of a save need trust to be loaded, once for every type."""
        if not self._warn:
            return
        for field in fields:
            lacking = [name for name in field.untrusted if not self.allowed.knows_dotted(name)]
            if lacking and field.type_name not in self._warned:
                self._warned.add(field.type_name)
                more = ", …" if len(lacking) > _SHOWN else ""
                _log.warning(
                    "field %r (%s) needs trust to be loaded: its pickle names %s%s; allow classes of yours that are "
                    "harmless to restore (store.allow), or load it with trusted=True",
                    field.name,
                    field.type_name,
                    ", ".join(lacking[:_SHOWN]),
                    more,
                )

    def runs(self, url: str, fields: Iterable[str]) -> None:
        """Say that pickles of this store run, the first time."""
        if not self._ran:
            self._ran = True
            _log.info(
                "what is pickled in %s runs without restriction, because a load trusts it: first in %s",
                url,
                ", ".join(map(repr, fields)),
            )
