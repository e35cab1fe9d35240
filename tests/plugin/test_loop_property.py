"""Whatever happens to a step with loops, and however often: its result is that of a run without faults."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

from hypothesis import example, given, settings
from hypothesis import strategies as st
from metaflow_extensions.ckptstore.plugins.checkpoint.loops.loop import Loops
from metaflow_extensions.ckptstore.plugins.checkpoint.loops.loop_position import Positions
from metaflow_extensions.ckptstore.plugins.checkpoint.reserved import LOOP


class Fault(Exception):
    """Ends an attempt: the step raises, or is killed, which for what is saved is the same."""


@dataclass
class Shelf:
    """All that was saved, oldest first: attributes, positions."""

    saved: list[tuple[dict, dict]] = field(default_factory=list)


class Attempt:
    """A host of loops on a shelf in memory; ``self`` of the step is ``state``."""

    def __init__(self, shelf, ticks, busy):
        self.shelf = shelf
        self.state = {}
        self.ticks = ticks
        self.busy = busy
        self.n_asked = 0
        self.deferred = []
        self.is_preempted = False
        self.loops = Loops(self)
        self.start = len(shelf.saved) - 1
        if self.start >= 0 and LOOP in shelf.saved[self.start][1]:
            self.loops.expect()

    # What loops ask for.
    def restore_start(self, destination=None):
        return (None, None) if self.start < 0 else (self.start, self.restore(self.start))

    def restore(self, number, destination=None):
        state, fields = self.shelf.saved[number]
        self.state.update(copy.deepcopy(state))
        return Positions.from_plain(fields[LOOP]) if LOOP in fields else None

    def save(self, name, metadata, *, wait):
        self.shelf.saved.append((copy.deepcopy(self.state), copy.deepcopy(self.loops.fields())))

    def reserve(self):
        pass

    def defer(self, error):
        self.deferred.append(error)

    @property
    def is_saving(self):
        self.n_asked += 1
        return bool(self.busy >> (self.n_asked % 16) & 1)

    # What the step does.
    def load(self):
        if self.start >= 0:
            self.loops.adopt(self.start, self.restore(self.start))

    def user_save(self):
        if self.loops.is_resting:
            self.save("mine", None, wait=True)

    def loop(self, n, plan):
        return self.loops.make(
            plan.kind(range(n)), every=plan.every, name=plan.name, label="x", metadata=None, wait=plan.wait
        )

    def tick(self):
        self.ticks -= 1
        if self.ticks == 0:
            raise Fault


@dataclass(frozen=True)
class Plan:
    """A loop of the step: how long, how often it saves, where it breaks, what is in its body."""

    n: int
    every: int
    name: str | None
    wait: bool
    kind: type
    break_at: int | None
    saves: bool
    inner: tuple


def plans(depth):
    inner = plans(depth - 1) if depth else st.just(())
    return st.lists(
        st.builds(
            Plan,
            n=st.integers(0, 4),
            every=st.integers(1, 3),
            name=st.just(None),
            wait=st.booleans(),
            kind=st.sampled_from([list, iter, lambda items: (item for item in items)]),
            break_at=st.none() | st.integers(0, 3),
            saves=st.booleans(),
            inner=inner,
        ),
        max_size=2,
    ).map(tuple)


def go_through(attempt, plan, key):
    """Go through one loop; what it does depends on the attributes, and starts some of them anew."""
    state = attempt.state
    for state[key] in attempt.loop(plan.n, plan):
        attempt.tick()
        state["trace"].append((key, state[key]))
        attempt.tick()
        for number, inner in enumerate(plan.inner):
            state[f"sum{key}{number}"] = 0
            attempt.tick()
            go_through(attempt, inner, f"{key}{number}")
            state["trace"].append(state[f"sum{key}{number}"])
        state[f"sum{key}"] = state.get(f"sum{key}", 0) + state[key] + 1
        if plan.saves:
            attempt.user_save()
        attempt.tick()
        if state[key] == plan.break_at:
            break
    attempt.tick()


def step(attempt, program, loads):
    if loads:
        attempt.load()
    if not loads or attempt.start < 0:
        attempt.state.update(trace=[])
        attempt.user_save()
    for number, plan in enumerate(program):
        attempt.tick()
        go_through(attempt, plan, str(number))
        attempt.user_save()
        attempt.state["trace"].append(("after", number))
        attempt.tick()


SIMPLE = Plan(n=1, every=1, name=None, wait=False, kind=list, break_at=None, saves=False, inner=())


@settings(max_examples=300, deadline=None)
@example(  # it was left by break with a loop in its body, which does not begin again
    program=(SIMPLE, replace(SIMPLE, break_at=0, inner=(SIMPLE,))), loads=False, busy=0, faults=[17]
)
@given(
    program=plans(2),
    loads=st.booleans(),
    busy=st.integers(0, 2**16 - 1),
    faults=st.lists(st.integers(1, 60), max_size=6),
)
def test_the_result_is_that_of_an_uninterrupted_run(program, loads, busy, faults):
    undisturbed = Attempt(Shelf(), 0, 0)
    step(undisturbed, program, loads)
    shelf = Shelf()
    for ticks in [*faults, 0]:
        attempt = Attempt(shelf, ticks, busy)
        try:
            step(attempt, program, loads)
            break
        except Fault:
            assert not attempt.deferred
    assert attempt.state == undisturbed.state
