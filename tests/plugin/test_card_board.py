"""The board knows what the process did, and gives the card a page for each."""

import os
from datetime import datetime, timedelta, timezone

import pytest
from card_samples import PATHSPEC
from metaflow_extensions.ckptstore.plugins.checkpoint.card import Board

pytestmark = pytest.mark.metaflow


class Artifact:
    """A durable checkpoint, as far as a board asks."""

    def __init__(self, name="epoch", attempt=0, pathspec=PATHSPEC, created=None, key="line/1.0"):
        self.name, self.attempt, self.pathspec, self.key = name, attempt, pathspec, key
        self.version_id = "1.0"
        self.metadata = {"val_loss": 0.5}
        self.created_on = (created or datetime.now(timezone.utc)).isoformat()
        self.size, self.stored_bytes, self.new_bytes = 30, 20, 10


class Writer:
    """Takes what a board hands over, and writes nothing."""

    def __init__(self):
        self.updates, self.finals = [], []

    def update(self, facts):
        self.updates.append(facts())

    def finish(self, facts):
        self.finals.append(facts())


@pytest.fixture
def writer():
    return Writer()


@pytest.fixture
def board(writer):
    return Board(PATHSPEC, 0, writer=writer)


def test_save_is_shown_from_its_beginning_to_its_end(board, writer):
    number = board.save_started("best", {"val_loss": 0.7}, latest=False)
    board.captured(number, 0.25)
    board.saved(number, Artifact("best"), blocked_s=0.25, background_s=3.0)

    begun, captured, saved = (facts.saved[0] for facts in writer.updates)
    assert (begun.state, begun.name, begun.metadata, begun.latest) == (
        "saving",
        "best",
        {"val_loss": 0.7},
        False,
    )
    assert (captured.state, captured.blocked_s, captured.background_s) == ("saving", 0.25, None)
    assert (saved.state, saved.blocked_s, saved.background_s, saved.latest) == ("saved", 0.25, 3.0, False)
    assert (saved.size, saved.stored_bytes, saved.new_bytes, saved.version_id) == (30, 20, 10, "1.0")
    assert saved.metadata == {"val_loss": 0.5}
    assert saved.started_s == begun.started_s >= 0


def test_failed_save_keeps_what_was_known_and_the_error(board, writer):
    number = board.save_started("epoch", {"k": 1})
    board.save_failed(number, OSError("no space"), blocked_s=0.1)

    (failed,) = writer.updates[-1].saved
    assert (failed.state, failed.error, failed.blocked_s) == ("failed", "OSError: no space", 0.1)
    assert (failed.name, failed.metadata) == ("epoch", {"k": 1})


def test_save_that_was_given_up_and_was_durable_all_the_same_is_shown_as_saved(board, writer):
    number = board.save_started("epoch")
    board.save_failed(number, TimeoutError("enough"))
    board.saved(number, Artifact(), blocked_s=0.1, background_s=0.0)

    assert [(one.state, one.error) for one in writer.updates[-1].saved] == [("saved", "")]


def test_saves_that_end_in_another_order_are_told_apart(board, writer):
    first, second = board.save_started("a"), board.save_started("b")
    board.saved(second, Artifact("b"), blocked_s=0.0, background_s=0.0)
    board.save_failed(first, "gone")

    assert [(one.name, one.state) for one in writer.updates[-1].saved] == [("a", "failed"), ("b", "saved")]


def test_what_the_task_started_from_is_told(board, writer):
    board.found(Artifact("found"))
    board.loaded(Artifact("found"))
    board.descends_from(Artifact("parent"))
    board.descends_from(Artifact("oldest", pathspec="F/1/s/1"))

    facts = writer.updates[-1]
    assert facts.found.name == "found"
    assert [one.name for one in facts.lineage] == ["oldest", "parent", "found"]
    assert facts.lineage[0].pathspec == "F/1/s/1"


def test_what_is_loaded_later_takes_the_place_of_what_was_before(board, writer):
    board.loaded(Artifact("first"))
    board.descends_from(Artifact("parent"))
    board.loaded(Artifact("second"))

    assert [one.name for one in writer.updates[-1].lineage] == ["second"]


def test_retry_counts_its_failures_and_the_time_since_the_first_checkpoint(writer):
    board = Board(PATHSPEC, 2, writer=writer)
    hour_ago = datetime.now(timezone.utc) - timedelta(hours=1)
    board.earlier(Artifact("b", 1), latest=False)
    board.earlier(Artifact("a", 0, created=hour_ago))
    board.loaded(Artifact("b", 1))
    board.descends_from(Artifact("c", 0, "Other/1/s/1", hour_ago - timedelta(days=3)))

    facts = writer.updates[-1]
    assert facts.n_failures == 2
    assert facts.observed_s == pytest.approx(3600, abs=5)
    assert [(one.name, one.attempt, one.started_s, one.latest) for one in facts.saved] == [
        ("a", 0, None, True),
        ("b", 1, None, False),
    ]


def test_earlier_attempts_that_are_looked_up_late_come_before_this_ones_saves(writer):
    board = Board(PATHSPEC, 1, writer=writer)
    number = board.save_started("mine")
    board.earlier(Artifact("theirs"))
    board.saved(number, Artifact("mine", 1), blocked_s=0.0, background_s=0.0)

    assert [(one.name, one.state) for one in writer.updates[-1].saved] == [
        ("theirs", "saved"),
        ("mine", "saved"),
    ]


def test_first_attempt_has_seen_no_failure(board):
    assert (board.facts().n_failures, board.facts().observed_s < 5) == (0, True)


def test_deleted_checkpoint_is_told_until_it_is_back(board, writer):
    board.earlier(Artifact(key="line/1.0"))
    for key in ("line/2.0", "shared/2.0"):
        board.saved(board.save_started("e"), Artifact(key=key), blocked_s=0, background_s=0)
    for key in ("line/1.0", "line/2.0", "another/1.0"):
        board.deleted(key)
    assert [one.state for one in writer.updates[-1].saved] == ["deleted", "deleted", "saved"]

    for key in ("line/1.0", "shared/2.0"):
        board.undeleted(key)
    assert [one.state for one in writer.updates[-1].saved] == ["saved", "deleted", "saved"]


def test_last_page_is_written_once_unless_something_happens_after_it(board, writer):
    board.finish()
    board.finish()
    assert [facts.state for facts in writer.finals] == ["finished"]

    board.saved(board.save_started("after the step"), Artifact(), blocked_s=0, background_s=0)
    board.finish()
    assert [len(facts.saved) for facts in writer.finals] == [0, 1]


def test_task_that_failed_stays_failed(board, writer):
    board.finish(failed=True)
    board.finish()

    assert [facts.state for facts in writer.finals] == ["failed"]


def test_time_stands_still_after_the_end(board, writer):
    board.finish()
    ended = board.facts().elapsed_s

    assert board.facts().elapsed_s == ended == writer.finals[0].elapsed_s


def test_without_a_writer_nothing_is_collected():
    board = Board(PATHSPEC, 0, writer=None)
    number = board.save_started("epoch")
    board.captured(number, 0.0)
    board.saved(number, Artifact(), blocked_s=0.0, background_s=0.0)
    board.loaded(Artifact())
    board.earlier(Artifact())
    board.finish()

    assert (board.is_on, board.facts().saved, board.facts().lineage) == (False, (), ())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_leaves_the_card_to_its_parent(board, writer):
    read, write = os.pipe()
    number = board.save_started("epoch")
    with board._lock:  # as a fork in the middle of a call finds it
        child = os.fork()
        if child == 0:
            board.saved(number, Artifact(), blocked_s=0.0, background_s=0.0)
            board.save_started("child")
            board.finish()
            os.write(write, bytes([len(writer.updates), len(writer.finals)]))
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as told:
        counts = told.read()
    assert os.waitpid(child, 0)[1] == 0
    assert list(counts) == [1, 0]
