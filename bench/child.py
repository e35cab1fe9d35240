"""One round of one system in a process of its own: ``python -m bench.child SPEC``, a JSON object out."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from bench.measure import Memory, Meter, ready_memory, resident_bytes, settle_disk, trim_memory
from bench.s3_server import count_requests
from bench.systems import SYSTEMS, System, SystemSpec, Unavailable
from bench.workloads import WORKLOADS, Values, build, change, raw_buffers, same
from bench.workloads.existing import has_memory_of, one_of, other_bytes

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
    """Saves, saves again unchanged, saves what changed, loads in all ways it can, compares; each operation's cost.

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
    try:
        system.prepare(values)
        operations = _saves(spec, system, values, meter)
        if row.loads:
            operations |= _loads(spec, row, system, values, meter)
    finally:
        system.close()
    return {"operations": operations}


def _saves(spec: RoundSpec, system: System, values: Values, meter: Meter) -> dict[str, dict[str, Any]]:
    costs = {}
    stored = 0
    for name in ("save", "again", "later"):
        if name == "later":
            change(spec.workload, values, seed=spec.seed)
        settle_disk(spec.directory, spec.size_bytes)
        ready_memory(spec.memory, WARM_SIZES * spec.size_bytes)
        with _Requests(spec) as requests, meter:
            system.save(values)
            meter.unblocked()
            system.settle()
        before, stored = stored, system.stored_bytes()
        costs[name] = asdict(meter.cost) | requests.counted | {"stored_bytes": stored - before}
    return costs


def _loads(
    spec: RoundSpec, row: SystemSpec, system: System, values: Values, meter: Meter
) -> dict[str, dict[str, Any]]:
    """Each in a system that is opened anew; what came is compared outside the timing."""
    one = one_of(values)
    costs = {}

    def timed(name: str, operation: Callable[[], Any]) -> Any:
        system.reopen()
        trim_memory()
        ready_memory(spec.memory, WARM_SIZES * spec.size_bytes)
        with _Requests(spec) as requests, meter:
            answer = operation()
        costs[name] = asdict(meter.cost) | requests.counted
        return answer

    def check(is_right: bool) -> None:
        if not is_right and not row.reference:
            raise StateDiffersError(f"{row.name} loaded something else than it saved of {spec.workload}")

    check(same(values, timed("load", system.load)))
    for extra in row.extras:
        if extra == "inspect":
            timed(extra, system.inspect)
        elif extra == "one":
            if one is not None:
                field, key = one
                check(same(values[field][key], timed(extra, partial(system.load_one, field, key))))
        elif WORKLOADS[spec.workload].tensors:
            there = other_bytes(values)
            loaded = timed(extra, partial(system.load_into, there, inplace=extra == "inplace"))
            check(same(values, loaded) and has_memory_of(loaded, there))
    return costs


class _Requests:
    """Counts the requests of an operation: all, and those that store something."""

    def __init__(self, spec: RoundSpec) -> None:
        self._url = spec.metrics_url

    def __enter__(self) -> _Requests:
        self._before = count_requests(self._url)
        return self

    def __exit__(self, *error: object) -> None:
        after = count_requests(self._url)
        self.counted: dict[str, int | None] = {"requests": None, "puts": None}
        if self._before is not None and after is not None:
            asked = after - self._before
            self.counted = {"requests": asked.total(), "puts": asked["PUT"] + asked["POST"]}


def main() -> None:
    spec = RoundSpec(**json.loads(sys.argv[1]))
    result = describe(spec) if spec.system is None else run_round(spec)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
