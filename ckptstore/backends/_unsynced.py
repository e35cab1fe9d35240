"""The files that were written and are not yet known to be on the disk."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict

from ckptstore.backends._files import Root, fsync, translated
from ckptstore.errors import BackendError, StoreClosedError

__all__ = ["UnsyncedFiles"]

MAX_OPEN_FILES = 32


class UnsyncedFiles:
    """Keeps written files open until they are flushed. Thread-safe; every method may block.

    A descriptor must stay open until its fsync: after a close an error of the
    write-back may be reported to nobody. Beyond ``MAX_OPEN_FILES`` the oldest is
    flushed at once; the system has then mostly written it already.

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

    def add(self, key: str, fd: int) -> None:
        """Take over the descriptor of a file that was written; may flush an older one."""
        with self._lock:
            if self._closed:
                os.close(fd)
                raise StoreClosedError(f"{self._root.url} was used after it was closed")
            self._open[key] = fd
            self._directories.add(key.rpartition("/")[0])
            oldest = self._take_oldest() if len(self._open) > MAX_OPEN_FILES else None
        if oldest is not None:
            self._flush_file(*oldest)

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
            for directory in sorted(directories):
                self.settle(directory)
                self._flush_directory(directory)
        except BaseException:
            with self._lock:
                self._directories |= directories
            raise

    def settle(self, directory: str) -> None:
        """Make a directory's own entry durable, and those of its parents, once."""
        chain = []
        while directory not in self._settled:
            chain.append(directory)
            directory = directory.rpartition("/")[0]
            self._flush_directory(directory)
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
