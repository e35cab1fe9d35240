"""One round of one system in a process of its own: ``python -m bench.child SPEC``, a JSON object out."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

from bench.measure import Memory, Meter, ready_memory, resident_bytes, settle_disk, trim_memory
from bench.s3_server import n_requests
from bench.systems import SYSTEMS, Unavailable
from bench.workloads import build, change, raw_buffers, same

__all__ = ["RoundSpec", "describe", "run_round"]

WARM_SIZES = 3
"""The hungriest system takes this many times the state: in memory, a temporary file and the stored one."""


@dataclass(frozen=True, slots=True)
class RoundSpec:
    """What one child has to do."""

    workload: str
    size_bytes: int
    seed: int
    system: str | None = None
    """None: only describe the state."""
    directory: str = ""
    """An empty directory for the system's files."""
    memory: Memory = "warm"
    endpoint_url: str = ""
    """Of the S3 server, and where its metrics are."""
    metrics_url: str = ""


class StateDiffersError(Exception):
    """A system gave back something else than it was given."""


def describe(spec: RoundSpec) -> dict[str, Any]:
    """The state's true size."""
    buffers = raw_buffers(build(spec.workload, spec.size_bytes, seed=spec.seed))
    return {"state_bytes": sum(buffer.nbytes for buffer in buffers), "n_buffers": len(buffers)}


def run_round(spec: RoundSpec) -> dict[str, Any]:
    """Saves, saves again unchanged, saves what changed, loads, compares; each operation's cost and what it stored.

    A system that cannot run here gives ``unavailable``, the reason, alone.

    Raises:
        StateDiffersError: what was loaded is not what was saved.
    """
    row = SYSTEMS[spec.system or ""]
    values = build(spec.workload, spec.size_bytes, seed=spec.seed)
    trim_memory()
    meter = Meter(resident_bytes())
    try:
        system = row.make(spec.directory, **({"endpoint_url": spec.endpoint_url} if row.on_s3 else {}))
    except (ImportError, Unavailable) as error:
        return {"unavailable": f"{error}".splitlines()[0]}
    operations: dict[str, dict[str, Any]] = {}
    stored = 0
    try:
        system.prepare(values)
        for name in ("save", "again", "later"):
            if name == "later":
                change(spec.workload, values, seed=spec.seed)
            settle_disk(spec.directory, spec.size_bytes)
            ready_memory(spec.memory, WARM_SIZES * spec.size_bytes)
            requests = n_requests(spec.metrics_url)
            with meter:
                system.save(values)
                meter.unblocked()
                system.settle()
            requests = _since(requests, n_requests(spec.metrics_url))
            before, stored = stored, system.stored_bytes()
            operations[name] = asdict(meter.cost) | {"stored_bytes": stored - before, "requests": requests}
        if row.loads:
            system.reopen()
            trim_memory()
            ready_memory(spec.memory, WARM_SIZES * spec.size_bytes)
            requests = n_requests(spec.metrics_url)
            with meter:
                loaded = system.load()
            operations["load"] = asdict(meter.cost) | {
                "requests": _since(requests, n_requests(spec.metrics_url))
            }
            if not row.reference and not same(values, loaded):
                raise StateDiffersError(f"{row.name} loaded something else than it saved of {spec.workload}")
    finally:
        system.close()
    return {"operations": operations}


def _since(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def main() -> None:
    spec = RoundSpec(**json.loads(sys.argv[1]))
    result = describe(spec) if spec.system is None else run_round(spec)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
