"""Several loops in a step, one in another and one after another; and loops beside other saves."""

from __future__ import annotations

import gc

import pytest
from looping import Attempts, hold_commits
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import (
    CheckpointArgumentError,
    CheckpointException,
)

from ckptstore.errors import BackendError
from ckptstore.testing import Fault

COMMIT = "manifests/+flow=2ftrain=2fuser=3aada=2f_/f"
FULL = Fault(verb="put", prefix=COMMIT, error=lambda: BackendError("full"))


@pytest.fixture
def task(tmp_path):
    return Attempts(tmp_path)


def test_a_loop_in_a_loop_goes_on_in_the_middle_with_what_the_outer_body_had_begun_anew(task):
    steps = 0

    def step(flow, checkpoint):
        nonlocal steps
        flow.sums = []
        for flow.epoch in checkpoint.loop(range(3), every=100):
            flow.sum = 0
            for flow.batch in checkpoint.loop(range(4), wait=True):
                steps += 1
                if steps == 7:
                    raise ZeroDivisionError
                flow.sum += flow.batch
            flow.sums.append(flow.sum)

    task.fail(step)
    flow = task.run(step)
    assert flow.sums == [6, 6, 6]
    assert steps == 13  # one iteration was done twice


def test_an_inner_loop_begins_anew_in_the_next_iteration(task):
    def step(flow, checkpoint):
        flow.done = []
        for epoch in checkpoint.loop(range(3), wait=True):
            for batch in checkpoint.loop(range(2), wait=True):
                flow.done.append((epoch, batch))

    assert task.run(step).done == [(epoch, batch) for epoch in range(3) for batch in range(2)]


def test_loops_one_after_another_are_known_by_their_order(task):
    def step(flow, checkpoint):
        flow.done = []
        for n in checkpoint.loop(range(2), wait=True):
            flow.done.append(("first", n))
        flow.head = "new"
        for n in checkpoint.loop(range(3), wait=True):
            flow.head += "+"
            if n == 1 and task.n == 1:
                raise ZeroDivisionError
            flow.done.append(("second", n))

    task.fail(step)
    flow = task.run(step)
    assert flow.done == [("first", 0), ("first", 1), ("second", 0), ("second", 1), ("second", 2)]
    assert flow.head == "new+++"


def test_a_loop_that_was_followed_by_another_is_over_though_it_gets_longer(task):
    length = 2

    def step(flow, checkpoint):
        flow.done = []
        for n in checkpoint.loop(range(length), name="first", wait=True):
            flow.done.append(n)
        for n in checkpoint.loop(range(2), name="second", wait=True):
            if n == 1 and task.n == 1:
                raise ZeroDivisionError

    task.fail(step)
    length = 5
    assert task.run(step).done == [0, 1]


def test_a_handled_exception_makes_a_loop_over_once_the_next_begins(task):
    class Enough(Exception):
        pass

    def step(flow, checkpoint):
        flow.done = []
        try:
            for n in checkpoint.loop(range(5), wait=True):
                flow.done.append(n)
                if n == 2:
                    raise Enough
        except Enough:
            pass
        for n in checkpoint.loop(range(3), wait=True):
            flow.done.append(f"second {n}")
            if n == 1 and task.n == 1:
                raise ZeroDivisionError

    task.fail(step)
    assert task.run(step).done == [0, 1, 2, "second 0", "second 1", "second 2"]


def test_loops_of_a_plain_loop_are_told_apart_by_number_or_need_names(task):
    def step(flow, checkpoint):
        flow.done = []
        for fold in range(3):
            for epoch in checkpoint.loop(range(2), wait=True):
                if (fold, epoch, task.n) == (1, 1, 1):
                    raise ZeroDivisionError
                flow.done.append((fold, epoch))

    task.fail(step)
    assert task.run(step).done == [(fold, epoch) for fold in range(3) for epoch in range(2)]
    with task.begin() as checkpoint:
        list(checkpoint.loop([], name="fold"))
        with pytest.raises(CheckpointArgumentError, match="each needs a name of its own"):
            checkpoint.loop([], name="fold")


def test_loops_side_by_side_are_refused(task):
    def step(flow, checkpoint):
        flow.x = 1
        for _ in zip(checkpoint.loop(range(3)), checkpoint.loop(range(3)), strict=True):
            pass

    with pytest.raises(CheckpointException, match="'#1' and '#2' run side by side"):
        task.run(step)


def test_a_boundary_whose_save_is_due_while_another_is_in_flight_is_passed_without_waiting(task):
    def step(flow, checkpoint):
        gate = hold_commits(task.session)
        gate.close()
        for flow.epoch in checkpoint.loop(range(6)):
            if flow.epoch == 1:
                gate.wait_arrived()  # of the save after the first iteration
            if flow.epoch == 3:
                gate.open()
                checkpoint.list()

    task.run(step)
    with task.begin(load_policy="none") as checkpoint:
        saved = checkpoint.list()[::-1]
        epochs = []
        for one in saved:
            checkpoint.load(one)
            epochs.append(task.flow.epoch)
    assert epochs[0] == 0
    assert 1 not in epochs
    assert 2 not in epochs
    assert epochs[-1] == 5


def test_a_failed_background_save_is_raised_at_the_next_boundary(task):
    def step(flow, checkpoint):
        hold_commits(task.session, FULL)
        for flow.epoch in checkpoint.loop(range(10)):
            while task.session.saver.is_saving:
                pass
        raise AssertionError("the loop went on to its end")

    with pytest.raises(BackendError, match="full"):
        task.run(step)


def test_a_save_that_fails_at_break_fails_the_step_at_its_end(task):
    def step(flow, checkpoint):
        hold_commits(task.session, FULL)
        for flow.epoch in checkpoint.loop(range(5), every=100, wait=True):
            break
        flow.went_on = True

    with pytest.raises(BackendError, match="full"):
        task.run(step)
    assert task.flow.went_on
    assert any("NOT saved at the end of a loop: BackendError" in line for line in task.log)


def interrupt(**_):
    raise KeyboardInterrupt


def test_an_interrupt_of_the_save_at_break_is_raised_by_the_next_save(task):
    def step(flow, checkpoint):
        task.session.state.collect = interrupt
        for flow.epoch in checkpoint.loop(range(5), every=100):
            break
        flow.went_on = True
        checkpoint.save()
        flow.saved = True

    task.fail(step, KeyboardInterrupt)
    assert task.flow.went_on
    assert not hasattr(task.flow, "saved")


def test_a_value_that_cannot_be_saved_at_break_is_told_by_its_path(task):
    def step(flow, checkpoint):
        flow.model = {"lock": (n for n in range(3))}
        for flow.epoch in checkpoint.loop(range(5), every=100):
            break

    with pytest.raises(Exception, match=r"self\.model\['lock'\] cannot be saved"):
        task.run(step)


def test_an_iterator_that_outlives_the_step_saves_nothing(task):
    def step(flow, checkpoint):
        flow.x = 1
        kept.append(iter(checkpoint.loop(range(3), every=100)))
        next(kept[0])

    kept = []
    task.run(step)
    kept.clear()
    gc.collect()
    assert task.saved == []


def test_the_files_of_the_directory_go_along(task):
    def step(flow, checkpoint):
        for flow.epoch in checkpoint.loop(range(4), wait=True):
            path = f"{checkpoint.directory}/log"
            with open(path, "a") as log:
                log.write(f"{flow.epoch}\n")
            if flow.epoch == 2 and task.n == 1:
                raise ZeroDivisionError
        with open(path) as log:
            flow.text = log.read()

    task.fail(step)
    task.session.files.close()
    assert task.run(step).text == "0\n1\n2\n3\n"
    task.session.files.close()


def test_inspect_and_load_show_attributes_only(task):
    def step(flow, checkpoint):
        for flow.epoch in checkpoint.loop(range(2), wait=True):
            pass

    task.run(step)
    with task.begin() as checkpoint:
        assert list(checkpoint.inspect()["fields"]) == ["epoch"]
        checkpoint.load()
    assert vars(task.flow) == {"epoch": 1}
