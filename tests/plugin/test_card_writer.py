"""Writing the card replaces the page before, and never holds a task up or fails it."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import pytest
from card_samples import PATHSPEC, facts, save
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint.card import CARD_ID, CARD_TYPE, CardWriter

pytestmark = pytest.mark.metaflow


@pytest.fixture
def messages():
    return []


@pytest.fixture
def make(tmp_path, messages):
    """Return a writer to a local datastore of a kind of its own."""

    def make(kind=LocalStorage, **settings):
        return CardWriter(kind(str(tmp_path)), PATHSPEC, log=messages.append, **settings)

    return make


@pytest.fixture
def pages(tmp_path):
    """Return the card files that are there."""
    folder = tmp_path / "mf.cards" / "TrainFlow/runs/1764/steps/train/tasks/3/cards"
    return lambda: sorted(folder.iterdir()) if folder.exists() else []


def counting():
    """Return a storage that counts its writes, and what it wrote."""

    class Counting(LocalStorage):
        wrote: ClassVar[list[str]] = []

        def save_bytes(self, path_and_bytes_iter, overwrite=False, len_hint=0):
            files = [(path, data.read()) for path, data in path_and_bytes_iter]
            super().save_bytes([(path, io.BytesIO(data)) for path, data in files], overwrite, len_hint)
            self.wrote += [data.decode() for _, data in files]

    return Counting


def test_last_page_is_there_when_finish_returns(make, pages, messages):
    make().finish(lambda: facts(save()))

    (page,) = pages()
    assert page.name.startswith(f"{CARD_TYPE}-{CARD_ID}-")
    assert "TrainFlow/1764/train/3" in page.read_text()
    assert messages == []


def test_every_page_replaces_the_one_before_also_that_of_an_earlier_attempt(make, pages):
    writer = make(interval_s=0)
    writer.finish(lambda: facts(attempt=0))
    writer.finish(lambda: facts(attempt=0, state="failed"))
    make().finish(lambda: facts(attempt=1))

    (page,) = pages()
    assert "attempt 1" in page.read_text()


def test_first_update_is_written_at_once_and_many_make_few_writes(make, pages):
    kind, first = counting(), threading.Event()
    writer = make(kind, interval_s=3600)

    writer.update(lambda: first.set() or facts(save(name="page-one")))
    assert first.wait(10)
    for _ in range(1000):
        writer.update(lambda: pytest.fail("an older page than the newest was made"))
    writer.finish(lambda: facts(save(name="page-two")))

    assert ["page-one" in text for text in kind.wrote] == [True, False]
    assert "page-two" in pages()[0].read_text()


def test_updates_go_on_after_the_interval(make):
    kind, written = counting(), [threading.Event(), threading.Event()]
    writer = make(kind, interval_s=0.01)
    for event in written:
        writer.update(lambda event=event: event.set() or facts())
        assert event.wait(10)
    writer.finish(facts)

    assert len(kind.wrote) == 3


def test_storage_that_hangs_holds_the_end_up_no_longer_than_allowed(make, messages):
    release, started = threading.Event(), threading.Event()

    class Hanging(LocalStorage):
        def save_bytes(self, *args, **kwargs):
            started.set()
            release.wait(60)

    writer = make(Hanging, finish_timeout_s=0.05)
    writer.update(facts)
    assert started.wait(10)
    writer.update(facts)  # does not wait either
    writer.finish(facts)
    writer.finish(facts)

    assert not release.is_set()
    assert messages == ["the card of this task was not written within 0.05 s"]
    release.set()


def test_storage_that_fails_is_told_once_and_raises_nothing(make, messages):
    class Failing(LocalStorage):
        def save_bytes(self, *args, **kwargs):
            raise PermissionError("not yours")

    writer = make(Failing, interval_s=0)
    for _ in range(3):
        writer.update(facts)
        writer.finish(facts)

    assert messages == ["the card of this task could not be written: PermissionError: not yours"]


def test_page_that_cannot_be_made_raises_nothing(make, messages):
    make().finish(lambda: 1 / 0)

    assert messages == ["the card of this task could not be written: ZeroDivisionError: division by zero"]


def test_process_without_a_thread_to_spare_goes_on_without_a_card(make, messages, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer = make()
    writer.update(facts)
    writer.finish(facts)

    assert messages == ["the card of this task could not be written: RuntimeError: can't start new thread"]


def test_no_thread_is_there_before_the_first_page_nor_after_the_last(make):
    def cards():
        return [thread for thread in threading.enumerate() if thread.name == "ckptstore-card"]

    writer = make()
    assert cards() == []
    writer.update(facts)
    assert [thread.daemon for thread in cards()] == [True]
    writer.finish(facts)
    for thread in cards():
        thread.join(10)
    assert cards() == []


def test_process_ends_at_once_while_a_page_is_being_written(tmp_path):
    code = """
import sys, threading
from metaflow.plugins.datastores.local_storage import LocalStorage
from metaflow_extensions.ckptstore.plugins.checkpoint.card import CardWriter
started = threading.Event()
class Hanging(LocalStorage):
    def save_bytes(self, *args, **kwargs):
        started.set()
        threading.Event().wait()
CardWriter(Hanging(sys.argv[1]), "F/1/s/1", log=print).update(lambda: __import__("card_samples").facts())
assert started.wait(30)
"""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_writes_no_card(make, pages):
    writer = make()
    child = os.fork()
    if child == 0:
        writer.update(facts)
        writer.finish(facts)
        os._exit(len(threading.enumerate()) - 1)
    assert os.waitpid(child, 0)[1] == 0
    assert pages() == []


def test_card_goes_also_to_where_the_configuration_says(make, pages, tmp_path, monkeypatch):
    class Remote(LocalStorage):
        TYPE = "s3"

    monkeypatch.setattr("metaflow.plugins.cards.card_datastore.CARD_S3ROOT", str(tmp_path / "elsewhere"))
    make(Remote).finish(facts)

    assert len(pages()) == 1
    assert [path.name for path in (tmp_path / "elsewhere").rglob("*.html")] == [pages()[0].name]


def test_card_of_an_unknown_kind_of_datastore_is_beside_it(make, pages, messages):
    class Unknown(LocalStorage):
        TYPE = "unheard-of"

    make(Unknown).finish(facts)

    assert (len(pages()), messages) == (1, [])


def test_s3_client_of_the_run_is_used_again(tmp_path, messages):
    class WithClient(LocalStorage):
        used: ClassVar[list[object]] = []
        s3_client = "another"

        def save_bytes(self, *args, **kwargs):
            self.used.append(self.s3_client)

    storage = WithClient(str(tmp_path))
    storage.s3_client = "the run's own"
    CardWriter(storage, PATHSPEC, log=messages.append).finish(facts)

    assert (WithClient.used, messages) == (["the run's own"], [])
