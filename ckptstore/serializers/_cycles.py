"""Strongly connected parts of a dump's nodes."""

from __future__ import annotations

from collections.abc import Iterable

from ckptstore.serializers._nodes import Node

__all__ = ["cycles", "entries"]


def cycles(roots: Iterable[Node]) -> list[list[Node]]:
    """Return the sets of nodes that reach one another, and the single ones that refer to themselves.

    Only nodes that ``roots`` reach. Tarjan's algorithm with its own stack,
    since values may nest deeper than Python recurses.
    """
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    open_ids: set[int] = set()
    open_nodes: list[Node] = []
    found: list[list[Node]] = []
    for root in roots:
        if id(root) in index:
            continue
        work: list[tuple[Node, int]] = [(root, 0)]
        while work:
            node, at = work.pop()
            key = id(node)
            if at == 0:
                index[key] = low[key] = len(index)
                open_nodes.append(node)
                open_ids.add(key)
            else:
                low[key] = min(low[key], low[id(node.kids[at - 1])])
            kids = node.kids
            while at < len(kids):
                kid = id(kids[at])
                at += 1
                if kid not in index:
                    work.append((node, at))
                    work.append((kids[at - 1], 0))
                    break
                if kid in open_ids:
                    low[key] = min(low[key], index[kid])
            else:
                if low[key] == index[key]:
                    part: list[Node] = []
                    while True:
                        member = open_nodes.pop()
                        open_ids.discard(id(member))
                        part.append(member)
                        if member is node:
                            break
                    if len(part) > 1 or node in node.kids:
                        found.append(part)
    return found


def entries(roots: Iterable[Node], inside: set[int]) -> set[int]:
    """Return the ids of those nodes of ``inside`` that are roots or that a node outside refers to."""
    found: set[int] = set()
    seen: set[int] = set()
    stack: list[Node] = []
    for root in roots:
        if id(root) in inside:
            found.add(id(root))
        stack.append(root)
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        for kid in node.kids:
            if id(kid) in inside and id(node) not in inside:
                found.add(id(kid))
            if id(kid) not in seen:
                stack.append(kid)
    return found
