"""Blocking file operations of the local backend: below one directory, never through a link.

Everything is opened relative to a descriptor of its directory, one component at
a time, so a link or a special file in the place of a directory or an object is
an error that says so, and never a way out of the store or a hang.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator

from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    ConfigError,
    ObjectNotFoundError,
    StoreClosedError,
    StoreFullError,
    StoreNotFoundError,
)

__all__ = [
    "TEMPORARY",
    "Root",
    "fsync",
    "mapped",
    "open_object",
    "require_regular",
    "split_key",
    "start_write_back",
    "translated",
    "write_all",
]

TEMPORARY = ".tmp-"
"""How the names of unfinished files begin."""

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RETRYABLE = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT}
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_IN_PLACE = {
    errno.ELOOP: "a symbolic link stands in its place",
    errno.ENOTDIR: "something that is no directory stands in its way",
    errno.EISDIR: "a directory stands in its place",
    errno.ENXIO: "a special file stands in its place",
}


@contextlib.contextmanager
def mapped(action: str, key: str, url: str, *, missing: bool = False) -> Iterator[None]:
    """Turn an OSError of the block into an error of ours that names the key and the store.

    ``missing``: ENOENT means that there is no such object.
    """
    try:
        yield
    except BackendError:
        raise
    except OSError as exc:
        if exc.errno == errno.ENOENT and missing:
            raise ObjectNotFoundError(f"no object {key} in {url}") from exc
        raise translated(exc, action, key, url) from exc


def translated(exc: OSError, action: str, key: str, url: str) -> BackendError:
    """Return the error of ours for ``exc``. ``action`` says what failed (``cannot read``)."""
    reason = _IN_PLACE.get(exc.errno or 0) or exc.strerror or str(exc)
    message = f"{action} {key} in {url}: {reason}"
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return AccessDeniedError(message)
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFullError(message)
    return BackendError(message, transient=exc.errno in _RETRYABLE)


def split_key(key: str, url: str) -> tuple[str, str]:
    """Return the directory and the name of a key's file.

    Raises BackendError for a key that is no path below the store, or whose file
    a listing would take for an unfinished one.
    """
    directory, slash, name = key.rpartition("/")
    parts = [name, *(directory.split("/") if slash else ())]
    if any(part in ("", ".", "..") for part in parts) or name.startswith(TEMPORARY) or "\0" in key:
        raise BackendError(f"the key {key!r} cannot be a file of {url}")
    return directory, name


class Root:
    """The directory of a store, and the way to the directories below it. Thread-safe.

    ``url`` names it in errors.
    """

    def __init__(self, path: str, url: str) -> None:
        self.path = path
        self.url = url
        self._fd: int | None = None
        self._closed = False
        self._lock = threading.Lock()

    def open(self, *, create: bool) -> None:
        """Open the directory; with ``create`` make it and its parents, durably, if it is missing.

        Raises StoreNotFoundError if it is missing, ConfigError if it is no
        directory, AccessDeniedError if it belongs to somebody else and
        everybody may write to it.
        """
        with self._lock:
            if self._closed:
                raise StoreClosedError(f"{self.url} was used after it was closed")
            if self._fd is None:
                self._fd = self._open_root(create)

    def close(self) -> None:
        """Let go of the directory, for good."""
        with self._lock:
            self._closed = True
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    @contextlib.contextmanager
    def directory(self, relative: str, *, create: bool = False) -> Iterator[int]:
        """Give a descriptor of a directory below the root (``""``: the root) for the block."""
        fd = self.open_directory(relative, create=create)
        try:
            yield fd
        finally:
            os.close(fd)

    def open_directory(self, relative: str, *, create: bool = False) -> int:
        """Return a new descriptor, the caller's to close; with ``create`` make what is missing.

        Raises OSError as ``open`` does.
        """
        self.open(create=False)
        with self._lock:
            if self._fd is None:
                raise StoreClosedError(f"{self.url} was used after it was closed")
            fd = os.dup(self._fd)
        try:
            for part in relative.split("/") if relative else ():
                fd = self._enter(fd, part, create)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def check_present(self) -> None:
        """Raise BackendError if the directory was removed or replaced since it was opened.

        Called before anything is reported as missing: a store that vanished must
        not look like an empty one.
        """
        self.open(create=False)
        try:
            with self._lock:
                if self._fd is None:
                    raise StoreClosedError(f"{self.url} was used after it was closed")
                ours = os.fstat(self._fd)
            found = os.stat(self.path)
        except FileNotFoundError as exc:
            raise BackendError(f"the directory of {self.url} is gone: {exc.strerror}") from exc
        except OSError as exc:
            raise translated(exc, "cannot look at", "the directory", self.url) from exc
        if not os.path.samestat(ours, found):
            raise BackendError(
                f"the directory of {self.url} was replaced by another one; open the store again"
            )

    @contextlib.contextmanager
    def missing_is_believed(self) -> Iterator[None]:
        """Let an ObjectNotFoundError of the block through only if the store itself is still there."""
        try:
            yield
        except ObjectNotFoundError:
            self.check_present()
            raise

    def _enter(self, fd: int, part: str, create: bool) -> int:
        """Return a descriptor of the directory ``part`` of ``fd``, and close ``fd``."""
        if part in ("", ".", ".."):
            raise BackendError(
                f"a key of {self.url} has the part {part!r}, which cannot be a directory's name"
            )
        flags = _DIRECTORY_FLAGS | os.O_NOFOLLOW
        try:
            child = os.open(part, flags, dir_fd=fd)
        except FileNotFoundError:
            if not create:
                raise
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=fd)
            child = os.open(part, flags, dir_fd=fd)
        os.close(fd)
        return child

    def _open_root(self, create: bool) -> int:
        try:
            fd = os.open(self.path, _DIRECTORY_FLAGS)
        except FileNotFoundError as exc:
            if not create:
                raise StoreNotFoundError(
                    f"there is no store at {self.url}: the directory is missing"
                ) from exc
            try:
                self._make_root()
                fd = os.open(self.path, _DIRECTORY_FLAGS)
            except OSError as failed:
                raise translated(failed, "cannot make", "the directory", self.url) from failed
        except NotADirectoryError as exc:
            raise ConfigError(f"{self.url} is not a directory") from exc
        except OSError as exc:
            raise translated(exc, "cannot open", "the directory", self.url) from exc
        try:
            found = os.fstat(fd)
        except OSError as exc:
            os.close(fd)
            raise translated(exc, "cannot open", "the directory", self.url) from exc
        open_to_all = found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX
        if open_to_all and found.st_uid != os.geteuid():
            os.close(fd)
            raise AccessDeniedError(
                f"{self.url} belongs to another user and everybody may write to it; "
                "use a directory of your own, or take the permission away (chmod o-w)"
            )
        return fd

    def _make_root(self) -> None:
        missing = []
        path = self.path
        while not os.path.lexists(path):
            missing.append(path)
            path = os.path.dirname(path)
        for path in reversed(missing):
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)
            parent = os.open(os.path.dirname(path), _DIRECTORY_FLAGS)
            try:
                fsync(parent)
            finally:
                os.close(parent)


def open_object(root: Root, key: str) -> int:
    """Return a descriptor for reading the object, the caller's to close.

    Raises ObjectNotFoundError, or BackendError: anything but a regular file in
    the object's place is named, and not opened in a way that could block.
    """
    directory, name = split_key(key, root.url)
    with (
        root.missing_is_believed(),
        mapped("cannot read", key, root.url, missing=True),
        root.directory(directory) as folder,
    ):
        # O_NONBLOCK: opening a FIFO would wait for a writer.
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    try:
        with mapped("cannot read", key, root.url):
            require_regular(os.fstat(fd), key, root.url)
    except BaseException:
        os.close(fd)
        raise
    return fd


def require_regular(found: os.stat_result, key: str, url: str) -> None:
    """Raise BackendError, saying what it is, if an object is not a regular file."""
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "a special file")
        raise BackendError(f"cannot read {key} in {url}: {kind} stands in its place")


def write_all(write: Callable[[memoryview], int], data: memoryview) -> None:
    """Call ``write`` until all of ``data`` is taken: one call may take only a part."""
    while data:
        n = write(data)
        if n <= 0:
            raise OSError(errno.EIO, "the disk took no bytes")
        data = data[n:]


def fsync(fd: int) -> None:
    """Return when the file or directory is on the disk."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync leaves the data in the drive's cache there
    else:
        os.fsync(fd)


def _find_sync_file_range() -> Callable[[int, int, int, int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        function = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    function.restype = ctypes.c_int
    found: Callable[[int, int, int, int], int] = function
    return found


_sync_file_range = _find_sync_file_range()
_WRITE = 2  # SYNC_FILE_RANGE_WRITE: start, do not wait


def start_write_back(fd: int) -> None:
    """Ask the system to begin writing the file to the disk, so that a later fsync waits less."""
    if _sync_file_range is not None:
        _sync_file_range(fd, 0, 0, _WRITE)  # only a hint: its failure changes nothing
