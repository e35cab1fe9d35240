"""What an attempt does is on its card; and the card holds up nothing and fails nothing."""

import threading
from pathlib import Path

import pytest
from looping import Attempts, hold_commits
from metaflow import Checkpoint, current
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint import history
from metaflow_extensions.ckptstore.plugins.checkpoint.card import CardWriter
from metaflow_extensions.ckptstore.plugins.checkpoint.errors import CheckpointException

from ckptstore.errors import BackendError, UnserializableError
from ckptstore.testing import Fault

pytestmark = pytest.mark.metaflow

COMMIT = "manifests/+flow=2ftrain=2fuser=3aada=2f_/f"
FULL = Fault(verb="put", prefix=COMMIT, error=lambda: BackendError("full"))
PATHSPEC = "Flow/1/train/2"


class Writer:
    """Keeps what each page is made of, and lets a test wait for one."""

    def __init__(self):
        self.pages, self.finals = [], []
        self._changed = threading.Condition()

    def update(self, facts):
        with self._changed:
            self.pages.append(facts())
            self._changed.notify_all()

    def finish(self, facts):
        self.finals.append(facts())

    def wait_for(self, is_so):
        with self._changed:
            assert self._changed.wait_for(lambda: any(map(is_so, self.pages)), 10), self.pages[-1:]
        return next(page for page in self.pages if is_so(page))


@pytest.fixture
def task(tmp_path):
    return Attempts(tmp_path)


@pytest.fixture
def card():
    return Writer()


def states(page):
    return [(one.name, one.state) for one in page.saved]


def test_blocking_save_is_told_from_its_beginning_to_its_end(task, card):
    with task.begin(card=card) as checkpoint:
        task.flow.x = 1
        artifact = checkpoint.save("best", metadata={"loss": 0.5}, latest=False)

    begun, ended = card.pages
    assert states(begun) == [("best", "saving")]
    (saved,) = ended.saved
    assert (saved.state, saved.latest, saved.metadata) == ("saved", False, {"loss": 0.5})
    assert (saved.key, saved.size, saved.attempt) == (artifact.key, artifact.size, 0)
    assert saved.blocked_s > 0
    assert saved.background_s == 0


def test_background_save_is_told_when_it_is_captured_and_when_it_is_durable_though_nobody_waits(task, card):
    with task.begin(card=card) as checkpoint:
        gate = hold_commits(task.session)
        gate.close()
        task.flow.x = 1
        checkpoint.save("later", wait=False)
        gate.wait_arrived()
        (captured,) = card.pages[-1].saved
        assert (captured.state, captured.background_s) == ("saving", None)
        gate.open()
        (saved,) = card.wait_for(lambda page: states(page) == [("later", "saved")]).saved

    assert saved.blocked_s == captured.blocked_s > 0
    assert saved.background_s > 0
    assert saved.size > 0


def test_last_page_has_the_end_of_a_background_save_however_late_it_is_told(task, card, monkeypatch):
    with task.begin(card=card) as checkpoint:
        session, is_closing = task.session, threading.Event()
        told, close = session.board.saved, session.stores.close
        monkeypatch.setattr(session.stores, "close", lambda: (is_closing.set(), close()))
        monkeypatch.setattr(
            session.board, "saved", lambda *args, **kwargs: (is_closing.wait(10), told(*args, **kwargs))
        )
        task.flow.x = 1
        checkpoint.save("last", wait=False)

    assert [(page.state, states(page)) for page in card.finals] == [("finished", [("last", "saved")])]


def test_failed_background_save_is_told_with_its_error(task, card):
    def step(flow, checkpoint):
        hold_commits(task.session, FULL)
        flow.x = 1
        checkpoint.save("lost", wait=False)

    task.fail(step, BackendError, card=card)
    (page,) = card.finals
    assert page.state == "failed"
    assert states(page) == [("lost", "failed")]
    assert page.saved[0].error == "BackendError: full"
    assert page.saved[0].blocked_s > 0


@pytest.mark.parametrize("wait", [True, False])
def test_save_that_raises_is_told_with_its_error(task, card, wait):
    with task.begin(card=card) as checkpoint:
        with pytest.raises(CheckpointException):
            checkpoint.save("nothing", wait=wait)
        task.flow.x = (n for n in range(3))
        with pytest.raises(UnserializableError):
            checkpoint.save("no data", wait=wait)
        task.flow.x = 1

    (page,) = card.finals
    assert page.state == "finished"
    assert states(page) == [("nothing", "failed"), ("no data", "failed")]
    assert "self.x" in page.saved[1].error


def test_mark_that_is_saved_is_told_and_blocked_nobody(task, card):
    with task.begin(card=card) as checkpoint:
        task.flow.x = 1
        checkpoint.mark("point", metadata={"at": 1})
        assert card.pages == []
        task.session.marks.save()

    (saved,) = card.finals[0].saved
    assert (saved.name, saved.state, saved.metadata) == ("point", "saved", {"at": 1})
    assert saved.blocked_s == 0
    assert saved.background_s > 0


def test_mark_that_cannot_be_saved_is_told(task, card):
    with task.begin(card=card) as checkpoint:
        hold_commits(task.session, FULL)
        task.flow.x = 1
        checkpoint.mark("point")
        with pytest.raises(BackendError):
            task.session.marks.save()

    assert [(one.state, one.error) for one in card.finals[0].saved] == [("failed", "BackendError: full")]


def test_retries_know_what_was_before_them_and_what_they_descend_from(task):
    for attempt in range(4):
        card = Writer()
        with task.begin(card=card) as checkpoint:
            if checkpoint.is_loaded:
                assert card.pages == [] or card.pages[-1].lineage == ()
                checkpoint.load()
            task.flow.x = attempt
            checkpoint.save(f"first {attempt}", wait=False)
            checkpoint.save(f"second {attempt}")
            page = card.wait_for(
                lambda page: (
                    (len(page.lineage), [one.state for one in page.saved])
                    == (task.n - 1, ["saved"] * 2 * task.n)
                )
            )

    assert [one.name for one in page.lineage] == ["second 0", "second 1", "second 2"]
    assert [(one.attempt, one.pathspec) for one in page.lineage] == [(n, PATHSPEC) for n in range(3)]
    assert page.found.name == "second 2"
    assert [one.name for one in page.saved] == [
        f"{which} {n}" for n in range(4) for which in ("first", "second")
    ]
    assert [one.blocked_s is None for one in page.saved] == [True] * 6 + [False] * 2
    assert (page.attempt, page.n_failures) == (3, 3)


def test_files_that_are_taken_up_without_a_load_are_what_the_task_descends_from(task):
    with task.begin() as checkpoint:
        (Path(checkpoint.directory) / "file").write_text("x")
        checkpoint.save("with files")
    card = Writer()
    with task.begin(card=card) as checkpoint:
        assert checkpoint.directory
        assert [one.name for one in card.pages[-1].lineage] == ["with files"]
    task.session.files.close()


def test_deleted_checkpoint_is_told_until_it_is_back(task, card):
    with task.begin(card=card) as checkpoint:
        task.flow.x = 1
        artifact = checkpoint.save("going")
        checkpoint.delete(artifact)
        assert states(card.pages[-1]) == [("going", "deleted")]
        checkpoint.undelete(artifact)
        assert states(card.pages[-1]) == [("going", "saved")]


def test_save_by_a_checkpoint_object_in_the_tasks_own_process_is_told(task, card, monkeypatch):
    with task.begin(card=card) as checkpoint:
        monkeypatch.setattr(current, "checkpoint", checkpoint, raising=False)
        with Checkpoint() as other:
            other.save({"x": 1}, name="by another hand")
        assert states(card.pages[-1]) == [("by another hand", "saved")]


def test_page_names_the_retention_that_goes_on_beside_it(task, card):
    with task.begin(card=card, keep="last(3)"):
        pass
    assert card.finals[0].keep == "last(3)"


def test_step_that_raises_has_failed(task, card):
    task.fail(lambda flow, checkpoint: 1 / 0, card=card)

    assert [page.state for page in card.finals] == ["failed"]


def test_what_is_saved_after_the_step_is_on_a_last_page_of_its_own(task, card):
    with task.begin(card=card) as checkpoint:
        task.flow.x = 1
        session = task.session
    checkpoint.save("by a decorator", wait=False)
    for _ in range(2):
        session.close()

    assert [states(page) for page in card.finals] == [[], [("by a decorator", "saved")]]


def test_datastore_that_refuses_the_card_fails_no_step(tmp_path):
    (tmp_path / "mf.cards").write_text("a file where the folder of cards would be")
    log = []
    writer = CardWriter(LocalStorage(str(tmp_path)), PATHSPEC, log=log.append)
    attempts = Attempts(tmp_path)
    attempts.log = log
    with attempts.begin(card=writer) as checkpoint:
        attempts.flow.x = 1
        saved = checkpoint.save()
        checkpoint.save(wait=False)

    assert [line for line in log if "card" in line] == [
        "the card of this task could not be written: NotADirectoryError: [Errno 20] Not a directory: "
        f"'{tmp_path}/mf.cards/Flow'"
    ]
    with attempts.begin() as checkpoint:
        assert [one.attempt for one in checkpoint.list()] == [0, 0]
        assert checkpoint.inspect(saved)["fields"]


def test_without_a_card_nothing_is_looked_up(task, monkeypatch):
    started = []
    monkeypatch.setattr(history._Look, "start", lambda look: started.append(look))

    def step(flow, checkpoint):
        if checkpoint.is_loaded:
            checkpoint.load()
        flow.x = 1
        checkpoint.save()

    for _ in range(3):
        task.run(step)
    assert started == []


def test_process_without_a_thread_to_spare_goes_on(task, card, monkeypatch):
    def step(flow, checkpoint):
        if checkpoint.is_loaded:
            checkpoint.load()
        flow.x = 1
        checkpoint.save()

    for _ in range(2):
        task.run(step)

    def refuse(look):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(history._Look, "start", refuse)
    task.run(step, card=card)
    (page,) = card.finals
    assert [len(page.lineage), states(page)] == [1, [("mfchckpt", "saved")]]
