"""How files stand among a checkpoint's fields: their names, and the index that tells the rest.

A file's content is the field ``directory/<relative path>``, which no attribute
can be called. The field ``directory/`` is the index: plain data with

- ``version``: 1,
- ``files``: name to ``[n_bytes, mode, mtime_ns]``, for exactly the files that are fields,
- ``directories``: name to ``mtime_ns``, every one below the root,
- ``links``: name to target.

Names are relative paths, bytes as everywhere on POSIX: what is UTF-8 stands for
itself, ``%`` and what no field's name may hold as ``%`` and two hex digits a
byte. All of it is checked before a file is written, as whoever could write to
the store may have made it up.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from ..errors import CheckpointException
from ..reserved import DIRECTORY as INDEX

__all__ = [
    "INDEX",
    "Entries",
    "FileFacts",
    "decode",
    "encode",
    "is_file_field",
    "is_link_target",
    "read_index",
    "shown",
]

VERSION = 1
MAX_NAME_BYTES = 1024

_UNFIT = re.compile("[%\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class FileFacts(NamedTuple):
    """What is kept of a file beside its content; ``mode`` has the permission bits."""

    n_bytes: int
    mode: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Entries:
    """What an index lists, by relative path; parents stand before what is in them."""

    files: dict[bytes, FileFacts]
    directories: dict[bytes, int]
    links: dict[bytes, bytes]

    def to_index(self) -> dict[str, Any]:
        """Return the index field's value."""
        return {
            "version": VERSION,
            "files": {encode(path): list(facts) for path, facts in self.files.items()},
            "directories": {encode(path): mtime_ns for path, mtime_ns in self.directories.items()},
            "links": {encode(path): encode(target) for path, target in self.links.items()},
        }


def is_file_field(name: str) -> bool:
    """Whether a field is a file of the directory, or the index; all others are attributes."""
    return name.startswith(INDEX)


def shown(path: bytes) -> str:
    """Return a path for a message: printable, whatever its bytes are."""
    return repr(os.fsdecode(path))


def encode(path: bytes) -> str:
    """Return a relative path as text; ``decode`` gives the path back.

    Raises CheckpointException if a field's name cannot be that long.
    """
    text = _UNFIT.sub(_percent, path.decode("utf-8", "surrogateescape"))
    if len((INDEX + text).encode()) > MAX_NAME_BYTES:
        raise CheckpointException(
            f"the path {shown(path)[:80]}... in the checkpoint's directory is too long: "
            f"its name in the store takes more than {MAX_NAME_BYTES} bytes. Use shorter names."
        )
    return text


def decode(text: object) -> bytes:
    """Return the path that ``encode`` made this text of, or raise CheckpointException."""
    if isinstance(text, str):
        try:
            path = unquote_to_bytes(text)
            if encode(path) == text:
                return path
        except (UnicodeEncodeError, CheckpointException):
            pass
    raise _wrong(f"{text!r} is no name of ours")


def read_index(index: object, fields: Collection[str]) -> Entries:
    """Return what an index says, or raise CheckpointException unless it fits the file fields.

    What is returned is safe to write below an empty directory: no path leads
    out of it, or through a link, and no two are in each other's way.
    """
    if not isinstance(index, Mapping) or type(index.get("version")) is not int:
        raise _wrong("its index has no version")
    if index["version"] != VERSION:
        raise CheckpointException(
            f"the files of this checkpoint are listed in version {index['version']}, this release reads "
            f"version {VERSION}. Update ckptstore to restore them."
        )
    if set(index) != {"version", "files", "directories", "links"}:
        raise _wrong("its index has other parts than ours")
    directories = {path: _mtime(value) for path, value in _paths(index["directories"])}
    files = {path: _file_facts(value) for path, value in _paths(index["files"])}
    links = {path: decode(value) for path, value in _paths(index["links"])}
    if len(directories.keys() | files.keys() | links.keys()) < len(directories) + len(files) + len(links):
        raise _wrong("a path is listed twice")
    for path in (*directories, *files, *links):
        parent = os.path.dirname(path)
        if parent and parent not in directories:
            raise _wrong(f"{shown(path)} is not in a directory that is listed")
    for path, target in links.items():
        if not is_link_target(path, target):
            raise _wrong(f"the link {shown(path)} leads out of the directory")
    if {INDEX + name for name in index["files"]} | {INDEX} != set(fields):
        raise _wrong("its index lists other files than it holds")
    return Entries(files, directories, links)


def is_link_target(path: bytes, target: bytes) -> bool:
    """Whether a link at ``path`` with this text stays below the root, whatever other such links there are.

    Steps up may only stand at the beginning: there they leave real directories,
    and what follows only descends, from where no link leads out.
    """
    if target == b".":
        return True
    steps = target.split(b"/")
    n_up = 0
    while n_up < len(steps) and steps[n_up] == b"..":
        n_up += 1
    return n_up <= path.count(b"/") and (n_up == len(steps) or _is_plain(steps[n_up:]))


def _paths(listed: object) -> list[tuple[bytes, Any]]:
    if not isinstance(listed, Mapping):
        raise _wrong("its index is no list of names")
    paths = sorted((decode(name), value) for name, value in listed.items())
    for path, _ in paths:
        if not _is_plain(path.split(b"/")):
            raise _wrong(f"{shown(path)} is not a path below the directory")
    return paths


def _is_plain(steps: list[bytes]) -> bool:
    return not any(step in (b"", b".", b"..") or b"\0" in step for step in steps)


def _file_facts(value: object) -> FileFacts:
    if not isinstance(value, list) or len(value) != 3 or any(type(fact) is not int for fact in value):
        raise _wrong("a file has other facts than ours")
    n_bytes, mode, mtime_ns = value
    if n_bytes < 0 or mode & ~0o777:
        raise _wrong("a file has no size or mode of ours")
    return FileFacts(n_bytes, mode, _mtime(mtime_ns))


def _mtime(value: object) -> int:
    if type(value) is not int or not -(2**62) < value < 2**62:
        raise _wrong("an entry has no time of ours")
    return value


def _percent(unfit: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in unfit.group().encode("utf-8", "surrogateescape"))


def _wrong(what: str) -> CheckpointException:
    return CheckpointException(
        f"the files of this checkpoint cannot be restored, nothing was written: {what}. "
        "It is damaged, or was not written by ckptstore."
    )
