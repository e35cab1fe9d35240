"""Run as a script: a process that ends, or forks, while a save is in flight.

python exiting.py CASE FOLDER
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from rig import CONFIG, Faulty, Storage, is_values, open_blocking, values

from ckptstore import AsyncCheckpointStore, CheckpointStore, StoreConfig, last
from ckptstore.errors import ForkedProcessError, StoreFullError
from ckptstore.testing import Fault, SlowBackend

FOLDER = Path(sys.argv[2]) if __name__ == "__main__" else Path()


_kept: list[Any] = []


def in_flight(**options: Any) -> tuple[CheckpointStore, Any]:
    """Open a slow store with one checkpoint, and begin to save another in the background."""
    config = StoreConfig(**{name: getattr(CONFIG, name) for name in CONFIG.__slots__} | options)
    store = open_blocking(
        Storage("local", FOLDER), lambda backend: SlowBackend(backend, delay_s=0.03), config
    )
    store.save("c", values(0))
    return store, store.save("c", values(1), label="last", wait=False)


def end() -> None:
    in_flight()


def exception() -> None:
    _kept = in_flight()
    raise ZeroDivisionError


def sys_exit() -> None:
    _kept = in_flight()
    sys.exit(3)


def interrupt() -> None:
    _kept = in_flight()
    signal.raise_signal(signal.SIGINT)


def forgotten() -> None:
    """Drop the store and the pending save: nobody refers to them any more."""
    in_flight()
    import gc

    gc.collect()


def two_stores() -> None:
    _kept = in_flight()
    other = CheckpointStore.open(str(FOLDER / "other"), config=CONFIG)
    other.save("c", values(5), wait=False)


def hard_exit() -> None:
    _kept = in_flight()
    os._exit(0)


def too_slow() -> None:
    store, pending = in_flight(exit_timeout_s=0.05)
    pending.result(10)
    slow: Any = store._store._engine.backend
    gate = slow.gate("put", "chunks/")
    store.save("c", values(2), label="stuck", wait=False)
    gate.wait_arrived()


def retention() -> None:
    store, pending = in_flight()
    pending.result(10)
    store.save("c", values(2), keep=last(1), wait=False)
    store.capture("c", values(9))  # never asked for


def stuck_retention() -> None:
    store, pending = in_flight(exit_timeout_s=0.05)
    pending.result(10)
    slow: Any = store._store._engine.backend
    gate = slow.gate("list", "manifests/c/")
    store.save("c", values(2), keep=last(1))
    gate.wait_arrived()


def failing() -> None:
    def wrap(backend: Any) -> Any:
        full = Fault(prefix="chunks/", verb="put", times=None, error=lambda: StoreFullError("no space"))
        return SlowBackend(Faulty(backend, full), delay_s=0.03)

    store = open_blocking(Storage("local", FOLDER), wrap)
    store.save("c", values(1), wait=False)


def refused(call: Callable[[], object]) -> None:
    try:
        call()
    except ForkedProcessError:
        return
    raise AssertionError("a forked child used its parent's store")


def use_in_a_child(store: CheckpointStore, pending: Any) -> None:
    """What belongs to the parent is refused; a store of the child's own works, to its end."""
    saved = "c"
    for call in (
        lambda: store.load(saved),
        lambda: store.save("c", {"x": 1}),
        lambda: store.save("c", {"x": 1}, wait=False),
        lambda: list(store.list("c")),
        lambda: store.latest("c"),
        lambda: pending.result(5),
        lambda: pending.committed.result(),
        lambda: pending.add_done_callback(print),
        lambda: store.capture("c", {"x": 1}),
        lambda: store.retain("c", last(1)),
        store.close,
    ):
        refused(call)
    pending.cancel()
    own_store("child")


def own_store(collection: str) -> None:
    own = CheckpointStore.open(str(FOLDER), config=CONFIG)
    assert is_values(own.load("c"), 0)  # the parent's second save has not been let through yet
    own.save(collection, values(7))
    own.save(collection, values(8), wait=False)


def parent_of(children: Callable[[CheckpointStore, Any], None]) -> None:
    store, first = in_flight()
    store.delete(first.result(10))
    slow: Any = store._store._engine.backend
    gate = slow.gate("put", "chunks/")
    pending = store.save("c", values(2), wait=False)
    gate.wait_arrived()
    children(store, pending)
    gate.open()
    saved = pending.result(10)
    assert store.latest("c") == saved
    store.save("c", values(3))
    store.close()


def fork() -> None:
    def children(store: CheckpointStore, pending: Any) -> None:
        pid = os.fork()
        if pid == 0:
            use_in_a_child(store, pending)
            sys.exit(0)  # and the child's own background save is finished
        assert os.waitpid(pid, 0)[1] == 0

    parent_of(children)


def fork_of_a_fork() -> None:
    def children(store: CheckpointStore, pending: Any) -> None:
        pid = os.fork()
        if pid == 0:
            use_in_a_child(store, pending)
            grandchild = os.fork()
            if grandchild == 0:
                refused(lambda: store.load("c"))
                own_store("grandchild")
                sys.exit(0)
            assert os.waitpid(grandchild, 0)[1] == 0
            sys.exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    parent_of(children)


def multiprocessing_fork() -> None:
    def children(store: CheckpointStore, pending: Any) -> None:
        process = multiprocessing.get_context("fork").Process(target=use_in_a_child, args=(store, pending))
        process.start()
        process.join(15)
        assert process.exitcode == 0

    parent_of(children)


def spawned(folder: str) -> None:
    global FOLDER
    FOLDER = Path(folder)
    own_store("child")


def multiprocessing_spawn() -> None:
    def children(store: CheckpointStore, pending: Any) -> None:
        process = multiprocessing.get_context("spawn").Process(target=spawned, args=(str(FOLDER),))
        process.start()
        process.join(15)
        assert process.exitcode == 0

    parent_of(children)


def multiprocessing_forkserver() -> None:
    def children(store: CheckpointStore, pending: Any) -> None:
        process = multiprocessing.get_context("forkserver").Process(target=spawned, args=(str(FOLDER),))
        process.start()
        process.join(15)
        assert process.exitcode == 0

    parent_of(children)


def process_pool() -> None:
    def children(store: CheckpointStore, pending: Any) -> None:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            pool.submit(spawned, str(FOLDER)).result(15)

    parent_of(children)


def metaflow_parallel_map() -> None:
    """Metaflow forks with os.fork, and ends its children with os._exit: who saves there must wait."""
    from metaflow import parallel_map

    def children(store: CheckpointStore, pending: Any) -> None:
        def in_child(n: int) -> int:
            refused(lambda: store.save("c", {"x": n}))
            with CheckpointStore.open(str(FOLDER), config=CONFIG) as own:
                own.save(f"child{n}", values(7))
                own.save(f"child{n}", values(8), wait=False)
            return n

        assert parallel_map(in_child, [1, 2]) == [1, 2]

    parent_of(children)


def child_exits_at_once() -> None:
    def children(store: CheckpointStore, pending: Any) -> None:
        pid = os.fork()
        if pid == 0:
            refused(lambda: store.save("c", values(1)))
            own_store("child")
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0

    parent_of(children)


def under_way(gated: bool) -> None:
    """Tell that a save is under way, ``gated`` one that never ends, and wait for a signal to end us."""
    store, pending = in_flight()
    pending.result(10)
    slow: Any = store._store._engine.backend
    gate = slow.gate("put", "chunks/")
    _kept.extend((store, store.save("c", values(2), wait=False)))
    gate.wait_arrived()
    if not gated:
        gate.open()
    print("under way", flush=True)
    while True:
        signal.pause()


def signalled_in_a_save() -> None:
    under_way(gated=True)


def signalled() -> None:
    under_way(gated=False)


def signalled_with_a_handler() -> None:
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    under_way(gated=False)


def running_loop() -> None:
    async def notebook() -> None:
        store, pending = in_flight()
        await asyncio.sleep(0)
        _kept.extend((store, pending))

    asyncio.run(notebook())


def loop_that_raises() -> None:
    async def notebook() -> None:
        _kept.extend(in_flight())
        raise ZeroDivisionError

    asyncio.run(notebook())


def asynchronous() -> None:
    """The asynchronous store waits at the end of its block, whatever ends it."""

    async def main() -> None:
        async with await AsyncCheckpointStore.open(str(FOLDER), config=CONFIG) as store:
            await store.save("c", values(0))
            await store.save("c", values(1), wait=False)
            raise SystemExit(3)

    asyncio.run(main())


def interrupted_asynchronous() -> None:
    """The same where the loop is interrupted: since Python 3.11 as a cancellation, before as an exception."""

    async def main() -> None:
        async with await AsyncCheckpointStore.open(str(FOLDER), config=CONFIG) as store:
            await store.save("c", values(0))
            await store.save("c", values(1), wait=False)
            signal.raise_signal(signal.SIGINT)
            await asyncio.Event().wait()

    asyncio.run(main())


def another_thread() -> None:
    """Saved on a thread that ends before the process."""
    thread = threading.Thread(target=lambda: _kept.extend(in_flight()))
    thread.start()
    thread.join()


def at_exit() -> None:
    """Saved by a function that the interpreter calls at its end."""
    store, _ = in_flight()
    atexit.register(lambda: store.save("c", values(2)))


if __name__ == "__main__":
    # Ignored ones are inherited: by what "nohup" starts, and a shell in the background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    logging.basicConfig(level=logging.INFO)
    globals()[sys.argv[1]]()
