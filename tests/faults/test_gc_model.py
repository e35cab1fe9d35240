"""The protocol holds in every interleaving that was tried, and each of its rules is needed."""

from __future__ import annotations

import pytest
from gc_model import HIDING, HIDING_ONCE, SAFE, WEAK, count, run


@pytest.mark.parametrize("name", SAFE)
@pytest.mark.parametrize(
    "n_seeds", [2000, pytest.param(20_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])]
)
def test_no_interleaving_loses_anything(name: str, n_seeds: int) -> None:
    assert count(SAFE[name], n_seeds) == (0, None)


@pytest.mark.parametrize("name", WEAK)
def test_without_the_rule_something_is_lost(name: str) -> None:
    assert any(run(WEAK[name], seed) for seed in range(4000))


def test_what_one_listing_hides_the_other_shows() -> None:
    once, _ = count(HIDING_ONCE, 400)
    twice, _ = count(HIDING, 400)
    assert once > 10 * max(twice, 1)


def test_a_seed_tells_the_same_again() -> None:
    weak = WEAK["no limit of a save"]
    found = [run(weak, seed) for seed in range(50)]
    assert any(found)
    assert found == [run(weak, seed) for seed in range(50)]
