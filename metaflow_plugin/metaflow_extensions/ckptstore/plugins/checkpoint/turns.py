"""One save at a time in all processes of a task, in an order that the store can tell.

A line's checkpoints are numbered from where their writer opened it, so of two
processes that save in turn, the later one to open it would always come first.
Therefore who saves notes that in a file, and whoever finds another's note there
opens the line anew before it saves.

The file lies in a folder of the task's machine, beside one that the task holds
locked as long as it lives: a process that outlived its task is told so, and
cannot get before what the next attempt saves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .errors import CheckpointException

__all__ = ["Turns"]

_ALIVE = "alive"
_OWNER = "owner"
_TURN = "turn"
_FIRST_PAUSE_S = 0.001
_LONGEST_PAUSE_S = 0.05


class Turns:
    """The turns of one task's processes, as one of them takes them; threads share the turn of their process.

    Made by ``of_task`` in the task, by ``of_child`` in its child processes. An
    object that a fork has copied is the child's.
    """

    def __init__(self, folder: str, *, alive: int | None) -> None:
        self.folder = folder
        self._alive = alive
        """Locked while the task lives; None in its child processes."""
        self._begin_process()

    @classmethod
    def of_task(cls) -> Turns:
        """Make the folder, which lasts until ``close``; those of tasks that were killed are removed. Raises OSError."""
        common = _common_folder()
        folder = tempfile.mkdtemp(prefix="ckptstore-task-", dir=common)
        alive = os.open(
            os.path.join(folder, _ALIVE), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
        )
        # Of the process, not of the open file: it ends with the task, whatever it has forked.
        fcntl.lockf(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(folder, _OWNER).write_text(str(os.getpid()))
        if common is not None:
            for name in os.listdir(common):
                _remove_if_over(os.path.join(common, name))
        return cls(folder, alive=alive)

    @classmethod
    def of_child(cls, folder: str) -> Turns:
        """Return the turns of a process that a task has started."""
        return cls(folder, alive=None)

    def enter(self, begin_anew: Callable[[], object]) -> None:
        """Wait for the turn; ``leave`` must follow. Calls ``begin_anew`` if others saved since the last one.

        Raises CheckpointException in a child process whose task has ended, and
        what ``begin_anew`` raises; the turn is not taken then.
        """
        if self._pid != os.getpid():
            self._alive = None
            self._begin_process()
        with self._mutex:
            if self._n_inside == 0:
                self._wait()
                try:
                    self._note(begin_anew)
                except BaseException:
                    self._release()
                    raise
            self._n_inside += 1

    def leave(self) -> None:
        """Let others have their turn, if no other thread of this process is inside; from any thread."""
        with self._mutex:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._release()

    def close(self) -> None:
        """Remove the folder, if it is the task's that ends. Idempotent."""
        if self._pid == os.getpid() and self._alive is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            os.close(self._alive)
            self._alive = None

    def _begin_process(self) -> None:
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._n_inside = 0
        self._turn: int | None = None
        self._token = secrets.token_hex(16).encode()

    def _wait(self) -> None:
        pause_s = _FIRST_PAUSE_S
        try:
            turn = os.open(os.path.join(self.folder, _TURN), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError as error:
            raise self._ended() from error
        try:
            while True:
                self._check_task()
                with contextlib.suppress(BlockingIOError):
                    fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        except BaseException:
            os.close(turn)
            raise
        self._turn = turn

    def _note(self, begin_anew: Callable[[], object]) -> None:
        assert self._turn is not None
        last = os.pread(self._turn, len(self._token), 0)
        if last == self._token:
            return
        if last or self._alive is None:
            begin_anew()
        os.pwrite(self._turn, self._token, 0)

    def _release(self) -> None:
        if self._turn is not None:
            # Closing is not enough: what was forked meanwhile holds a copy.
            fcntl.flock(self._turn, fcntl.LOCK_UN)
            os.close(self._turn)
            self._turn = None

    def _check_task(self) -> None:
        """Raise CheckpointException if the task is over."""
        if self._alive is None and (_remove_if_over(self.folder) or not os.path.isdir(self.folder)):
            raise self._ended()

    def _ended(self) -> CheckpointException:
        return CheckpointException(
            "the task that started this process has ended, or runs on another machine, so nothing was saved: "
            "a save from here could come before what the task's next attempt saves. Save in the task itself, "
            "or in a process on its machine that ends before it."
        )


def _common_folder() -> str | None:
    """Return the folder of this user's tasks, so that few names are looked through; None if others can write there."""
    path = os.path.join(tempfile.gettempdir(), f"ckptstore-{os.geteuid()}")
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    found = os.lstat(path)
    is_private = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
    return path if is_private else None


def _remove_if_over(folder: str) -> bool:
    """Remove the folder of a task that was killed, as nobody else does; tell whether it was."""
    try:
        if Path(folder, _OWNER).read_text() == str(os.getpid()):
            return False  # to look closer would let go of our own lock
        alive = os.open(os.path.join(folder, _ALIVE), os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False  # it is being made, or is removed already
    try:
        fcntl.lockf(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # which of the two, the system chooses
        return False
    finally:
        os.close(alive)
    shutil.rmtree(folder, ignore_errors=True)
    return True
