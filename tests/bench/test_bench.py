"""The benchmark at toy size: it measures what it says, refuses what differs, and prints its verdicts."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.__main__ import main, parse_size
from bench.child import RoundSpec, StateDiffersError, run_round
from bench.harness import Plan, execute, is_installed, make_plan
from bench.measure import Meter, resident_bytes
from bench.report import render
from bench.systems import SYSTEMS, Unavailable
from bench.systems.files import Pickle
from bench.systems.ours import Ours
from bench.workloads import WORKLOADS, build, change, raw_buffers, same

KIB = 1024
TOY_BYTES = 256 * KIB


def has(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) for package in packages)


def run_toy(workload: str, system: str, directory: Path, size_bytes: int = TOY_BYTES) -> dict[str, Any]:
    spec = RoundSpec(workload, size_bytes, 0, system, str(directory))
    operations: dict[str, Any] = run_round(spec)["operations"]
    return operations


@pytest.mark.parametrize("name", WORKLOADS)
def test_workload_is_the_same_for_the_same_seed_and_of_the_size_asked_for(name: str) -> None:
    if not has(*WORKLOADS[name].needs):
        pytest.skip("needs " + ", ".join(WORKLOADS[name].needs))
    values = build(name, TOY_BYTES, seed=7)
    assert same(values, build(name, TOY_BYTES, seed=7))
    assert not same(values, build(name, TOY_BYTES, seed=8))
    nbytes = sum(buffer.nbytes for buffer in raw_buffers(values))
    if name != "counter":
        assert 0.7 * TOY_BYTES < nbytes < 1.3 * TOY_BYTES


def test_comparison_sees_one_changed_bit() -> None:
    values = build("arrays", TOY_BYTES, seed=0)
    other = build("arrays", TOY_BYTES, seed=0)
    assert same(values, other)
    other["model"]["head.weight"].view("u1")[0, 3] ^= 1
    assert not same(values, other)


@pytest.mark.parametrize("name", WORKLOADS)
def test_change_between_saves_is_seen_and_the_same_for_the_same_seed(name: str) -> None:
    if not has(*WORKLOADS[name].needs):
        pytest.skip("needs " + ", ".join(WORKLOADS[name].needs))
    first, second, before = (build(name, TOY_BYTES, seed=7) for _ in range(3))
    change(name, first, seed=7)
    change(name, second, seed=7)
    assert same(first, second)
    assert not same(first, before)


@pytest.mark.torch
def test_one_percent_of_a_lora_state_changes() -> None:
    pytest.importorskip("torch")
    size_bytes = 8 << 20
    values = build("lora", size_bytes, seed=0)
    base = sum(buffer.nbytes for buffer in raw_buffers({"base": values["base"]}))
    total = sum(buffer.nbytes for buffer in raw_buffers(values))
    assert 0.003 < 1 - base / total < 0.03
    before = build("lora", size_bytes, seed=0)
    change("lora", values, seed=0)
    assert same(values["base"], before["base"])


@pytest.mark.torch
def test_scattered_rows_of_an_embedding_change() -> None:
    pytest.importorskip("torch")
    before, after = (build("embedding", 4 << 20, seed=0)["model"]["embedding.weight"] for _ in range(2))
    change("embedding", {"model": {"embedding.weight": after}}, seed=0)
    assert 0.005 < (before != after).any(dim=1).float().mean() < 0.02


LOCAL = [name for name, row in SYSTEMS.items() if not row.on_s3]


# What peers warn of is theirs.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("system", LOCAL)
def test_system_gives_back_what_it_saved(system: str, tmp_path: Path) -> None:
    row = SYSTEMS[system]
    if lacking := [package for package in row.needs if not is_installed(package)]:
        pytest.skip(f"needs {', '.join(lacking)}")
    spec = RoundSpec("torch" if row.torch_only else "arrays", TOY_BYTES, 0, system, str(tmp_path))
    result = run_round(spec)
    if "unavailable" in result:
        pytest.skip(result["unavailable"])
    operations = result["operations"]
    extras = [extra for extra in row.extras if row.loads]
    assert list(operations) == ["save", "again", "later", *(["load"] if row.loads else []), *extras]
    for cost in operations.values():
        assert 0 < cost["blocked_s"] <= cost["wall_s"]


def test_unchanged_state_is_stored_once_by_us_and_again_by_the_incumbent(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours = run_toy("arrays", "ours", tmp_path / "a", 4 << 20)
    incumbent = run_toy("arrays", "incumbent", tmp_path / "b", 4 << 20)
    assert ours["again"]["stored_bytes"] < 0.1 * ours["save"]["stored_bytes"]
    assert incumbent["again"]["stored_bytes"] > 0.9 * incumbent["save"]["stored_bytes"]


class Forgetful(Pickle):
    """Loses the last field."""

    def load(self) -> dict[str, Any]:
        return dict(list(super().load().items())[:-1])


def test_system_that_loads_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.child.SYSTEMS", {"pickle": replace(SYSTEMS["pickle"], make=Forgetful)})
    with pytest.raises(StateDiffersError, match="pickle"):
        run_toy("counter", "pickle", tmp_path)


def test_peak_counts_memory_that_was_freed_before_the_end() -> None:
    meter = Meter(resident_bytes())
    with meter:
        block = b"\1" * (64 << 20)
        meter.unblocked()
        del block
    if not meter.cost.peak_is_exact:
        pytest.skip("this kernel does not reset the peak")
    assert 60 << 20 < meter.cost.peak_bytes < 96 << 20
    assert meter.cost.blocked_s <= meter.cost.wall_s


def test_order_changes_between_rounds_and_is_the_same_for_the_same_seed() -> None:
    plan = make_plan(["counter", "arrays"], list(SYSTEMS), size_bytes=1, seed=3)
    again = make_plan(["counter", "arrays"], list(SYSTEMS), size_bytes=1, seed=3)
    assert plan.order(0) == again.order(0) != plan.order(1)
    assert sorted(plan.order(1)) == sorted(plan.pairs)


def test_missing_peer_is_skipped_with_a_line_that_says_so() -> None:
    plan = make_plan(
        ["torch", "counter"], ["ours", "torch"], size_bytes=1, is_installed=lambda name: name != "torch"
    )
    assert plan.pairs == (("counter", "ours"),)
    assert plan.skipped == (
        "system torch skipped: torch is not installed",
        "workload torch skipped: torch is not installed",
    )


@pytest.mark.parametrize(
    ("text", "size"), [("256MiB", 256 << 20), ("1.5 GiB", 3 << 29), ("2MB", 2_000_000), ("17", 17)]
)
def test_size_is_read_in_the_units_people_write(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "MiB", "-1KiB", "1 parsec"])
def test_senseless_size_ends_the_command_with_a_hint(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([f"--size={text}"])
    assert "a size is like 256MiB" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ImportError("no such part"), Unavailable("no such part")])
def test_system_that_cannot_run_here_is_skipped_with_its_reason(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(directory: str) -> Pickle:
        raise error

    monkeypatch.setattr("bench.child.SYSTEMS", {"pickle": replace(SYSTEMS["pickle"], make=make)})
    spec = RoundSpec("counter", TOY_BYTES, 0, "pickle", str(tmp_path))
    assert run_round(spec) == {"unavailable": "no such part"}


def test_codec_that_this_version_does_not_know_is_a_reason_to_skip(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="codec"):
        Ours(str(tmp_path), codec="of-tomorrow")


def test_flush_covers_every_new_file_and_the_directories_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    monkeypatch.setattr("bench.systems.flushed.flush", flushed.append)
    system = SYSTEMS["incumbent-fsync"].make(str(tmp_path))
    system.save({"x": 1})
    assert set(flushed) == {str(path) for path in [tmp_path, *tmp_path.rglob("*")]}
    flushed.clear()
    system.save({"x": 2})
    written = {path for path in tmp_path.rglob("*") if path.is_file() and "checkpoint-1" not in str(path)}
    assert {path for path in flushed if os.path.isfile(path)} == {str(path) for path in written} | {
        str(tmp_path / "metadata" / "latest")
    }


def test_command_prints_ratios_and_goals_and_keeps_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bench.json"
    arguments = ["--size", "256KiB", "--rounds", "2", "--workload", "arrays", "--dir", str(tmp_path)]
    arguments += ["--system", "ours", "incumbent", "copy", "--json", str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "save ÷ ours" in printed.out
    assert "## Goals" in printed.out
    record = json.loads(out.read_text())
    assert record["machine"]["python"]
    assert record["command"].endswith(f"--json {out}")
    assert len(record["rounds"]) == 6
    assert {row["figure"] for row in record["summary"]} >= {"wall_s", "blocked_s", "cpu_s", "peak_bytes"}
    assert os.listdir(tmp_path) == ["bench.json"]


def test_failing_system_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    plan = Plan((("counter", "absent"), ("counter", "pickle")), KIB, 1, 0, "warm")
    run = execute(plan, str(tmp_path))
    assert [row.system for row in run.rounds] == ["pickle"]
    assert [(row.system, row.reason) for row in run.failures] == [("absent", "KeyError: 'absent'")]
    assert "FAILED counter absent: KeyError" in render(run)
    assert os.listdir(tmp_path) == []


def test_user_objects_travel_by_pickle() -> None:
    values = build("objects", TOY_BYTES, seed=0)
    assert same(values, pickle.loads(pickle.dumps(values)))
