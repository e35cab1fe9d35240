"""Fields of a checkpoint that are no attributes of the flow: the files, the position of a loop.

No attribute's name holds a "/", so a name with one is free for the extension:
``directory/...`` and ``loop/...``.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["DIRECTORY", "LOOP", "attributes_of", "is_attribute"]

DIRECTORY = "directory/"
LOOP = "loop/"


def is_attribute(field: str) -> bool:
    """Tell whether a field is an attribute of the flow."""
    return "/" not in field


def attributes_of(fields: Iterable[str]) -> list[str]:
    """Return the fields that are attributes, in their order."""
    return [field for field in fields if is_attribute(field)]
