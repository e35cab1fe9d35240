"""What the benchmark's figures are held against, and the one table of it."""

from __future__ import annotations

from typing import Any

import pytest

from bench.goals import GOALS, judge
from bench.harness import FIGURES, OPERATIONS, Round, Run, make_plan
from bench.report import render
from bench.systems import SYSTEMS
from bench.verdicts import TOPICS, Verdict, table_of_goals
from bench.workloads import WORKLOADS


def _run_with(figures: dict[str, float], *workloads: str, state_bytes: int = 1) -> Run:
    """A run in which every figure of a system is the one given, and in each next workload twice the one before."""
    workloads = workloads or ("arrays",)
    plan = make_plan(workloads, list(figures), size_bytes=1, n_rounds=1, is_installed=lambda name: True)
    rounds = [
        Round(workload, name, 0, 0.0, {one: dict.fromkeys(FIGURES, figure * 2**number) for one in OPERATIONS})
        for number, workload in enumerate(workloads)
        for name, figure in figures.items()
    ]
    states = {workload: {"state_bytes": state_bytes, "n_buffers": 1} for workload in workloads}
    return Run(plan, states, rounds=rounds)


def _said(run: Run) -> dict[str, Verdict]:
    return {verdict.goal: verdict for verdict in judge(run)}


@pytest.mark.parametrize(
    ("raw", "incumbent", "words"),
    [(1.29, 5.1, ["met", "met", "met"]), (1.31, 4.9, ["NOT MET", "NOT MET", "met"])],
)
def test_goals_are_judged_by_ratio(raw: float, incumbent: float, words: list[str]) -> None:
    said = _said(_run_with({"ours": 1.0, "disk": 1.0, "ours-raw": raw, "incumbent": incumbent}))
    goals = (
        "durable save without compression, against the disk",
        "durable save faster than incumbent",
        "memory of a durable save over the state",
    )
    assert [said[goal].word for goal in goals] == words
    assert str(said[goals[1]]) == f"arrays: {goals[1]} ≥ 5x: {words[1]}, {incumbent}x"
    assert str(said[goals[2]]).endswith("≤ 256 MiB: met, 9.54e-07 MiB")


def test_goals_of_a_stored_size_are_judged_against_the_state() -> None:
    (verdict,) = judge(_run_with({"ours-planes": 66.0}, "bf16", state_bytes=100))
    assert "stored, byte planes" in str(verdict)
    assert str(verdict).endswith("met, 0.66x")


def test_many_tensors_are_judged_against_the_same_bytes_in_few() -> None:
    said = _said(_run_with({"ours": 0.01}, "torch", "many-small"))
    assert said["save, against the same bytes in 300 tensors"].measured == pytest.approx(2.0)
    assert said["load of one, against the same bytes in 300 tensors"].word == "met"
    alone = _said(_run_with({"ours": 0.01}, "many-small"))
    assert "save, against the same bytes in 300 tensors" not in alone
    assert str(alone["inspect of 10,000 tensors"]).endswith("≤ 20 ms: met, 10 ms")


def test_requests_are_judged_by_their_number() -> None:
    said = _said(_run_with({"s3-ours": 1.0}, "counter", "many-small"))
    assert str(said["counter on S3, later save"]).endswith("≤ 1 PUTs: met, 1 PUTs")
    assert str(said["inspect of 10,000 tensors on S3"]).endswith("≤ 1 requests: NOT MET, 2 requests")


@pytest.mark.parametrize(
    ("planes", "word"), [((1.04, 1.04), "met"), ((1.0, 1.2), "within noise"), ((1.1, 1.2), "NOT MET")]
)
def test_bound_closer_than_the_noise_of_writes_heeds_the_fastest_rounds(
    planes: tuple[float, float], word: str
) -> None:
    run = _run_with({"ours-planes": planes[0], "ours-raw": 1.0}, "random")
    slower = _run_with({"ours-planes": planes[1], "ours-raw": 1.0}, "random")
    run.rounds += slower.rounds
    assert {verdict.word for verdict in judge(run)} == {word}


def test_goal_whose_systems_were_not_to_run_is_not_spoken_of() -> None:
    assert judge(_run_with({"pickle": 1.0})) == []


def test_goal_whose_system_failed_was_not_measured() -> None:
    run = _run_with({"disk": 1.0, "ours-raw": 1.0})
    del run.rounds[0]
    assert render(run).endswith("against the disk ≤ 1.3x: not measured\n")


def test_goals_name_systems_workloads_operations_and_topics_that_there_are() -> None:
    for goal in GOALS:
        assert goal.topic in TOPICS
        assert goal.over[1] in OPERATIONS
        assert goal.over[2] in FIGURES
        for workload in goal.workloads:
            assert all(one in WORKLOADS and system in SYSTEMS for one, system in goal.needs(workload))


def _row(measured: float | None, *, bound: float | None = 1.0, where: str = "torch") -> dict[str, Any]:
    return Verdict("s3", "CPU", measured, bound, unit=" s/GB", where=where).to_dict()


def test_table_of_goals_has_a_row_for_every_topic_in_their_order() -> None:
    lines = list(table_of_goals([_row(0.5), _row(1.5, where="bf16"), _row(7.0, where="", bound=None)]))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert list(dict.fromkeys(row[0] for row in cells)) == list(TOPICS.values())
    told = [row[1:] for row in cells if row[0] == TOPICS["s3"]]
    assert told == [
        ["CPU", "torch", "≤ 1 s/GB", "0.5 s/GB", "met"],
        ["CPU", "bf16", "≤ 1 s/GB", "1.5 s/GB", "NOT MET"],
        ["CPU", "-", "-", "7 s/GB", "told"],
    ]
    assert [row[-1] for row in cells if row[0] != TOPICS["s3"]] == ["not measured"] * (len(TOPICS) - 1)


def test_goal_measured_by_two_parts_stands_once_in_the_table() -> None:
    (line,) = [line for line in table_of_goals([_row(None), _row(0.5), _row(0.7)]) if "CPU |" in line]
    assert "0.5 s/GB" in line
