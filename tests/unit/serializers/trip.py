"""A dump, its blocks in fresh memory, and the restore."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ckptstore.config import Limits
from ckptstore.serializers import DumpedField, Registry, RestorePlan, dump

LIMITS = Limits()


def dumped(
    values: Mapping[str, Any], *, registry: Registry | None = None, limits: Limits = LIMITS
) -> dict[str, DumpedField]:
    """Return the dumped fields by name."""
    return {field.name: field for field in dump(values, limits=limits, registry=registry or Registry())}


def planned(
    fields: Mapping[str, DumpedField],
    roots: Iterable[str],
    *,
    registry: Registry | None = None,
    limits: Limits = LIMITS,
) -> RestorePlan:
    """Return a plan that wants nothing more, of a writer that is trusted."""
    plan = RestorePlan(list(roots), limits=limits, registry=registry or Registry(), trusted=True)
    while plan.wanted:
        for name in sorted(plan.wanted):
            plan.add_graph(name, fields[name].graph, [block.view.nbytes for block in fields[name].blocks])
    return plan


def loaded(fields: Mapping[str, DumpedField], plan: RestorePlan) -> dict[tuple[str, int], memoryview]:
    """Return writable copies of the blocks that a plan needs."""
    return {(name, at): memoryview(bytearray(fields[name].blocks[at].view)) for name, at in plan.blocks}


def trip(
    values: Mapping[str, Any],
    *,
    roots: Iterable[str] | None = None,
    registry: Registry | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Return what comes back of ``values``."""
    fields = dumped(values, registry=registry)
    plan = planned(fields, values if roots is None else roots, registry=registry)
    return plan.build(loaded(fields, plan), device=device)


def trip_one(value: Any, **options: Any) -> Any:
    """Return what comes back of one value."""
    return trip({"value": value}, **options)["value"]


def data_bytes(field: DumpedField) -> int:
    """Return the bytes of all blocks of a field."""
    return sum(block.view.nbytes for block in field.blocks)
