"""The parts of the benchmark beside its rounds, at toy size: the training loop, growth, plots, profiles."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import growth, profiles, training
from bench.__main__ import main
from bench.plots import plot

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


def test_a_step_during_a_save_is_judged_against_one_without() -> None:
    figures = dict.fromkeys(("first_blocked_s", "blocked_s", "save_cost_s"), 0.01)
    slow = {**figures, "step_s": 0.1, "during_s": 0.12, "n_during": 3}
    none = {**figures, "step_s": 0.1, "during_s": None, "n_during": 0}
    table = training.render({("ours-background", 1): [slow], ("torch", 1): [none]})
    assert " 1.20 |" in table
    assert "≤ 1.05x: NOT MET, 1.20x" in table


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
    assert "save, CPU each at 1,000 chunks against 100 ≤ 1.5x: met, 1.40x" in table
    table = growth.render({("chunks", 100): point(1.0), ("chunks", 1000): point(16.0)})
    assert "load, CPU each at 1,000 chunks against 100 ≤ 1.5x: NOT MET, 1.60x" in table


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
        "training.svg",
    }


def test_profile_leaves_a_page_with_every_table_and_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {
        "growth": "bench.growth --tensors 3 --chunks 3 --rounds 1",
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
    assert len(json.loads((tmp_path / "growth.json").read_text())["points"]) == 2


def test_command_hands_a_profile_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def run_profile(name: str, folder: str, *, scratch: str | None, say: object) -> int:
        given.extend((name, folder, scratch))
        return 0

    monkeypatch.setattr("bench.__main__.run_profile", run_profile)
    assert main(["--profile", "quick", "--out", str(tmp_path), "--dir", "/scratch"]) == 0
    assert given == ["quick", str(tmp_path), "/scratch"]
