"""SIGTERM, where it is asked to be heard: first what is being saved, then its course."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading

import pytest
from looping import Attempts, hold_commits
from test_preemption import Log

from ckptstore.errors import BackendError
from ckptstore.testing import Fault

COMMIT = "manifests/+flow=2ftrain=2fuser=3aada=2f_/f"


@pytest.fixture
def task(tmp_path):
    task = Attempts(tmp_path)
    task.log = Log()
    return task


class Handler:
    """A handler of SIGTERM that was there before; it notes what was saved when it was called."""

    def __init__(self):
        self.called = threading.Event()
        self.saw = None
        self.task = None

    def __call__(self, number, frame):
        self.saw = [line for line in self.task.log if line.startswith("saved")]
        self.called.set()


@pytest.fixture
def before(task):
    """Whoever had SIGTERM before, and has it afterwards."""
    handler = Handler()
    handler.task = task
    old = signal.signal(signal.SIGTERM, handler)
    wakeup = signal.set_wakeup_fd(-1)
    yield handler
    assert signal.signal(signal.SIGTERM, old) is handler
    assert signal.set_wakeup_fd(wakeup) == -1


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for(event):
    """Wait in the main thread, which handles signals meanwhile."""
    assert event.wait(10)


def test_what_is_being_saved_is_finished_before_the_signal_takes_its_course(task, before):
    with task.begin(sigterm=True) as checkpoint:
        task.flow.x = 1
        gate = hold_commits(task.session)
        task.session.watch(None)
        gate.close()
        checkpoint.save(wait=False)
        gate.wait_arrived()
        terminate()
        task.log.wait_for("SIGTERM: what is being saved is finished")
        assert checkpoint.preempted
        assert not before.called.is_set()
        gate.open()
        wait_for(before.called)
        assert len(before.saw) == 1
        assert signal.getsignal(signal.SIGTERM) is before


def test_the_last_mark_is_saved_before_it_takes_its_course(task, before):
    with task.begin(sigterm=True, on_preemption="save") as checkpoint:
        task.session.watch(None)
        task.flow.x = 1
        checkpoint.mark("marked")
        task.flow.x = "half"
        terminate()
        wait_for(before.called)
        assert before.saw[0].startswith("saved 'marked'")
    with task.begin() as checkpoint:
        checkpoint.load()
        assert task.flow.x == 1


def test_a_background_save_that_fails_holds_nothing_up_and_is_raised(task, before):
    full = Fault(verb="put", prefix=COMMIT, error=lambda: BackendError("full"))

    def step(flow, checkpoint):
        hold_commits(task.session, full)
        task.session.watch(None)
        flow.x = 1
        checkpoint.save(wait=False)
        terminate()
        wait_for(before.called)

    task.fail(step, BackendError, sigterm=True)


def test_a_save_that_the_step_waits_for_is_finished_too(task, before):
    with task.begin(sigterm=True) as checkpoint:
        task.flow.x = 1
        gate = hold_commits(task.session)
        task.session.watch(None)
        gate.close()

        def interrupt():
            gate.wait_arrived()
            terminate()
            task.log.wait_for("SIGTERM: what")
            assert not before.called.is_set()
            gate.open()

        beside = threading.Thread(target=interrupt)
        beside.start()
        checkpoint.save(wait=True)
        beside.join()
        wait_for(before.called)
        assert len(before.saw) == 1


def test_a_signal_that_was_ignored_before_is_ignored_after(task, before):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with task.begin(sigterm=True, on_preemption="save") as checkpoint:
        task.session.watch(None)
        task.flow.x = 1
        checkpoint.mark()
        terminate()
        task.log.wait_for("saved 'mfchckpt'")
    assert signal.signal(signal.SIGTERM, before) == signal.SIG_IGN


def test_a_step_that_ends_gives_the_handler_and_the_descriptor_back(task, before):
    ears, mouth = socket.socketpair()
    mouth.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno())
    with task.begin(sigterm=True):
        task.session.watch(None)
        assert signal.getsignal(signal.SIGTERM) is not before
        assert signal.set_wakeup_fd(signal.set_wakeup_fd(-1)) == -1
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == mouth.fileno()
    ears.close()
    mouth.close()


def test_other_signals_reach_whoever_listened_for_them(task, before):
    ears, mouth = socket.socketpair()
    ears.settimeout(10)
    mouth.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno())
    old = signal.signal(signal.SIGUSR1, lambda *_: None)
    with task.begin(sigterm=True):
        task.session.watch(None)
        signal.raise_signal(signal.SIGUSR1)
        assert ears.recv(1) == bytes([signal.SIGUSR1])
        terminate()
        assert ears.recv(1) == bytes([signal.SIGTERM])
        wait_for(before.called)
    signal.signal(signal.SIGUSR1, old)
    assert signal.set_wakeup_fd(-1) == mouth.fileno()
    ears.close()
    mouth.close()


def test_it_is_heard_though_asyncio_has_taken_the_descriptor_over(task, before):
    async def main():
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
        terminate()
        assert await asyncio.to_thread(before.called.wait, 10)

    with task.begin(sigterm=True):
        task.session.watch(None)
        asyncio.run(main())


def test_a_handler_that_the_step_puts_in_its_place_stays(task, before):
    mine = Handler()
    mine.task = task
    with task.begin(sigterm=True):
        task.session.watch(None)
        signal.signal(signal.SIGTERM, mine)
    assert signal.signal(signal.SIGTERM, before) is mine


def test_a_forked_child_is_as_if_nobody_listened(task, before):
    with task.begin(sigterm=True) as checkpoint:
        task.session.watch(None)
        child = os.fork()
        if child == 0:
            ok = signal.getsignal(signal.SIGTERM) is before and signal.set_wakeup_fd(-1) == -1
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if ok:
                terminate()
            os._exit(3)
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGTERM
        assert not checkpoint.preempted
        assert not before.called.is_set()


def test_a_step_beside_the_main_thread_is_told_that_nothing_is_heard(task, before):
    def run():
        with task.begin(sigterm=True):
            task.session.watch(None)

    beside = threading.Thread(target=run)
    beside.start()
    beside.join()
    assert any("SIGTERM is not heard: the step does not run in the main thread" in line for line in task.log)
