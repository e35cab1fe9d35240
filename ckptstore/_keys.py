"""The key grammar: every name of the store is built, parsed and refused here.

Keys are ASCII, of fixed depth and never differ by case alone. A user's name is
encoded reversibly: ``a-z 0-9 . _ -`` stand for themselves, ``A-Z`` become ``+``
and the small letter (so that ``Run`` and ``run`` stay apart on a file system
that folds case), every other character becomes ``=`` and two hex digits for
each byte of its UTF-8. ``~`` separates the parts of a manifest's name and never
occurs inside one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ckptstore.errors import InvalidNameError

__all__ = [
    "CHUNKS",
    "COLLECTION_MARKER",
    "MANIFESTS",
    "MARKER",
    "PIN",
    "TOMBSTONE",
    "CheckpointName",
    "check_collection",
    "chunk_key",
    "collection_of",
    "collection_prefix",
    "manifest_key",
    "parse_checkpoint",
    "parse_chunk_key",
    "parse_name",
]

MARKER = "ckptstore.json"
CHUNKS = "chunks/"
MANIFESTS = "manifests/"
COLLECTION_MARKER = "-collection"
TOMBSTONE = ".x"
PIN = ".k"

MAX_EPOCH = 2**32 - 1
MAX_SEQ = 2**48 - 1

# A key is at most 900 bytes, and a file name at most 255 on common disks.
_MAX_COLLECTION = 255
_MAX_RUN_AND_LABEL = 190

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")
_TOKEN = re.compile(r"[a-z0-9._-]|\+[a-z]|(?:=[0-9a-f]{2})+")
# Controls, line ends of every kind and halves of surrogate pairs: nobody means them in a name.
_UNFIT = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_CHUNK = re.compile(r"chunks/([0-9a-f]{2})/(\1[0-9a-f]{62})\.([0-9a-f]{16})\.([a-z0-9]{1,16})")
_NAME = re.compile(r"([0-9a-f]{8})([0-9a-f]{12})~([^~/]*)~([^~/]*)~([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """What a manifest's key says of its checkpoint; ``text`` is its last part."""

    epoch: int
    seq: int
    run: str | None
    label: str | None
    id: str

    @property
    def text(self) -> str:
        order = f"{MAX_EPOCH - self.epoch:08x}{MAX_SEQ - self.seq:012x}"
        return f"{order}~{_encode(self.run or '')}~{_encode(self.label or '')}~{self.id}"


def check_collection(collection: object) -> str:
    """Return the collection's name, or raise InvalidNameError that says what is wrong with it."""
    name = _check_text("collection", collection)
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise InvalidNameError(
                f"collection {_shown(name)}: the parts between '/' must not be empty, '.' or '..'"
            )
        if part.startswith("-"):
            raise InvalidNameError(f"collection {_shown(name)}: a part must not start with '-'")
    if len(_encode(name)) > _MAX_COLLECTION:
        raise InvalidNameError(
            f"collection {_shown(name)} takes {len(_encode(name))} bytes in a key, at most {_MAX_COLLECTION} fit; "
            "letters in upper case count twice, other characters three times a byte"
        )
    return name


def check_run_and_label(run: object, label: object) -> tuple[str | None, str | None]:
    """Return both, or raise InvalidNameError."""
    checked = tuple(
        None if value is None else _check_text(what, value)
        for what, value in (("run", run), ("label", label))
    )
    size = sum(len(_encode(value or "")) for value in checked)
    if size > _MAX_RUN_AND_LABEL:
        raise InvalidNameError(
            f"run and label together take {size} bytes in a key, at most {_MAX_RUN_AND_LABEL} fit: shorten "
            f"{_shown(max(checked, key=lambda value: len(value or '')) or '')}"
        )
    return checked  # type: ignore[return-value]  # a generator loses the length of the tuple


def check_field(name: object) -> str:
    """Return a field's name, or raise InvalidNameError."""
    text = _check_text("field", name)
    if len(text.encode()) > 1024:
        raise InvalidNameError(f"field {_shown(text)} is longer than 1024 bytes")
    return text


def collection_prefix(collection: str) -> str:
    """Return the prefix of all keys of a collection."""
    return f"{MANIFESTS}{_encode(collection)}/"


def collection_of(component: str) -> str | None:
    """Return the collection whose encoded name is ``component``, or None if it is not one of ours."""
    name = _decode(component)
    try:
        return None if name is None else check_collection(name)
    except InvalidNameError:
        return None


def manifest_key(collection: str, name: str) -> str:
    """Return the key of the manifest ``name`` in ``collection``."""
    return collection_prefix(collection) + name


def parse_name(text: str) -> CheckpointName | None:
    """Return what a manifest's name says, or None if it is not one of ours."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    epoch, seq, run_text, label_text, id_ = match.groups()
    run, label = _decode(run_text), _decode(label_text)
    if run is None or label is None:
        return None
    return CheckpointName(MAX_EPOCH - int(epoch, 16), MAX_SEQ - int(seq, 16), run or None, label or None, id_)


def parse_checkpoint(text: str) -> tuple[str, str] | None:
    """Return collection and name of a checkpoint that is called ``collection@name``, None for any other text.

    Raises InvalidNameError where that cannot be a collection.
    """
    collection, _, name = text.rpartition("@")
    return None if parse_name(name) is None else (check_collection(collection), name)


def chunk_key(digest: bytes, nonce: bytes, codec: str) -> str:
    """Return the key of a chunk; it is computed, never stored."""
    text = digest.hex()
    return f"{CHUNKS}{text[:2]}/{text}.{nonce.hex()}.{codec}"


def parse_chunk_key(key: str) -> tuple[bytes, bytes] | None:
    """Return digest and nonce of a chunk's key, or None if it is not one of ours."""
    match = _CHUNK.fullmatch(key)
    return None if match is None else (bytes.fromhex(match.group(2)), bytes.fromhex(match.group(3)))


def _check_text(what: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidNameError(f"{what} must be a string, not {type(value).__name__}")
    # The text itself: str() of an enum's member is its name.
    text = str.__str__(value)
    if not text:
        raise InvalidNameError(f"{what} must not be empty")
    if len(text) > 1024:
        raise InvalidNameError(f"{what} {_shown(text)} is longer than 1024 characters")
    unfit = _UNFIT.search(text)
    if unfit:
        raise InvalidNameError(f"{what} {_shown(text)} holds the character U+{ord(unfit.group()):04X}")
    return text


def _shown(name: str) -> str:
    return repr(name if len(name) <= 80 else name[:77] + "...")


def _encode(name: str) -> str:
    return "".join(map(_encode_char, name))


def _encode_char(char: str) -> str:
    if char in _PLAIN:
        return char
    if "A" <= char <= "Z":
        return "+" + char.lower()
    return "".join(f"={byte:02x}" for byte in char.encode())


def _decode(text: str) -> str | None:
    parts: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        token = match.group()
        position = match.end()
        if token[0] == "+":
            parts.append(token[1].upper())
        elif token[0] == "=":
            try:
                parts.append(bytes.fromhex(token.replace("=", "")).decode())
            except UnicodeDecodeError:
                return None
        else:
            parts.append(token)
    name = "".join(parts)
    # Only the one way that we write it is ours: no two keys decode to one name.
    return name if _encode(name) == text else None
