"""A disk that fails at any system call: told in our words, nothing lost, nothing wrong, nothing left behind."""

from __future__ import annotations

import asyncio
import errno
import itertools
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from gc_rig import GRACE_S, age
from rig import CONFIG, Storage, everything, is_values, nothing_is_left, values
from system_calls import SystemCalls

from ckptstore import AsyncCheckpointStore, StoreConfig, _commit, last
from ckptstore._workers import WorkerPool
from ckptstore.backends.local import LocalBackend
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    CheckpointStoreError,
    ChunkCorruptError,
    CommitUnknownError,
    GCAbortedError,
    StoreFullError,
)

# Each thread's calls come in an order of their own: with one worker they are the same in every run.
OPTIONS = {"durability": "full", "io_concurrency": 1}
FULL = StoreConfig(**{name: getattr(CONFIG, name) for name in CONFIG.__slots__} | OPTIONS)

WRITING = ("create", "mkdir", "write", "link", "rename")
CAN_DELETE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
TRANSIENT = (errno.EMFILE, errno.EIO)
CHANGING = ("create", "mkdir", "write", "rename", "link", "unlink")


class Disk(Storage):
    """A folder; what fails in it is told by ``calls``."""

    def __init__(self, path: Path, calls: SystemCalls) -> None:
        super().__init__("local", path)
        self.calls = calls

    async def backend(self, workers: WorkerPool) -> LocalBackend:
        backend = LocalBackend(self.path, durability="full", executor=workers)
        await backend.open(create=True)
        return backend

    def copy(self, name: str) -> Disk:
        return Disk(super().copy(name).path, self.calls)

    def files(self) -> list[str]:
        return sorted(str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())

    def use(
        self,
        do: Callable[[AsyncCheckpointStore], Awaitable[Any]],
        code: int | None = 0,
        calls: tuple[str, ...] = (),
        **which: Any,
    ) -> Any:
        """Return what ``do`` returns, or the error of ours that it raises; the calls fail only while it runs."""

        async def using() -> Any:
            store = await self.open(config=FULL)
            try:
                await store.begin("c")
                self.calls.fail(code, calls, **which)
                try:
                    return await do(store)
                except CheckpointStoreError as exc:
                    return exc
            finally:
                self.calls.heal()
                nothing_is_left(store)
                await store.aclose()

        return asyncio.run(using())

    def seeds(self) -> list[int]:
        found = asyncio.run(everything(self))
        assert all(is_values(loaded, loaded["seed"]) for _, loaded in found), "wrong data"
        return [loaded["seed"] for _, loaded in found]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_commit, "_BACKOFF_S", (0.0, 0.0))


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    """A folder with one checkpoint, number 0."""
    disk = Disk(tmp_path / "store", SystemCalls(monkeypatch, tmp_path))
    assert disk.use(lambda store: store.save("c", values(0))).seq == 0
    return disk


def is_ours(error: BaseException, code: int) -> None:
    """The error is of the class that belongs to the code, and quotes nothing of the system's paths."""
    expected: type[BaseException] = BackendError
    if code in (errno.ENOSPC, errno.EDQUOT):
        expected = StoreFullError
    elif code in (errno.EROFS, errno.EACCES):
        expected = AccessDeniedError
    assert isinstance(error, expected), error
    assert "secret-path" not in str(error)
    assert re.search(r"file://", str(error)), error


FAULTS = [
    pytest.param(errno.ENOSPC, WRITING, True, id="a full disk"),
    pytest.param(errno.ENOSPC, ("fsync",), False, id="a disk that is full when it is flushed"),
    pytest.param(errno.EDQUOT, ("write",), True, id="no quota left"),
    pytest.param(errno.EDQUOT, ("close",), False, id="no quota left, told by close"),
    pytest.param(errno.EIO, ("write",), False, id="a write that fails"),
    pytest.param(errno.EIO, ("fsync",), False, id="a flush that fails"),
    pytest.param(errno.EIO, ("close",), False, id="a close that fails"),
    pytest.param(errno.EIO, ("rename", "link"), False, id="a rename that fails"),
    pytest.param(errno.EMFILE, ("open",), False, id="too many open files for a moment"),
    pytest.param(errno.EMFILE, ("open",), True, id="too many open files"),
    pytest.param(errno.EROFS, CHANGING, True, id="a disk that became read-only"),
    pytest.param(errno.EACCES, ("open",), True, id="permissions that were taken away"),
    pytest.param(errno.EIO, ("stat",), False, id="a stat that fails"),
]


@pytest.mark.parametrize(("code", "calls", "on"), FAULTS)
def test_a_save_that_fails_at_any_call_commits_nothing_and_the_next_one_works(
    disk: Disk, code: int, calls: tuple[str, ...], on: bool
) -> None:
    before, failures = disk.files(), 0
    for nth in itertools.count(1):
        copy = disk.copy(f"save-{nth}")
        outcome = copy.use(lambda store: store.save("c", values(1)), code, calls, nth=nth, on=on)
        fired, committing = disk.calls.fired, any("manifests" in folder for folder in disk.calls.created)
        failed, seeds = isinstance(outcome, CheckpointStoreError), copy.seeds()
        assert seeds in ([0], [1, 0])
        if not failed:
            assert seeds == [1, 0]
        elif isinstance(outcome, CommitUnknownError):
            assert code in TRANSIENT
        else:
            failures += 1
            assert seeds == [0], f"refused, and there: {outcome!r}"
            is_ours(outcome, code)
            # What a refused commit has named is collected as garbage; a save that came less far removes its own.
            if code in CAN_DELETE and not committing:
                assert copy.files() == before, f"left behind: {outcome!r}"
        copy.use(lambda store: store.save("c", values(2)))
        assert copy.seeds() == [2, *seeds]
        if not fired:
            break
    assert failures


READS = ("open", "read", "list", "stat")


async def load(store: AsyncCheckpointStore) -> bool:
    return is_values(await store.load("c"), 0)


async def look(store: AsyncCheckpointStore) -> bool:
    newest = await store.latest("c")
    assert newest is not None, "a checkpoint that cannot be read is not there"
    listed = [found async for found in store.list()]
    return listed == [newest] and (await store.inspect(newest)).checkpoint == newest


@pytest.mark.parametrize("question", [load, look])
@pytest.mark.parametrize(
    ("code", "calls", "on"),
    [
        pytest.param(errno.EIO, READS, False, id="an error for a moment"),
        pytest.param(errno.EIO, ("read",), True, id="a disk that cannot be read"),
        pytest.param(errno.EMFILE, ("open",), True, id="too many open files"),
        pytest.param(errno.EACCES, ("open",), True, id="permissions that were taken away"),
    ],
)
def test_a_question_that_fails_at_any_call_is_answered_or_an_error_and_never_nothing(
    disk: Disk, question: Any, code: int, calls: tuple[str, ...], on: bool
) -> None:
    before, errors = disk.files(), 0
    for nth in itertools.count(1):
        answer = disk.use(question, code, calls, nth=nth, on=on)
        if not disk.calls.fired:
            break
        if answer is not True:
            assert isinstance(answer, CheckpointStoreError), answer
            if not isinstance(answer, ChunkCorruptError):
                is_ours(answer, code)
            errors += 1
    assert answer is True
    assert errors
    assert disk.files() == before


def test_bytes_that_come_and_go_in_parts_are_whole(disk: Disk) -> None:
    async def do(store: AsyncCheckpointStore) -> list[bool]:
        saved = await store.save("c", values(1))
        return [is_values(await store.load(saved), 1), saved == await store.latest("c")]

    assert disk.use(do, None, ("write", "read"), on=True) == [True, True]
    assert disk.calls.fired > 20
    assert disk.seeds() == [1, 0]


CHANGES = [
    pytest.param(errno.EIO, (*READS, "unlink", "fsync", "rename", "link", "write", "close"), id="an error"),
    pytest.param(errno.ENOSPC, WRITING, id="no space"),
    pytest.param(errno.EROFS, CHANGING, id="read-only"),
]


@pytest.mark.parametrize("step", [17, pytest.param(1, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
@pytest.mark.parametrize(("code", "calls"), CHANGES)
def test_deleting_and_collecting_that_fails_at_any_call_costs_nothing_that_is_kept(
    disk: Disk, code: int, calls: tuple[str, ...], step: int
) -> None:
    async def prepare(store: AsyncCheckpointStore) -> None:
        first = await store.save("c", values(1))
        for n in (2, 3):
            await store.save("c", values(n))
        await store.delete(first)

    disk.use(prepare)
    age(disk, GRACE_S + 10)

    async def change(store: AsyncCheckpointStore) -> None:
        await store.retain("c", last(2))
        newest = await store.latest("c")
        assert newest is not None
        await store.delete(newest)
        await store.undelete(newest)
        await store.collect_garbage(force=True)

    for nth in itertools.count(1, step):
        copy = disk.copy(f"change-{nth}")
        outcome = copy.use(change, code, calls, nth=nth)
        fired = disk.calls.fired
        seeds = copy.seeds()
        if outcome is None:
            assert seeds == [3, 2]
        else:
            assert isinstance(outcome, (BackendError, GCAbortedError)), outcome
            assert seeds in ([3, 2], [3, 2, 0], [2], [2, 0]), f"{nth}: {outcome!r}"
        # The next run does the rest.
        copy.use(lambda store: store.collect_garbage(force=True))
        assert copy.seeds() == seeds
        if not fired:
            break
    assert nth > 10


@pytest.mark.parametrize(
    ("code", "calls"),
    [(errno.EIO, (*READS, "mkdir", "write", "fsync", "close", "link")), (errno.ENOSPC, WRITING)],
)
def test_an_opening_that_fails_at_any_call_is_told_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, calls: tuple[str, ...]
) -> None:
    failing = SystemCalls(monkeypatch, tmp_path)

    async def opened(disk: Disk) -> None:
        await (await disk.open(config=FULL)).aclose()

    for nth in itertools.count(1):
        disk = Disk(tmp_path / str(nth) / "store", failing)
        failing.fail(code, calls, nth=nth)
        try:
            asyncio.run(opened(disk))
        except BackendError as exc:
            is_ours(exc, code)
        finally:
            fired = failing.fired
            failing.heal()
        asyncio.run(opened(disk))
        if not fired:
            break
    assert nth > 3
