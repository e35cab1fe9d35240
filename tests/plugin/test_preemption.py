"""When the machine is about to go away: what is finished, and what is saved of the step."""

from __future__ import annotations

import signal
import threading

import pytest
from looping import Attempts, hold_commits
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointArgumentError
from metaflow_extensions.ckptstore.plugins.checkpoint.options import DEFAULTS, parse_options
from metaflow_extensions.ckptstore.plugins.checkpoint.preempting import preemption

from ckptstore.errors import BackendError, UnserializableError
from ckptstore.testing import Fault

COMMIT = "manifests/+flow=2ftrain=2fuser=3aada=2f_/f"


class Log(list):
    """The log of attempts, on which a test can wait for a line."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()

    def append(self, line):
        with self.changed:
            super().append(line)
            self.changed.notify_all()

    def wait_for(self, text):
        with self.changed:
            assert self.changed.wait_for(lambda: any(text in line for line in self), 10), list(self)


@pytest.fixture
def task(tmp_path, monkeypatch):
    monkeypatch.setattr(preemption, "POLL_S", 0.005)
    task = Attempts(tmp_path / "datastore")
    task.log = Log()
    return task


@pytest.fixture
def notice(tmp_path):
    return tmp_path / "spot_termination_notice"


NOTICED = "a notice that the machine goes away: what is being saved is finished"


def watch(task, notice):
    task.session.watch(str(notice))


def test_what_is_being_saved_is_finished_and_the_step_is_told(task, notice):
    with task.begin() as checkpoint:
        task.flow.x = 1
        gate = hold_commits(task.session)
        gate.close()
        watch(task, notice)
        artifact = checkpoint.save(wait=False)
        gate.wait_arrived()
        assert not checkpoint.preempted
        notice.write_text("soon")
        task.log.wait_for(NOTICED)
        assert checkpoint.preempted
        gate.open()
        task.log.wait_for("saved 'mfchckpt'")
        assert artifact.wait().size > 0


def test_the_last_mark_is_saved_and_never_the_attributes_as_they_are(task, notice):
    with task.begin(on_preemption="save") as checkpoint:
        watch(task, notice)
        task.flow.x, task.flow.y = 1, [1]
        checkpoint.mark("first")
        task.flow.x, task.flow.y[0] = 2, 2
        checkpoint.mark("second", metadata={"at": 2})
        task.flow.x = "half"
        task.flow.y[0] = "done"
        notice.write_text("soon")
        task.log.wait_for("saved 'second'")
    with task.begin() as checkpoint:
        assert checkpoint.info.metadata == {"at": 2}
        checkpoint.load()
        assert vars(task.flow) == {"x": 2, "y": [2]}
        assert [one.name for one in checkpoint.list()] == ["second"]


def test_a_mark_is_not_saved_without_being_asked_for(task, notice):
    with task.begin() as checkpoint:
        watch(task, notice)
        task.flow.x = 1
        checkpoint.mark()
        notice.write_text("soon")
        task.log.wait_for(NOTICED)
    assert task.saved == []


def test_a_mark_that_is_older_than_what_is_saved_is_not_needed(task, notice):
    with task.begin(on_preemption="save") as checkpoint:
        watch(task, notice)
        task.flow.x = 1
        checkpoint.mark("marked")
        checkpoint.save("saved", wait=False)
        notice.write_text("soon")
        task.log.wait_for("newer, so the mark is not needed")
    assert [one.name for one in task.saved] == ["saved"]


def test_a_mark_is_needed_if_what_was_saved_since_is_no_start(task, notice):
    with task.begin(on_preemption="save") as checkpoint:
        watch(task, notice)
        task.flow.x = 1
        checkpoint.mark("marked")
        checkpoint.save("aside", latest=False)
        notice.write_text("soon")
        task.log.wait_for("saved 'marked'")


def test_a_mark_is_needed_if_the_save_after_it_fails(task, notice):
    full = Fault(verb="put", prefix=COMMIT, error=lambda: BackendError("full"))

    def step(flow, checkpoint):
        hold_commits(task.session, full)
        watch(task, notice)
        flow.x = 1
        checkpoint.mark("marked")
        checkpoint.save("failing", wait=False)
        notice.write_text("soon")
        task.log.wait_for("saved 'marked'")

    task.fail(step, BackendError, on_preemption="save")
    assert [one.name for one in task.saved] == ["marked"]


def test_a_mark_after_the_notice_is_saved_at_once(task, notice):
    notice.write_text("soon")
    with task.begin(on_preemption="save") as checkpoint:
        watch(task, notice)
        task.log.wait_for("there is no mark to save")
        task.flow.x = 1
        checkpoint.mark("late")
        task.log.wait_for("saved 'late'")
        checkpoint.mark("later")
        task.log.wait_for("saved 'later'")


def test_a_mark_that_cannot_be_saved_is_told(task, notice):
    full = Fault(verb="put", prefix=COMMIT, error=lambda: BackendError("full"))
    with task.begin(on_preemption="save") as checkpoint:
        hold_commits(task.session, full)
        watch(task, notice)
        task.flow.x = 1
        checkpoint.mark()
        notice.write_text("soon")
        task.log.wait_for("NOT saved, the last mark: BackendError: full")


def test_a_mark_of_what_cannot_be_saved_fails_where_it_is_made(task):
    with task.begin() as checkpoint:
        task.flow.x = (n for n in range(3))
        with pytest.raises(UnserializableError, match=r"self\.x"):
            checkpoint.mark()
        with pytest.raises(CheckpointArgumentError, match="name must be a text"):
            checkpoint.mark("")


def test_a_mark_stores_nothing_and_waits_for_nothing(task):
    with task.begin() as checkpoint:
        task.flow.x = 1
        gate = hold_commits(task.session)
        gate.close()
        artifact = checkpoint.save(wait=False)
        gate.wait_arrived()
        checkpoint.mark()
        assert artifact.is_pending
        gate.open()
    assert len(task.saved) == 1


def test_a_loop_saves_durably_after_the_iteration_that_is_under_way(task, notice):
    def step(flow, checkpoint):
        watch(task, notice)
        for flow.epoch in checkpoint.loop(range(9), every="1 h"):
            if flow.epoch == 2:
                notice.write_text("soon")
                task.log.wait_for(NOTICED)
            if flow.epoch == 3:
                assert [one.metadata for one in checkpoint.list()] == [{}]
                raise ZeroDivisionError

    task.fail(step)
    with task.begin() as checkpoint:
        checkpoint.load()
        assert task.flow.epoch == 2


def test_a_mark_in_the_body_of_a_loop_begins_the_iteration_again_from_there(task, notice):
    def step(flow, checkpoint):
        watch(task, notice)
        flow.batch, flow.sum = 0, 0
        for flow.epoch in checkpoint.loop(range(3), every="1 h"):
            while flow.batch < 4:
                flow.sum += 1
                flow.batch += 1
                checkpoint.mark()
                if (flow.epoch, flow.batch, task.n) == (1, 2, 1):
                    flow.batch = "half"
                    notice.write_text("soon")
                    task.log.wait_for("saved 'mfchckpt'")
                    raise ZeroDivisionError
            flow.batch = 0

    task.fail(step, on_preemption="save")
    notice.unlink()
    assert task.run(step).sum == 12


def test_nothing_is_watched_where_nothing_was_asked_for(task):
    threads, handler = set(threading.enumerate()), signal.getsignal(signal.SIGTERM)
    with task.begin():
        task.session.watch(None)
        assert set(threading.enumerate()) == threads
        assert signal.getsignal(signal.SIGTERM) is handler


def test_the_watcher_ends_with_the_step(task, notice):
    with task.begin():
        watch(task, notice)
        assert "ckptstore-preemption" in {thread.name for thread in threading.enumerate()}
    assert "ckptstore-preemption" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("value", [None, True, "", "Save", "ignore", ["save"]])
def test_on_preemption_is_one_of_two_words(value):
    with pytest.raises(CheckpointArgumentError, match="on_preemption must be 'finish'"):
        parse_options(DEFAULTS | {"on_preemption": value})


def test_sigterm_is_a_flag():
    assert parse_options(DEFAULTS | {"sigterm": "true"}).sigterm
    with pytest.raises(CheckpointArgumentError, match="sigterm must be True or False"):
        parse_options(DEFAULTS | {"sigterm": "yes"})
