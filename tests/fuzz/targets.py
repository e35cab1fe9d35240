"""What is fuzzed: each target takes any bytes, and raises nothing but errors of ours.

Where a target takes its input for good, it checks what must then hold.
"""

from __future__ import annotations

import copy
import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import forge

from ckptstore import CheckpointRef
from ckptstore._keys import (
    CheckpointName,
    check_collection,
    check_field,
    check_run_and_label,
    collection_of,
    collection_prefix,
    parse_chunk_key,
    parse_name,
)
from ckptstore._marker import _parse
from ckptstore._metadata import plain_metadata
from ckptstore.backends import parse_url
from ckptstore.backends.memory import MemoryBackend
from ckptstore.cli.addresses import Address
from ckptstore.codecs import KNOWN_CODECS, ChunkCoder
from ckptstore.errors import CheckpointStoreError
from ckptstore.retention import Keep

Target = Callable[[bytes], None]

CODECS = sorted(KNOWN_CODECS)
MOST_RAW_BYTES = 1 << 24
_CODER = ChunkCoder()
_TREES = forge.trees()
_PLACES = [list(forge.places(tree)) for tree in _TREES]


class Choices:
    """Decisions that are read from bytes, so that a change of a byte is a change of a decision."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, below: int) -> int:
        size = 1 if below <= 256 else 4
        part = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(part, "little") % below

    def rest(self, most: int) -> bytes:
        part = self._data[self._at : self._at + most]
        self._at += most
        return part


ODD_VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 255, 2**16, 2**31, 2**32 - 1, 2**32, 2**53, 2**60),
    *(2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63), 0.0, -0.0, 1.5, float("nan"), float("inf")),
    *("", "x", "a" * 5000, "\x00", "..", "/", "\u20ac", "|O", "O", "float32", "planes4", "zstd", "pickle"),
    *(b"", b"\x00", b"\xff" * 8, b"\x01" * 32, b"\x00" * 70_000),
    *([], {}, [[]], [None] * 1000, [[[[[[[[[[]]]]]]]]]], {"": 0}, {"x": {"y": []}}, [0, 0, 0]),
    *(forge.Raw(b"\xc1"), forge.Raw(b"\xdd\xff\xff\xff\xff"), forge.Raw(b"\xdf\xff\xff\xff\xff")),
    *(forge.Raw(b"\xd6\xff\x00\x00\x00\x00"), forge.Raw(b"\xc7\x00\x05"), forge.Raw(b"\xca\x7f\xc0\x00\x00")),
    *(forge.Raw(b"\x91" * 4000 + b"\x00"), forge.Raw(b"\x82\xa1a\x00\xa1a\x01"), forge.Raw(b"\xa2\xff\xfe")),
    *(forge.Raw(b"\xc6\xff\xff\xff\xff"), forge.Raw(b"\x81\x01\x02"), forge.Raw(b"\xc0\xc0")),
]


def manifest(data: bytes) -> None:
    """The bytes of a manifest."""
    found, table = forge.opened(data)
    assert found.checkpoint.ref.store_id == forge.STORE
    assert len(table.buffers) == len(found.fields)


def manifest_structure(data: bytes) -> None:
    """A manifest in which one to three values are others, with digests that are right."""
    choices = Choices(data)
    trees = [copy.deepcopy(tree) for tree in _TREES]
    for _ in range(1 + choices.number(3)):
        which = choices.number(2)
        path = _PLACES[which][choices.number(len(_PLACES[which]))]
        how = choices.number(4)
        try:
            if how == 0:
                value: Any = ODD_VALUES[choices.number(len(ODD_VALUES))]
            elif how == 1:
                value = forge.value_at(trees[which], _PLACES[which][choices.number(len(_PLACES[which]))])
            elif how == 2:
                value = forge.Raw(choices.rest(12))
            else:
                old = forge.value_at(trees[which], path)
                value = old + choices.number(7) - 3 if type(old) is int else [old, old]
            trees[which] = forge.replaced(trees[which], path, value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    try:
        packed = [forge.packed(tree) for tree in trees]
    except (AttributeError, OverflowError, ValueError, TypeError):
        return  # no such msgpack
    forge.opened(forge.assembled(*packed))


def manifest_frames(data: bytes) -> None:
    """Summary and chunk table of any bytes, with digests and lengths that are right or lie."""
    choices = Choices(data)
    summary, body = forge.parts()
    lies = {choices.number(4): choices.number(2**32)} if choices.number(4) == 0 else {}
    which, how = choices.number(2), choices.number(3)
    rest = choices.rest(1 << 20)
    if how == 0:
        parts = [summary, body]
        parts[which] = rest
        forge.opened(forge.assembled(*parts, lengths=lies))
    elif how == 1:
        forge.opened(forge.assembled(summary, body, frames={which: rest}, lengths=lies))
    else:
        frame = forge.zipped((summary, body)[which])
        at = choices.number(len(frame))
        forge.opened(forge.assembled(summary, body, frames={which: frame[:at] + rest}, lengths=lies))


def chunk(data: bytes) -> None:
    """A chunk: the codec's number, four bytes for its raw length, and what is stored."""
    if len(data) < 5:
        return
    codec = CODECS[data[0] % len(CODECS)]
    into = bytearray(int.from_bytes(data[1:5], "little") % MOST_RAW_BYTES)
    _CODER.decode(codec, data[5:], memoryview(into))


def marker(data: bytes) -> None:
    """The store's marker."""
    store_id, grace_s = _parse(data, MemoryBackend())
    assert len(store_id) == 32
    assert grace_s > 0


def collection(data: bytes) -> None:
    name = check_collection(text_of(data))
    prefix = collection_prefix(name)
    assert prefix.isascii()
    assert collection_of(prefix.removeprefix("manifests/").removesuffix("/")) == name
    assert collection_of(text_of(data)) in (None, collection_of(text_of(data)))


def names(data: bytes) -> None:
    """A run and a label, a field, and whatever stands in a listing."""
    text = text_of(data)
    for key in (text, f"chunks/{text}"):
        parse_chunk_key(key)
    found = parse_name(text)
    if found is not None:
        assert parse_name(found.text) == found
    run, _, label = text.partition("\n")
    checked = check_run_and_label(run or None, label or None)
    whole = CheckpointName(1, 2, *checked, "0" * 32)
    assert parse_name(whole.text) == whole
    assert len(whole.text) < 900
    check_field(text)


def url(data: bytes) -> None:
    found = parse_url(text_of(data))
    assert ".." not in found.path.split("/")
    assert found.scheme != "file" or os.path.isabs(found.path)


def reference(data: bytes) -> None:
    """A reference as JSON, as it is when it comes from somewhere else."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    ref = CheckpointRef.from_dict(given)
    assert CheckpointRef.from_dict(ref.to_dict()) == ref


def address(data: bytes) -> None:
    """How the command line names a checkpoint."""
    found = Address.parse(text_of(data))
    assert Address.parse(str(found)) == found


def policy(data: bytes) -> None:
    """The text of a retention policy."""
    keep = Keep.parse(text_of(data))
    assert Keep.parse(str(keep)) == keep


def metadata(data: bytes) -> None:
    """Metadata as JSON brings it."""
    try:
        given = json.loads(data)
    except (ValueError, RecursionError):
        return
    if isinstance(given, Mapping):
        plain_metadata("metadata", given, forge.LIMITS)


def text_of(data: bytes) -> str:
    """Any text, that of broken file names too."""
    return data.decode("utf-8", "surrogateescape")


TARGETS: dict[str, Target] = {
    target.__name__: target
    for target in (
        *(manifest, manifest_structure, manifest_frames, chunk, marker),
        *(collection, names, url, reference, address, policy, metadata),
    )
}


def a_bug(data: bytes) -> None:
    if len(data) % 7 == 3:
        raise KeyError("not one of ours")


def a_hang(data: bytes) -> None:
    while len(data) % 7 == 3:
        pass


def a_slow_input(data: bytes) -> None:
    if len(data) % 7 == 3:
        until = time.process_time() + 1.2
        while time.process_time() < until:
            pass


def a_bomb(data: bytes) -> None:
    if len(data) % 7 == 3:
        bytearray(300 << 20)


BROKEN: dict[str, Target] = {target.__name__: target for target in (a_bug, a_hang, a_slow_input, a_bomb)}


def refused(target: Target, data: bytes) -> bool:
    """Run the target; tell whether it refused, by an error of ours whose text is fit to be read."""
    try:
        target(data)
    except CheckpointStoreError as exc:
        text = str(exc)
        assert 0 < len(text) < 4000, f"an error of {len(text)} characters"
        return True
    return False
