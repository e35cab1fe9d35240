"""The names of places inside a value, as errors and listings show them: ``[0].x``, ``['w']``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ckptstore.serializers._nodes import Node

__all__ = ["find", "join", "key_text", "of_way", "place", "step_text", "steps"]

_MAX_STEPS = 24


def key_text(key: Any, at: int) -> str:
    """Return a dict's key for a path; keys of other types than numbers and strings show their position."""
    if type(key) is str:
        return repr(key) if len(key) <= 80 else repr(key[:77] + "...")
    if type(key) in (int, bool, float, type(None)):
        return repr(key)
    return f"<{at}>"


def step_text(key: Any, at: int) -> str:
    """Return the step to what is under a key of a dict, or at a position of a list."""
    return f"[{key_text(key, at)}]"


def join(field: str, steps: list[str]) -> str:
    """Return the whole path; a very deep one loses its middle."""
    if len(steps) > _MAX_STEPS:
        half = _MAX_STEPS // 2
        steps = [*steps[:half], f"...({len(steps) - _MAX_STEPS} more)...", *steps[-half:]]
    return field + "".join(steps)


def of_way(way: Any) -> str:
    """Return the path of a way, ``(the way before, step)`` with None at the field."""
    steps: list[str] = []
    while way is not None:
        way, step = way
        steps.append(step)
    return join("", steps[::-1])


def steps(node: Node) -> Iterator[tuple[Node, str]]:
    """Yield the nodes inside a container or custom node, each with the step that leads to it."""
    tag = node.tag
    items = node.items
    if tag in ("dict", "odict"):
        for at in range(0, len(items), 2):
            key, value = items[at], items[at + 1]
            if type(key) is Node:
                yield key, f"<key {at // 2}>"
                key = key.value if key.tag in ("str", "int") else key
            if type(value) is Node:
                yield value, f"[{key_text(key, at // 2)}]"
        attributes = node.encoded if tag == "odict" else ()
        for at in range(0, len(attributes), 2):
            if type(attributes[at + 1]) is Node:
                yield attributes[at + 1], f".{attributes[at]}"
    elif tag == "custom":
        for item in items:
            if type(item) is Node:
                yield item, ""
    else:
        opening, closing = ("{", "}") if tag in ("set", "frozenset") else ("[", "]")
        for at, item in enumerate(items):
            if type(item) is Node:
                yield item, f"{opening}{at}{closing}"


def find(roots: dict[str, Any], wanted: Node) -> tuple[str, list[str]]:
    """Return the field and the steps that lead to a node, the shortest way through what is known."""
    came: dict[int, tuple[Node | None, str, str]] = {}
    layer: list[Node] = []
    for field, root in roots.items():
        if type(root) is Node and id(root) not in came:
            came[id(root)] = (None, "", field)
            layer.append(root)
    while layer and id(wanted) not in came:
        following: list[Node] = []
        for node in layer:
            inner = steps(node) if node.items or node.encoded else ((kid, "...") for kid in node.kids)
            for kid, step in inner:
                if id(kid) not in came:
                    came[id(kid)] = (node, step, "")
                    following.append(kid)
        layer = following
    way: list[str] = []
    at: Node | None = wanted
    field = ""
    while at is not None and id(at) in came:
        at, step, field = came[id(at)]
        way.append(step)
    return field or next(iter(roots), ""), [step for step in reversed(way) if step]


def place(roots: dict[str, Any], wanted: Node) -> tuple[str, str]:
    """Return the field and the whole path of a node."""
    field, way = find(roots, wanted)
    return field, join(field, way)
