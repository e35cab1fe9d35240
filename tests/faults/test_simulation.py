"""Whatever crashes, lies or races in a simulated world, no promise is broken; and broken code is noticed.

``python tests/faults/simulation.py SEED`` lives through one world again and prints its end.
"""

from __future__ import annotations

from collections import Counter

import pytest
from simulation import WEATHERS, simulate
from simulation_mutants import MUTANTS

SEEDS = [
    *(pytest.param(range(at, at + 30), id=f"{at}") for at in range(0, 150, 30)),
    *(
        pytest.param(range(at, at + 100), id=f"{at}-", marks=[pytest.mark.soak, pytest.mark.timeout(600)])
        for at in range(150, 2350, 100)
    ),
]
HAPPENS = (
    "acknowledged",
    "answers lost",
    "chunks deleted",
    "collections",
    "collections aborted",
    "crashes",
    "deletes",
    "late",
    "loads",
    "lost",
    "own chunks deleted",
    "purged",
    "stalls",
    "undeletes",
)


@pytest.mark.parametrize("seeds", SEEDS)
def test_no_world_breaks_a_promise(seeds: range) -> None:
    totals: Counter[str] = Counter()
    for seed in seeds:
        outcome = simulate(seed)
        assert outcome.broken is None, "\n".join([*outcome.trace[-40:], f"seed {seed}: {outcome.broken}"])
        totals += outcome.counts
    # A world in which nothing happens proves nothing.
    assert [what for what in HAPPENS if not totals[what]] == []


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_code_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks, weather = MUTANTS[name]
    breaks(monkeypatch)
    assert any(simulate(seed, weather).broken for seed in range(300))


@pytest.mark.parametrize("weather", WEATHERS)
def test_a_seed_is_the_same_world_again(weather: str) -> None:
    first, again = simulate(1, weather), simulate(1, weather)
    assert first.trace == again.trace
    assert len(first.trace) > 20
    assert first.trace != simulate(2, weather).trace
