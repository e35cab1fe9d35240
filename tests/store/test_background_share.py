"""How much of the machine a save takes, waited for or not."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptstore import CheckpointStore, PendingSave, StoreConfig
from ckptstore._upload import Urgency
from ckptstore.codecs import ChunkCoder


class Together:
    """Counts how many threads encode at once; each waits a moment for another to come."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = 0
        self._n = 0
        self._lock = threading.Lock()
        self._met = threading.Event()
        encode = ChunkCoder.encode

        def counted(coder: ChunkCoder, *args: Any, **options: Any) -> Any:
            with self._lock:
                self._n += 1
                self.most = max(self.most, self._n)
            if self._n > 1:
                self._met.set()
            self._met.wait(0.1)
            try:
                return encode(coder, *args, **options)
            finally:
                with self._lock:
                    self._n -= 1

        monkeypatch.setattr(ChunkCoder, "encode", counted)


class Threads:
    """Notes which threads encode, and at what priority; the first chunk waits until ``go`` is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self.niceness: list[int] = []
        self.begun, self.go = threading.Event(), threading.Event()
        encode = ChunkCoder.encode

        def noted(coder: ChunkCoder, *args: Any, **options: Any) -> Any:
            self.names.append(threading.current_thread().name)
            self.niceness.append(os.getpriority(os.PRIO_PROCESS, 0))
            self.begun.set()
            assert self.go.wait(60)
            return encode(coder, *args, **options)

        monkeypatch.setattr(ChunkCoder, "encode", noted)


CHUNK = 64 * 1024


def chunks(n: int, seed: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).integers(0, 255, n * CHUNK, "u1")}


def ended(pending: PendingSave) -> None:
    """Wait for a save's end without the store's knowing."""
    end = threading.Event()
    pending.add_done_callback(lambda _: end.set())
    assert end.wait(60)


@pytest.fixture(params=["local", "memory://background-share"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CheckpointStore]:
    config = StoreConfig(chunk_bytes=CHUNK, encode_workers=2)
    url = str(tmp_path) if request.param == "local" else request.param
    with CheckpointStore.open(url, config=config) as opened:
        yield opened


def test_a_background_save_leaves_one_worker_fewer_busy_than_a_save_that_is_waited_for(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = Together(monkeypatch)
    ended(store.save("c", chunks(4, 0), wait=False))
    assert together.most == 1
    store.save("c", chunks(4, 1))
    assert together.most > 1


@pytest.mark.skipif(sys.platform != "linux", reason="a thread alone has a priority on Linux only")
def test_the_threads_of_a_background_save_stand_back_where_others_want_the_processors(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(monkeypatch)
    threads.go.set()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    ended(store.save("c", chunks(2, 0), wait=False))
    assert len(threads.niceness) == 2
    assert all(niceness > own or niceness == 19 for niceness in threads.niceness)
    store.save("c", chunks(2, 1))
    assert threads.niceness[2:] == [own, own]


@pytest.mark.parametrize("who", ["result", "save", "close", "list"])
def test_a_background_save_stands_back_for_nobody_once_somebody_waits_for_it(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    threads = Threads(monkeypatch)
    pending = store.save("c", chunks(40, 0), wait=False)
    assert threads.begun.wait(60)
    waits = {
        "result": pending.result,
        "save": lambda: store.save("c", {"counter": 1}),
        "close": store.close,
        "list": lambda: list(store.list("c")),
    }[who]
    hurried = threading.Event()
    monkeypatch.setattr(
        Urgency, "__setattr__", lambda self, *item: (object.__setattr__(self, *item), hurried.set())
    )
    waiting = threading.Thread(target=waits)
    waiting.start()
    assert hurried.wait(60)
    threads.go.set()
    waiting.join()
    assert pending.done()
    assert len(threads.names) == 40
    assert threads.names[0].startswith("ckptstore-background")
    assert any(name.startswith("ckptstore-worker") for name in threads.names)


def test_asking_whether_a_background_save_has_ended_is_no_waiting(
    store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = Threads(monkeypatch)
    threads.go.set()
    pending = store.save("c", chunks(40, 0), wait=False)
    while not pending.done():
        assert pending.progress.raw_bytes_done <= 41 * CHUNK
    assert {name.rpartition("-")[0] for name in threads.names} == {"ckptstore-background"}
