"""What was before an attempt is looked up beside the step: nobody waits for it, and it ends with what it finds."""

import threading
import time
from types import SimpleNamespace

import pytest
from metaflow_extensions.ckptstore.plugins.checkpoint.history import MAX_ANCESTORS, MAX_EARLIER, History

from ckptstore.errors import CheckpointDeletedError

pytestmark = pytest.mark.metaflow


class Board:
    """Takes what it is told, in order."""

    is_on = True

    def __init__(self):
        self.told = []
        self._changed = threading.Condition()

    def tell(self, what):
        with self._changed:
            self.told.append(what)
            self._changed.notify_all()

    def wait_for(self, told):
        with self._changed:
            assert self._changed.wait_for(lambda: self.told == told, 10), self.told

    def loaded(self, number):
        self.tell(("loaded", number))

    def descends_from(self, number):
        self.tell(("descends from", number))

    def earlier(self, number, *, latest):
        self.tell(("earlier", number, latest))


class Store:
    """Checkpoints by number, each the child of the one before; ``gone`` and before cannot be read."""

    url = "store"

    def __init__(self, *, gone=-1):
        self.gone = gone
        self.n_requests = 0
        self.gate = threading.Event()
        self.gate.set()

    def checkpoint(self, number, attempt=0):
        parent = None if number == 0 else number - 1
        return SimpleNamespace(
            number=number, parent=parent, attributes={"attempt": attempt, "latest": number % 2 == 0}
        )

    def inspect(self, number):
        self._request()
        if number <= self.gone:
            raise CheckpointDeletedError("gone")
        return SimpleNamespace(checkpoint=self.checkpoint(number))

    def list(self, collection, *, run):
        assert (collection, run) == ("line", "1")
        for number in range(999, -1, -1):
            self._request()
            yield self.checkpoint(number, attempt=number // 400)

    def _request(self):
        self.n_requests += 1
        assert self.gate.wait(60)


@pytest.fixture
def board():
    return Board()


@pytest.fixture
def history(board):
    history = History(board, SimpleNamespace(artifact=lambda checkpoint, url: checkpoint.number))
    yield history
    history.stop(10)
    assert "ckptstore-history" not in {thread.name for thread in threading.enumerate()}


def test_ancestors_are_told_from_the_parent_to_the_oldest(board, history):
    store = Store()
    history.look_at_ancestors(store, store.checkpoint(3))

    board.wait_for([("loaded", 3), *(("descends from", n) for n in (2, 1, 0))])


def test_looking_ends_at_an_ancestor_that_is_gone(board, history):
    store = Store(gone=1)
    history.look_at_ancestors(store, store.checkpoint(4))
    history.stop(10)

    assert board.told == [("loaded", 4), ("descends from", 3), ("descends from", 2)]


def test_looking_ends_after_so_many_ancestors(board, history):
    store = Store()
    history.look_at_ancestors(store, store.checkpoint(10_000))
    history.stop(10)

    assert len(board.told) == 1 + MAX_ANCESTORS
    assert store.n_requests == MAX_ANCESTORS


def test_checkpoint_without_a_parent_costs_no_request(board, history):
    store = Store()
    history.look_at_ancestors(store, store.checkpoint(0))

    assert (board.told, store.n_requests) == ([("loaded", 0)], 0)


def test_newest_of_earlier_attempts_are_told_and_none_of_this_one(board, history):
    history.look_at_earlier(Store(), SimpleNamespace(collection="line", run="1", attempt=2))
    history.stop(10)

    assert board.told == [("earlier", n, n % 2 == 0) for n in range(799, 799 - MAX_EARLIER, -1)]


def test_neither_a_load_nor_the_end_waits_for_a_slow_store(board, history):
    store = Store()
    store.gate.clear()
    started = time.monotonic()
    history.look_at_ancestors(store, store.checkpoint(200))
    history.look_at_earlier(store, SimpleNamespace(collection="line", run="1", attempt=2))
    history.stop(0.01)
    took_s = time.monotonic() - started
    store.gate.set()

    assert took_s < 5  # the store would have taken for ever
    for thread in threading.enumerate():
        if thread.name == "ckptstore-history":
            thread.join(10)
    assert board.told == [("loaded", 200)]


def test_of_two_loads_the_ancestors_of_the_later_are_told(board, history):
    store = Store()
    store.gate.clear()
    history.look_at_ancestors(store, store.checkpoint(100))
    history.look_at_ancestors(store, store.checkpoint(2))
    store.gate.set()

    board.wait_for([("loaded", 100), ("loaded", 2), ("descends from", 1), ("descends from", 0)])


def test_without_a_card_nothing_is_looked_at(board, history):
    board.is_on = False
    store = Store()
    history.look_at_ancestors(store, store.checkpoint(3))
    history.look_at_earlier(store, SimpleNamespace(collection="line", run="1", attempt=2))
    history.stop()

    assert (board.told, store.n_requests) == ([], 0)
