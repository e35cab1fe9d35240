"""Real processes that die in a loop at random moments: the result is that of a run without a kill."""

import random

import pytest

pytestmark = pytest.mark.metaflow

N_EPOCHS, N_BATCHES, N_ATTEMPTS = 5, 12, 5


def uninterrupted():
    model, sums = 0.0, []
    for epoch in range(N_EPOCHS):
        total = 0.0
        for batch in range(N_BATCHES):
            model *= 1.0001
            model += epoch * N_BATCHES + batch
            total += model
        sums.append(total)
    return model, sums


def test_a_step_that_is_killed_again_and_again_ends_with_the_same_result(run_flow):
    seed = random.randrange(10**6)
    ran = run_flow("killed_loops", seed=seed)
    print("seed", seed, ran.told)
    model, sums = uninterrupted()
    assert (ran.told["first"], ran.told["last"], ran.told["sums"]) == (model, model, sums)
    began = [tuple(ran.told[f"began{n}"]) for n in range(N_ATTEMPTS) if f"began{n}" in ran.told]
    assert len(began) >= 2
    assert began == sorted(began)  # nothing that was durable is lost
