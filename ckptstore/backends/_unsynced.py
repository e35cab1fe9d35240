"""The files that were written and are not yet known to be on the disk."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from ckptstore.backends._files import Root, fsync, translated
from ckptstore.errors import BackendError, StoreClosedError

__all__ = ["UnsyncedFiles"]

_MAX_OPEN_FILES = 1024
_SHARE = 8


def max_open_files() -> int:
    """Return how many files one store may keep open: an eighth of what the process may, at most 1024."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    except (ImportError, OSError, ValueError):
        return 32
    unlimited = most == resource.RLIM_INFINITY
    return _MAX_OPEN_FILES if unlimited else max(1, min(_MAX_OPEN_FILES, most // _SHARE))


class UnsyncedFiles:
    """Keeps written files open until they are flushed. Thread-safe; every method may block.

    A descriptor must stay open until its fsync: after a close an error of the
    write-back may be reported to nobody. Beyond ``max_open_files`` the oldest is
    flushed at once. There are many, because an fsync amid the writes makes the
    file system commit for one file; at the end, the first does it for all.

    An fsync error is final for its file (the system may forget the unwritten
    pages, and the next fsync succeeds): the key stays failed, and ``flush``
    raises, until it is forgotten because the object was deleted.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._lock = threading.Lock()
        self._open: OrderedDict[str, int] = OrderedDict()
        self._flushing: dict[str, threading.Event] = {}
        self._failed: dict[str, OSError] = {}
        self._directories: set[str] = set()
        self._settled: set[str] = {""}
        self._closed = False
        self._max_open = max_open_files()

    def add(self, key: str, fd: int) -> None:
        """Take over the descriptor of a file that was written; may flush an older one."""
        with self._lock:
            if self._closed:
                os.close(fd)
                raise StoreClosedError(f"{self._root.url} was used after it was closed")
            self._open[key] = fd
            self._directories.add(key.rpartition("/")[0])
            oldest = self._take_oldest() if len(self._open) > self._max_open else None
        if oldest is not None:
            self._flush_file(*oldest)

    def make_room(self) -> bool:
        """Flush the older half of the files, whose descriptors are free then; return whether there were any."""
        with self._lock:
            oldest = [self._take_oldest() for _ in range((len(self._open) + 1) // 2)]
        for key, fd, event in oldest:
            self._flush_file(key, fd, event)
        return bool(oldest)

    def add_directory(self, key: str) -> None:
        """Let the next flush bring the key's directory to the disk."""
        with self._lock:
            self._directories.add(key.rpartition("/")[0])

    def forget(self, key: str) -> None:
        """Drop a file that was deleted, and its failure."""
        with self._lock:
            flushing = self._flushing.get(key)
        if flushing is not None:
            flushing.wait()
        with self._lock:
            fd = self._open.pop(key, None)
            self._failed.pop(key, None)
        if fd is not None:
            os.close(fd)

    def flush(self) -> None:
        """Bring every file added before this call to the disk, then their directories.

        Raises the first BackendError; what failed stays unflushed.
        """
        for _ in range(len(self._open)):  # not "until none is left": others may go on adding
            with self._lock:
                oldest = self._take_oldest() if self._open else None
            if oldest is not None:
                self._flush_file(*oldest)
        with self._lock:
            flushing = list(self._flushing.values())
        for event in flushing:
            event.wait()
        with self._lock:
            for key, failure in self._failed.items():
                error = translated(failure, "cannot flush", key, self._root.url)
                error.transient = False
                raise error from failure
            # Taken before they are flushed: one that gets a file meanwhile is added again by its put.
            directories, self._directories = self._directories, set()
        try:
            self.settle(*directories)
            for directory in sorted(directories):
                self._flush_directory(directory)
        except BaseException:
            with self._lock:
                self._directories |= directories
            raise

    def settle(self, *directories: str) -> None:
        """Make the directories' own entries durable, and those of their parents, once."""
        chain: set[str] = set()
        for directory in directories:
            while directory not in self._settled and directory not in chain:
                chain.add(directory)
                directory = directory.rpartition("/")[0]
        for parent in sorted({directory.rpartition("/")[0] for directory in chain}):
            self._flush_directory(parent)
        self._settled.update(chain)

    def close(self) -> None:
        """Close every file without flushing it."""
        with self._lock:
            self._closed = True
            descriptors = list(self._open.values())
            self._open.clear()
        for fd in descriptors:
            os.close(fd)

    def _take_oldest(self) -> tuple[str, int, threading.Event]:
        key, fd = self._open.popitem(last=False)
        event = self._flushing[key] = threading.Event()
        return key, fd, event

    def _flush_file(self, key: str, fd: int, event: threading.Event) -> None:
        failure: OSError | None = None
        try:
            try:
                fsync(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            failure = exc
        finally:
            with self._lock:
                if failure is not None:
                    self._failed[key] = failure
                del self._flushing[key]
            event.set()

    def _flush_directory(self, directory: str) -> None:
        try:
            with self._root.directory(directory) as fd:
                fsync(fd)
        except BackendError:
            raise
        except OSError as exc:
            what = f"the directory {directory or '.'}"
            raise translated(exc, "cannot flush", what, self._root.url) from exc
