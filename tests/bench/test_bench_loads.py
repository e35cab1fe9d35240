"""Loads into what is there, looks, loads of one tensor: what the benchmark's rounds do beside saves and loads."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.child import RoundSpec, StateDiffersError, run_round
from bench.harness import is_installed
from bench.s3_server import count_requests
from bench.systems import SYSTEMS
from bench.systems.incumbent import PACKAGE
from bench.systems.ours import Ours
from bench.workloads import WORKLOADS, build, change, raw_buffers, same
from bench.workloads.existing import copy_over, has_memory_of, one_of, other_bytes

TOY_BYTES = 256 << 10
TENSORS = [name for name, row in WORKLOADS.items() if row.tensors]


def run_toy(system: str, directory: Path, size_bytes: int = TOY_BYTES) -> dict[str, Any]:
    operations: dict[str, Any] = run_round(RoundSpec("arrays", size_bytes, 0, system, str(directory)))[
        "operations"
    ]
    return operations


@pytest.mark.parametrize("name", TENSORS)
def test_destination_has_the_structure_and_no_byte_of_the_state(name: str) -> None:
    if lacking := [package for package in WORKLOADS[name].needs if not is_installed(package)]:
        pytest.skip(f"needs {', '.join(lacking)}")
    values = build(name, TOY_BYTES, seed=0)
    there = other_bytes(values)
    for own, other in zip(raw_buffers(values)[:-1], raw_buffers(there)[:-1], strict=True):
        assert not np.any(np.frombuffer(own, np.uint8) == np.frombuffer(other, np.uint8))
    assert not has_memory_of(values, there)
    change(name, values, seed=0)
    filled = copy_over(there, values)
    assert same(values, filled)
    assert has_memory_of(filled, there)
    assert not has_memory_of(filled, values)


class Aside(Ours):
    """Loads new tensors, whatever it was given."""

    def load_into(self, destination: dict[str, Any], *, inplace: bool = False) -> dict[str, Any]:
        return self.load()


class Idle(Ours):
    """Loads nothing, and gives back what it was given."""

    def load_into(self, destination: dict[str, Any], *, inplace: bool = False) -> dict[str, Any]:
        return destination


class Wrong(Ours):
    """Loads another tensor."""

    def load_one(self, field: str, key: str) -> Any:
        return super().load_one(field, "position.weight" if key != "position.weight" else "norm.weight")


@pytest.mark.parametrize("system", [Aside, Idle, Wrong])
def test_system_that_loads_elsewhere_or_something_else_is_refused(
    system: type[Ours], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.child.SYSTEMS", {"ours": replace(SYSTEMS["ours"], make=system)})
    with pytest.raises(StateDiffersError):
        run_toy("ours", tmp_path)


def test_load_of_one_reads_less_than_a_load_of_all(tmp_path: Path) -> None:
    costs = run_toy("ours-raw", tmp_path, 32 << 20)
    if costs["one"]["read_bytes"] is None:
        pytest.skip("this system does not tell what was read")
    assert costs["inspect"]["read_bytes"] < 1 << 20
    assert costs["one"]["read_bytes"] < 10 << 20  # a chunk of 8 MiB and the manifest
    assert costs["load"]["read_bytes"] > 30 << 20


def test_tensor_to_load_alone_is_one_of_about_the_mean_size() -> None:
    values = {"step": 3, "model": {"a": np.zeros(1), "b": np.zeros(11), "c": np.zeros(20), "n": "x"}}
    assert one_of(values) == ("model", "b")
    assert one_of({"tokens": np.zeros(3), "step": 3}) is None


def test_requests_are_counted_by_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (
        b"# TYPE SeaweedFS_s3_request_total counter\n"
        b'SeaweedFS_s3_request_total{bucket="bench",code="200",type="PUT"} 3\n'
        b'SeaweedFS_s3_request_total{bucket="",code="404",type="GET"} 2\n'
        b'SeaweedFS_s3_request_total{bucket="bench",code="206",type="GET"} 1e+06\n'
        b'SeaweedFS_other_total{type="PUT"} 9\n'
    )
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO(page))
    assert count_requests("http://there/metrics") == {"PUT": 3, "GET": 1_000_002}
    assert count_requests("") is None


def test_re_enacted_incumbent_stores_what_its_package_does(tmp_path: Path) -> None:
    if not is_installed(PACKAGE):
        pytest.skip("needs metaflow-checkpoint")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    enacted, package = run_toy("incumbent", tmp_path / "a"), run_toy("incumbent-package", tmp_path / "b")
    for operation in ("save", "again", "later"):
        pair = [costs[operation]["stored_bytes"] for costs in (enacted, package)]
        assert abs(pair[0] - pair[1]) < 8 << 10  # records about the checkpoint
