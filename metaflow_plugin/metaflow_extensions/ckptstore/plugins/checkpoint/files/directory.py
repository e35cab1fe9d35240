"""``current.checkpoint.directory``: files that are saved with the attributes."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

from ..errors import CheckpointException
from .directory_files import collect_files

__all__ = ["CheckpointDirectory"]

Fill = Callable[[Path], None]
"""Writes files into an empty directory, or raises."""


class CheckpointDirectory:
    """A private temporary directory of one task, made when it is first used.

    ``temp_dir_root`` is the folder to make it in, which is made if need be;
    None: where temporary files go. ``fill`` gives it its first content.
    What there is to tell of the files that it reads goes to ``log``.
    """

    def __init__(self, temp_dir_root: str | None, *, fill: Fill, log: Callable[[str], None]) -> None:
        self._temp_dir_root = temp_dir_root
        self._fill = fill
        self._log = log
        self._lock = threading.Lock()
        self._place: _Place | None = None

    @property
    def path(self) -> Path:
        """The directory; at the first use it is made and filled.

        Raises CheckpointException if it cannot be made, and what ``fill``
        raises; the next use tries again.
        """
        with self._lock:
            if self._place is None:
                place = _Place(self._temp_dir_root)
                try:
                    self._fill(place.directory)
                except BaseException:
                    place.remove()
                    raise
                self._place = place
            return self._place.directory

    @property
    def in_use(self) -> bool:
        """Whether it was made; it is part of every save then."""
        return self._place is not None

    def fields(self) -> dict[str, object]:
        """Return the fields that hold its files, none while it is not in use; see ``collect_files``."""
        return {} if self._place is None else self.collect(self._place.directory)

    def collect(self, path: Path) -> dict[str, object]:
        """Return the fields that hold the files of a directory, or one file, from anywhere."""
        return collect_files(path, log=self._log)

    @contextlib.contextmanager
    def staged(self, fill: Fill) -> Iterator[Callable[[], None]]:
        """Have ``fill`` write a new content beside the directory; what is given moves it in.

        That replaces all entries, or raises CheckpointException and changes
        none. The directory itself stays, so a process that works in it goes on.
        Only while it is in use.
        """
        place = self._place
        if place is None:
            raise CheckpointException("the checkpoint's directory is not in use.")
        with place.aside("new") as new, place.aside("old") as old:
            fill(new)
            yield lambda: _exchange(place.directory, new=new, old=old)

    def close(self) -> None:
        """Remove the directory with all that is in it; a later use makes another."""
        with self._lock:
            place, self._place = self._place, None
        if place is not None:
            place.remove()


class _Place:
    """A private folder with the directory in it, and beside it room to build another content."""

    def __init__(self, temp_dir_root: str | None) -> None:
        try:
            if temp_dir_root is not None:
                os.makedirs(temp_dir_root, exist_ok=True)
            # Absolute: the step may change its working directory.
            root = None if temp_dir_root is None else os.path.abspath(temp_dir_root)
            self._folder = tempfile.mkdtemp(prefix="ckptstore-", dir=root)
            self.directory = Path(self._folder, "directory")
            self.directory.mkdir(mode=0o700)
        except OSError as error:
            raise CheckpointException(
                f"current.checkpoint.directory cannot be made: {error}. "
                "@checkpoint(temp_dir_root=...) says where else."
            ) from error
        # Also at the interpreter's end, if no hook of ours is called any more.
        self._finalizer = weakref.finalize(self, _remove, self._folder, os.getpid())

    def remove(self) -> None:
        """Remove the folder."""
        self._finalizer()

    @contextlib.contextmanager
    def aside(self, name: str) -> Iterator[Path]:
        """Give an empty folder on the same file system, until the end of the block."""
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _exchange(directory: Path, *, new: Path, old: Path) -> None:
    """Move what is in the directory to ``old`` and what is in ``new`` into it, or nothing."""
    moved: list[tuple[Path, Path]] = []
    try:
        for source, target in ((directory, old), (new, directory)):
            for name in sorted(os.listdir(source)):
                os.rename(source / name, target / name)
                moved.append((source / name, target / name))
    except OSError as error:
        for before, after in reversed(moved):
            os.rename(after, before)
        raise CheckpointException(
            f"the files of the checkpoint cannot be put into {directory}, it is as it was: {error}."
        ) from error


def _remove(folder: str, owner_pid: int) -> None:
    # A forked child inherits this, and ends before the task that uses the directory.
    if os.getpid() == owner_pid:
        shutil.rmtree(folder, ignore_errors=True)
