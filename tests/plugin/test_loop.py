"""`current.checkpoint.loop`: what a step sees of it, attempt by attempt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from looping import Attempts
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import (
    CheckpointArgumentError,
    CheckpointException,
)


@pytest.fixture
def task(tmp_path):
    return Attempts(tmp_path)


def counting(n, fail_at=None, *, break_at=None, **options):
    """Return a step that counts what it does; it fails at the end of an iteration, which is then half done."""

    def step(flow, checkpoint):
        flow.done, flow.sum = [], 0
        for flow.epoch in checkpoint.loop(range(n), **{"wait": True} | options):
            flow.done.append(flow.epoch)
            if flow.epoch == fail_at:
                raise ZeroDivisionError
            flow.sum += flow.epoch
            if flow.epoch == break_at:
                break

    return step


def test_a_retry_goes_on_with_the_attributes_of_the_last_save(task):
    failed = task.fail(counting(6, fail_at=3))
    assert failed.done == [0, 1, 2, 3]
    flow = task.run(counting(6))
    assert flow.done == [0, 1, 2, 3, 4, 5]
    assert flow.sum == 15
    assert flow.epoch == 5


def test_everything_since_the_last_save_is_done_again(task):
    seen = []

    def step(flow, checkpoint):
        flow.sum = 0
        for flow.epoch in checkpoint.loop(range(10), every=4, wait=True):
            seen.append(flow.epoch)
            flow.sum += flow.epoch
            if len(seen) == 7:
                raise ZeroDivisionError

    task.fail(step)
    flow = task.run(step)
    assert seen == [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9]
    assert flow.sum == 45


def test_it_saves_at_its_cadence_and_at_its_end_and_nothing_twice(task):
    def step(flow, checkpoint):
        def metadata():
            return {"at": flow.epoch}

        for flow.epoch in checkpoint.loop(range(7), every=3, wait=True, metadata=metadata):
            pass

    task.run(step)
    assert [one.metadata["at"] for one in task.saved] == [2, 5, 6]
    task.run(step)  # there is nothing left to do, and nothing new to save
    assert len(task.saved) == 3


def test_a_cadence_in_time_counts_from_the_last_save_of_any_loop(task):
    now = 0.0

    def step(flow, checkpoint):
        nonlocal now
        task.session.loops.clock = lambda: now
        for flow.a in checkpoint.loop(range(4), every="10 s", name="outer", wait=True):
            for flow.b in checkpoint.loop(range(3), every="10 s", name="inner", wait=True):
                now += 3.0

    task.run(step)
    # After 12, 24 and 36 s, when only the inner loop is at a boundary first, and at the end.
    assert [one.name for one in task.saved] == ["inner", "inner", "inner", "outer"]


def test_a_loop_that_was_left_by_break_is_over_for_a_retry(task):
    counted = counting(10, break_at=4, every=100)

    def step(flow, checkpoint):
        counted(flow, checkpoint)
        flow.after = True
        raise ZeroDivisionError

    task.fail(step)
    flow = task.run(counting(10, break_at=4))
    assert flow.done == [0, 1, 2, 3, 4]
    assert flow.sum == 10
    assert not hasattr(flow, "after")


def test_break_through_a_progress_bar_is_a_break_too(task):
    def bar(items):
        try:
            for item in items:
                yield item
                del item
        finally:
            del items

    def step(flow, checkpoint):
        flow.done = []
        for epoch in bar(checkpoint.loop(range(10), every=100)):
            flow.done.append(epoch)
            if epoch == 4:
                break
        raise ZeroDivisionError

    task.fail(step)
    assert task.fail(step).done == [0, 1, 2, 3, 4]


def test_what_an_exception_left_half_done_is_never_saved(task):
    step = counting(6, fail_at=0)
    task.fail(step)
    assert task.saved == []


def test_a_loop_left_by_an_exception_that_was_handled_is_not_taken_for_finished(task):
    def step(flow, checkpoint):
        try:
            counting(6, fail_at=3)(flow, checkpoint)
        except ZeroDivisionError:
            checkpoint.save("emergency")  # half done
            raise

    task.fail(step)
    assert [one.name for one in task.saved][-1] == "emergency"
    flow = task.run(counting(6))
    assert flow.done == [0, 1, 2, 3, 4, 5]


def test_after_an_error_behind_the_loop_a_retry_does_not_redo_it(task):
    def step(flow, checkpoint):
        counting(5, every=100)(flow, checkpoint)
        flow.evaluated = True
        raise ZeroDivisionError

    task.fail(step)
    flow = task.fail(step)
    assert flow.done == [0, 1, 2, 3, 4]
    assert len(task.saved) == 1


def test_a_longer_loop_goes_on_and_a_shorter_one_has_nothing_to_do(task):
    task.run(counting(3))
    assert task.run(counting(5)).done == [0, 1, 2, 3, 4]
    assert task.run(counting(2)).done == [0, 1, 2, 3, 4]


class Items(Sequence):
    def __init__(self):
        self.got = []

    def __len__(self):
        return 5

    def __getitem__(self, at):
        if not at < 5:
            raise IndexError
        self.got.append(at)
        return f"item {at}"


@pytest.mark.parametrize("kind", [Items, lambda: (f"item {n}" for n in range(5)), lambda: iter(Items())])
def test_any_iterable_goes_on_where_it_was(task, kind):
    def step(flow, checkpoint):
        for flow.item in checkpoint.loop(kind(), wait=True):
            if flow.item == "item 2" and task.n == 1:
                raise ZeroDivisionError
            flow.last = flow.item

    task.fail(step)
    assert task.run(step).last == "item 4"


def test_a_sequence_is_read_from_where_it_goes_on(task):
    task.fail(counting(4, fail_at=3))
    items = Items()

    def step(flow, checkpoint):
        for flow.epoch in checkpoint.loop(items):
            pass

    task.run(step)
    assert items.got == [3, 4]


def test_the_attributes_are_restored_before_the_first_item_is_given(task):
    task.fail(counting(4, fail_at=2))

    def step(flow, checkpoint):
        flow.done = ["new"]
        loop = checkpoint.loop(range(4))
        assert flow.done == ["new"]
        assert next(iter(loop)) == 2
        assert flow.done == [0, 1]

    task.run(step)


def test_load_before_the_loop_is_enough(task):
    task.fail(counting(4, fail_at=2))

    def step(flow, checkpoint):
        checkpoint.load()
        flow.done.append("mine")
        for flow.epoch in checkpoint.loop(range(4)):
            flow.done.append(flow.epoch)

    assert task.run(step).done == [0, 1, "mine", 2, 3]
    assert sum("restored" in line for line in task.log) == 1


def test_load_of_a_checkpoint_from_before_goes_on_from_there(task):
    task.run(counting(4))

    def step(flow, checkpoint):
        checkpoint.load(checkpoint.list()[-1])
        for flow.epoch in checkpoint.loop(range(4)):
            flow.done.append(flow.epoch)

    assert task.run(step, load_policy="none").done == [0, 1, 2, 3]


def test_loops_of_another_step_say_nothing(task):
    task.run(counting(4))
    artifact = task.saved[-1]

    def step(flow, checkpoint):
        checkpoint.load(artifact)
        flow.sum = 0
        for flow.epoch in checkpoint.loop(range(4)):
            flow.sum += 1

    other = {"step": "evaluate", "task_id": "3"}
    assert task.run(step, load_policy="none", identity=other).sum == 4


def test_a_save_in_the_body_is_kept_but_no_start(task):
    def step(flow, checkpoint):
        flow.done = []
        for flow.epoch in checkpoint.loop(range(6), every=2, wait=True):
            flow.done.append(flow.epoch)
            if flow.epoch == 3 and task.n == 1:
                checkpoint.save("best", metadata={"loss": 0.5})
                raise ZeroDivisionError

    task.fail(step)
    best = task.saved[-1]
    assert best.name == "best"
    flow = task.run(step)
    assert flow.done == [0, 1, 2, 3, 4, 5]
    with task.begin(load_policy="none") as checkpoint:
        checkpoint.load(best)
    assert task.flow.done == [0, 1, 2, 3]


def test_a_save_in_the_body_may_be_called_a_start_and_its_iteration_begins_again(task):
    def step(flow, checkpoint):
        flow.batch, flow.sum = 0, 0
        for flow.epoch in checkpoint.loop(range(3), every=100):
            while flow.batch < 4:
                flow.sum += 1
                flow.batch += 1
                checkpoint.save("batch", latest=True)
                if (flow.epoch, flow.batch, task.n) == (1, 2, 1):
                    raise ZeroDivisionError
            flow.batch = 0

    task.fail(step)
    assert task.run(step).sum == 12


def test_the_best_policy_finds_what_was_saved_in_a_body(task):
    def step(flow, checkpoint):
        for flow.epoch in checkpoint.loop(range(4), wait=True):
            checkpoint.save("best", metadata={"loss": abs(flow.epoch - 2)})

    task.run(step)
    with task.begin(load_policy="best:loss") as checkpoint:
        assert checkpoint.info.metadata == {"loss": 0}


def test_a_save_before_the_loop_of_a_retry_hides_nothing(task):
    def step(flow, checkpoint):
        flow.data = "prepared"
        checkpoint.save("prepared")
        if task.n == 2:
            raise ZeroDivisionError
        counting(4, fail_at=3 if task.n == 1 else None)(flow, checkpoint)

    task.fail(step)
    task.fail(step)
    flow = task.run(step)
    assert flow.done == [0, 1, 2, 3]
    assert any("'mfchckpt'" in line and "found" in line for line in task.log[-6:])


@pytest.mark.parametrize(
    ("iterable", "options", "message"),
    [
        ({1, 2}, {}, "cannot go over a set"),
        (frozenset(), {}, "cannot go over a set"),
        (5, {}, "iterable, such as range"),
        ([], {"every": "soon"}, "every must be a count"),
        ([], {"every": True}, "every must be a count"),
        ([], {"name": ""}, "name must be a text"),
        ([], {"metadata": 3}, "metadata must be a mapping or a function"),
        ([], {"wait": None}, "wait must be True or False"),
    ],
    ids=str,
)
def test_wrong_arguments_are_told_before_anything_happens(task, iterable, options, message):
    with task.begin() as checkpoint, pytest.raises(CheckpointArgumentError, match=message):
        checkpoint.loop(iterable, **options)


def test_a_loop_is_gone_through_once(task):
    with task.begin() as checkpoint:
        loop = checkpoint.loop(range(0))
        assert list(loop) == []
        with pytest.raises(CheckpointException, match="gone through already"):
            list(loop)


def test_a_step_without_attributes_is_told_that_nothing_can_be_saved(task):
    def step(flow, checkpoint):
        for _ in checkpoint.loop(range(3), wait=True):
            pass

    task.fail(step, CheckpointException)
