"""The measurements of what @checkpoint and its card add to a task, at toy size: they measure what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import card_cost
from bench.metaflow_cost import TASKS, Cost, render

pytestmark = pytest.mark.metaflow

ROOT = Path(__file__).parents[2]


def test_it_measures_every_kind_of_task_and_tells_whether_the_goal_is_met(tmp_path):
    kept = tmp_path / "cost.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.metaflow_cost", "--local", "--rounds", "1", "--json", str(kept)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    rounds = json.loads(kept.read_text())["local"]
    assert set(rounds) == set(TASKS)
    for (cost,) in rounds.values():
        assert 0 < cost["start_s"] < 60
        assert 0 < cost["end_s"] < 60
        assert cost["cpu_s"] > 0
    assert done.stdout.count("at most 0.3 s more: ") == 2


def test_what_is_told_is_the_difference_to_the_base_of_the_same_round():
    costs = {name: [Cost(1.0, 0.5, 0.7), Cost(2.0, 0.5, 0.7), Cost(3.0, 0.5, 0.7)] for name in TASKS}
    costs["retry"] = [Cost(one.start_s + 0.25, one.end_s + 0.1, one.cpu_s) for one in costs["base"]]
    costs["eager"] = [Cost(one.start_s + 0.25, one.end_s + 0.01, one.cpu_s) for one in costs["base"]]
    table = render(costs)
    assert "| a retry, nothing found | 2.250 | 0.600 | 0.700 | +0.250 | +0.100 | +0.000 |" in table
    assert "a retry, nothing found: at most 0.3 s more: NOT met (0.350 s)" in table
    assert "nothing found: at most 0.3 s more: met (0.260 s)" in table


def test_the_cards_cost_is_measured_for_every_number_of_saves(tmp_path):
    kept = tmp_path / "card.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench.card_cost", "--local", "--rounds", "1", "--json", str(kept)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    pairs = json.loads(kept.read_text())["local"]
    assert list(pairs) == [str(n) for n in card_cost.SAVES]
    for ((without, with_card),) in pairs.values():
        for cost in (without, with_card):
            assert 0 < cost["cpu_s"] < 60
            assert 0 < cost["step_s"] < 60
    assert done.stdout.count("at most 50 ms more: ") == len(card_cost.SAVES)


def test_what_the_card_adds_is_the_median_difference_of_the_pairs():
    def pair(slower_s):
        return Cost(1.0, 0.5, 0.7, 2.0), Cost(1.0, 0.5 + slower_s, 0.7, 2.0)

    table = card_cost.render(
        {1: [pair(s) for s in (0.001, 0.02, 0.3)], 10: [pair(s) for s in (0.06, 0.06, 0.0)]}
    )
    assert "| 1 | 3.500 | +20 |" in table
    assert "1 save: at most 50 ms more: met (20 ms)" in table
    assert "10 saves: at most 50 ms more: NOT met (60 ms)" in table


def test_who_imports_metaflow_imports_nothing_that_only_tasks_need(run_command):
    script = "import sys, metaflow; print(*(name for name in sys.modules if 'ckptstore' in name))"
    ended = run_command("-c", script)
    imported = {name.rpartition(".")[2] for name in ended.stdout.split()}
    assert {"decorator", "client", "artifact"} <= imported
    assert not imported & {"session", "library", "saving", "place", "options", "card", "sync", "store"}
