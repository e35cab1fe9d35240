"""The parts of the benchmark beside its rounds, at toy size: the training loop, growth, plots, profiles."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import growth, profiles, training
from bench.__main__ import main, parser
from bench.goals import GOALS
from bench.plots import plot
from bench.verdicts import TOPICS

COST = {"wall_s": 0.5, "cpu_s": 0.25, "peak_bytes": 1 << 20}


@pytest.mark.torch
@pytest.mark.parametrize("system", ["no-save", "ours-background", "torch-fsync"])
def test_loop_trains_for_real_and_tells_what_its_saves_cost(system: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    n_threads = torch.get_num_threads()
    try:
        loop = training.Loop(system, 64 << 10, n_saves=2, n_steps=3, n_threads=1, directory=str(tmp_path))
        result = training.train(loop)
    finally:
        torch.set_num_threads(n_threads)
    assert result["step_s"] > 0
    assert (result["blocked_s"] is None) == (system == "no-save")
    if system == "torch-fsync":
        assert result["n_during"] == 0
    assert (result["during_s"] is None) == (result["n_during"] == 0)


@pytest.mark.torch
def test_step_trains_the_model_whose_state_is_saved() -> None:
    torch = pytest.importorskip("torch")
    step, state = training._trainer(64 << 10)
    before = {name: tensor.clone() for name, tensor in state()["model"].items()}
    step()
    assert not any(torch.equal(before[name], tensor) for name, tensor in state()["model"].items())


def test_a_step_during_a_save_is_judged_against_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    figures = dict.fromkeys(("first_blocked_s", "blocked_s", "save_cost_s"), 0.01)
    slow = {**figures, "step_s": 0.1, "during_s": 0.12, "n_during": 3}
    none = {**figures, "step_s": 0.1, "during_s": None, "n_during": 0}
    table = training.render({("ours-background", 1): [slow], ("torch", 1): [none]})
    assert " 1.20 |" in table
    assert "a core to spare ≤ 1.05x: NOT MET, 1.2x" in table


def test_a_step_with_no_core_to_spare_is_told_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    result = {"step_s": 0.1, "during_s": 0.3}
    spare, busy = training.judge({("ours-background", 1): [result], ("ours-background", 2): [result]})
    assert (spare.word, busy.word, busy.measured) == ("NOT MET", "told", pytest.approx(3.0))


@pytest.mark.parametrize("kind", growth.KINDS)
def test_growth_measures_every_operation_of_as_many_items_as_asked_for(kind: str) -> None:
    result = growth.measure(kind, 50)
    assert list(result) == list(growth.OPERATIONS)
    assert all(cost["cpu_s"] > 0 for cost in result.values())
    assert result["save"]["wall_s"] > 0


def test_growth_is_judged_by_the_cost_of_one_item() -> None:
    def point(seconds: float) -> list[growth.Result]:
        return [{name: COST | {"cpu_s": seconds} for name in growth.OPERATIONS}]

    table = growth.render({("chunks", 100): point(1.0), ("chunks", 1000): point(14.0)})
    assert "save, CPU each at 1,000 chunks against 100 ≤ 1.5x: met, 1.4x" in table
    table = growth.render({("chunks", 100): point(1.0), ("chunks", 1000): point(16.0)})
    assert "load, CPU each at 1,000 chunks against 100 ≤ 1.5x: NOT MET, 1.6x" in table


def test_growth_of_memory_is_judged_above_what_an_interpreter_takes() -> None:
    def word(small_bytes: int, large_bytes: int) -> str:
        points = {
            ("tensors", n): [{name: COST | {"peak_bytes": peak} for name in growth.OPERATIONS}]
            for n, peak in ((100, small_bytes), (1000, large_bytes))
        }
        return {verdict.goal: verdict.word for verdict in growth.judge(points)}[
            "save, memory over the state at 1,000 tensors against 100"
        ]

    assert word(100 << 20, 140 << 20) == "met"
    assert word(100 << 20, 160 << 20) == "NOT MET"
    assert word(1 << 20, 16 << 20) == "met"


@pytest.mark.parametrize(
    ("name", "part"), [(name, part) for name, parts in profiles.PROFILES.items() for part in parts]
)
def test_every_part_of_a_profile_is_a_command_with_known_options(
    name: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The options are parsed, and a round is not begun."""

    class BegunError(Exception):
        pass

    def begun(*arguments: Any, **named: Any) -> None:
        raise BegunError

    module, *arguments = profiles.PROFILES[name][part].split()
    command = importlib.import_module("bench.__main__" if module == "bench" else module)
    for begins in ("make_plan", "s3_server", "_null_server", "_round", "describe_machine"):
        monkeypatch.setattr(command, begins, begun, raising=False)
    with pytest.raises(BegunError):
        command.main(arguments)


RECORDS: Mapping[str, Any] = {
    "model": {
        "states": {"torch": {"state_bytes": 1000, "n_buffers": 1}},
        "summary": [
            {"workload": "torch", "system": "ours", "operation": operation, "figure": figure, "median": 1.0}
            for operation in ("save", "later", "load")
            for figure in ("wall_s", "blocked_s", "stored_bytes")
        ],
    },
    "growth": {
        "points": [
            {"kind": "chunks", "n": n, "results": [dict.fromkeys(growth.OPERATIONS, COST)]} for n in (10, 20)
        ]
    },
    "s3": {"objects": 2, "servers": {"none": {"costs": {"ours": [{"put": COST, "get": COST}]}}}},
    "codecs": {
        "codecs": [
            {"kind": "random", "codec": "planes", "results": [{"raw_bytes": 8, "encode_s": 1.0}]},
        ]
    },
    "training": {"rounds": [{"system": "ours", "threads": 1, "results": [{"step_s": 1.0, "during_s": 1.5}]}]},
}


@pytest.mark.filterwarnings("ignore")  # what matplotlib warns of is its own
def test_every_kind_of_record_has_its_plots(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    names = plot(RECORDS, str(tmp_path))
    assert set(names) == {path.name for path in tmp_path.iterdir()}
    assert set(names) == {
        "model-torch-throughput-save.svg",
        "model-torch-throughput-load.svg",
        "model-torch-stall.svg",
        "model-torch-size.svg",
        "growth.svg",
        "s3.svg",
        "codecs.svg",
        "training.svg",
    }


def test_profile_leaves_a_page_with_every_table_and_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {
        "growth": "bench.growth --tensors 3 6 --chunks 3 --rounds 1",
        "broken": "bench.absent",
    }
    monkeypatch.setattr(profiles, "PROFILES", {"toy": parts})
    monkeypatch.setattr(profiles, "is_installed", lambda name: False)
    assert profiles.run_profile("toy", str(tmp_path)) == 1
    page = (tmp_path / "tables.md").read_text()
    assert f"`python -m {parts['growth']}`" in page
    assert "| tensors | save s |" in page
    assert "FAILED" in page
    assert "matplotlib is not installed" in page
    assert len(json.loads((tmp_path / "growth.json").read_text())["points"]) == 3
    goals = page.partition("# goals")[2]
    assert "save, CPU each at 6 tensors against 3" in goals
    assert goals.count("not measured") == len(TOPICS) - 1


def test_rounds_of_a_profile_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        profiles, "PROFILES", {"toy": {"growth": "bench.growth --tensors 3 --chunks --rounds 1"}}
    )
    monkeypatch.setattr(profiles, "is_installed", lambda name: False)
    assert profiles.run_profile("toy", str(tmp_path), rounds=2) == 0
    (point,) = json.loads((tmp_path / "growth.json").read_text())["points"]
    assert len(point["results"]) == 2


def test_profile_of_the_goals_asks_for_every_goal() -> None:
    """A goal of the benchmark of states is judged where a part runs all that it compares."""
    pairs = set()
    for command in profiles.PROFILES["goals"].values():
        module, *arguments = command.split()
        if module == "bench":
            asked = parser().parse_args(arguments)
            pairs.add(frozenset((workload, system) for workload in asked.workload for system in asked.system))
    assert not [
        goal.text
        for goal in GOALS
        if not any(goal.needs(workload) <= part for part in pairs for workload in goal.workloads)
    ]


def test_command_hands_a_profile_its_rounds_and_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    def run_profile(name: str, folder: str, *, rounds: int, scratch: str | None, say: object) -> int:
        given.extend((name, folder, rounds, scratch))
        return 0

    monkeypatch.setattr("bench.__main__.run_profile", run_profile)
    assert main(["--profile", "quick", "--out", str(tmp_path), "--rounds", "7", "--dir", "/scratch"]) == 0
    assert given == ["quick", str(tmp_path), 7, "/scratch"]
