"""A value dumped as a save does, and loaded without trust."""

from __future__ import annotations

from typing import Any

from ckptstore.config import Limits
from ckptstore.serializers import Allowlist, Registry, RestorePlan, dump


def trip(value: Any, *, allowed: Allowlist | None = None, limits: Limits | None = None) -> Any:
    """Return what comes back of ``value``, which must be pickled, at least in part."""
    limits = limits or Limits()
    (field,) = dump({"field": value}, limits=limits, registry=Registry())
    assert field.kind == "pickle"
    plan = RestorePlan(["field"], limits=limits, registry=Registry(), allowed=allowed)
    plan.add_graph("field", field.graph, [block.view.nbytes for block in field.blocks])
    memory = {key: memoryview(bytearray(field.blocks[key[1]].view)) for key in plan.blocks}
    plan.check_pickles({key: memory[key] for key in plan.streams})
    return plan.build(memory)["field"]
