"""The turns of a task's processes: one at a time, noted for the others, and none after the task."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
from metaflow import Checkpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.current_checkpoint import CurrentCheckpoint
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointException
from metaflow_extensions.ckptstore.plugins.checkpoint.outside.children import VARIABLE, inherited_offer
from metaflow_extensions.ckptstore.plugins.checkpoint.turns import Turns
from sessions import begin_attempt

TASK = """
import sys, time
from metaflow_extensions.ckptstore.plugins.checkpoint.turns import Turns
turns = Turns.of_task()
print(turns.folder, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def task():
    turns = Turns.of_task()
    yield turns
    turns.close()


def enter(turns):
    """Take a turn and tell whether the line had to be begun anew."""
    begun = []
    turns.enter(lambda: begun.append(True))
    return bool(begun)


def test_a_line_is_begun_anew_exactly_when_others_saved_since(task):
    child = Turns.of_child(task.folder)
    told = []
    for who in (task, task, child, child, task, child):
        told.append(enter(who))
        who.leave()
    assert told == [False, False, True, False, True, True]


def test_the_first_turn_of_a_child_begins_a_line(task):
    child = Turns.of_child(task.folder)
    assert enter(child)
    child.leave()
    assert enter(task)
    task.leave()


def test_a_line_that_could_not_be_begun_is_begun_by_the_next_turn(task):
    child = Turns.of_child(task.folder)

    def fail():
        raise OSError("the storage is away")

    with pytest.raises(OSError, match="away"):
        child.enter(fail)
    assert enter(child)
    child.leave()


def test_a_turn_waits_for_the_other_process_and_is_shared_by_threads(task):
    child = Turns.of_child(task.folder)
    task.enter(lambda: None)
    task.enter(lambda: None)
    entered = threading.Event()
    waiting = threading.Thread(target=lambda: (child.enter(lambda: None), entered.set()))
    waiting.start()
    task.leave()
    assert not entered.is_set()
    task.leave()
    waiting.join(20)
    assert entered.is_set()
    child.leave()


def test_a_process_that_was_forked_in_a_turn_does_not_keep_it(task):
    task.enter(lambda: None)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    task.leave()
    other = Turns.of_child(task.folder)
    other.enter(lambda: None)
    other.leave()
    os.close(write)
    os.close(read)
    os.waitpid(child, 0)


def test_a_forked_copy_of_the_tasks_turns_is_a_childs(task):
    task.enter(lambda: None)
    task.leave()
    child = os.fork()
    if child == 0:
        told = enter(task)
        task.leave()
        task.close()
        os._exit(0 if told and os.path.isdir(task.folder) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert enter(task)
    task.leave()


def test_after_the_tasks_end_no_turn_is_given(task):
    child = Turns.of_child(task.folder)
    task.close()
    with pytest.raises(CheckpointException, match="has ended"):
        child.enter(lambda: None)
    assert not os.path.exists(task.folder)


def test_after_the_task_was_killed_no_turn_is_given_and_nothing_is_left():
    with subprocess.Popen(
        [sys.executable, "-c", TASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as task:
        assert task.stdin is not None
        assert task.stdout is not None
        folder = task.stdout.readline().strip()
        child = Turns.of_child(folder)
        assert enter(child)
        child.leave()
        task.send_signal(signal.SIGKILL)
        task.wait()
    with pytest.raises(CheckpointException, match="has ended"):
        child.enter(lambda: None)
    assert not os.path.exists(folder)


def test_the_next_task_removes_what_a_killed_one_left_and_leaves_what_lives():
    with subprocess.Popen(
        [sys.executable, "-c", TASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as killed:
        assert killed.stdout is not None
        folder = killed.stdout.readline().strip()
        living = Turns.of_task()
        assert os.path.isdir(folder)
        killed.kill()
        killed.wait()
    other = Turns.of_task()
    assert not os.path.exists(folder)
    assert os.path.isdir(living.folder)
    other.close()
    living.close()


def test_a_folder_that_others_could_write_to_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    shared = tmp_path / f"ckptstore-{os.geteuid()}"
    shared.mkdir()
    shared.chmod(0o777)
    turns = Turns.of_task()
    assert Path(turns.folder).parent == tmp_path
    turns.close()


def test_a_session_offers_itself_until_it_closes(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    session = begin_attempt(1, tmp_path)
    session.open_to_children()
    offer = inherited_offer()
    assert offer.identity == session.identity
    assert offer.place(print).url == session.stores.url
    assert Path(offer.folder).is_dir()
    session.close()
    assert inherited_offer() is None
    assert not Path(offer.folder).exists()


def test_the_offer_holds_no_environment_and_no_credential(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush-hush")
    session = begin_attempt(0, tmp_path)
    session.open_to_children()
    said = json.loads(os.environ[VARIABLE])
    session.close()
    assert set(said) == {"version", "identity", "kind", "root", "folder", "background", "keep", "found"}
    assert "hush" not in json.dumps(said)


@pytest.mark.parametrize("text", ["nonsense", "{}", '{"version": 99}', '{"version": 1, "identity": {}}'])
def test_an_offer_of_another_release_is_refused_with_what_to_do(monkeypatch, text):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(CheckpointException, match="install the same"):
        inherited_offer()


def test_what_a_child_found_kept_by_its_task_stays(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    first = begin_attempt(0, tmp_path)
    first.saver.turns = None
    first.state._flow.n = 1
    CurrentCheckpoint(first).save("first")
    first.close()
    session = begin_attempt(1, tmp_path, keep="last(1)")
    session.open_to_children()
    try:
        with Checkpoint() as client:
            for number in range(3):
                client.save({"n": number}, name="child")
            names = [one.name for one in client.list()]
    finally:
        session.close()
    assert names == ["child", "first"]
