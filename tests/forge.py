"""A manifest to take apart: its trees are changed, packed again and given the digests they need."""

from __future__ import annotations

import copy
import struct
import time
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgpack
import zstandard
from blake3 import blake3

from ckptstore._keys import CheckpointName
from ckptstore._table import ChunkEntry, ChunkTable, StoredBuffer
from ckptstore.checkpoint import CheckpointRef, FieldInfo, LeafInfo, Manifest
from ckptstore.config import Limits
from ckptstore.errors import FormatError, IntegrityError
from ckptstore.manifest import HEADER_BYTES, Draft, ManifestSource, decode_summary, decode_table, encode

STORE = "ab" * 16
OTHER_STORE = "cd" * 16
NONCE, OLD_NONCE = b"newnonce", b"oldnonce"
LIMITS = Limits()

Tree = dict[str, Any]


def table() -> ChunkTable:
    """Three chunks, one of an older save, one shared by two fields."""
    chunks = (
        ChunkEntry(b"\1" * 32, NONCE, "planes4", 1000, 400),
        ChunkEntry(b"\2" * 32, OLD_NONCE, "raw", 500, 500),
        ChunkEntry(b"\3" * 32, NONCE, "zstd", 300, 100),
    )
    model = (
        StoredBuffer(5, b"graph", ()),
        StoredBuffer(1500, None, ((0, 0, 1000), (1, 0, 500))),
        StoredBuffer(100, None, ((2, 0, 100),)),
    )
    opt = (StoredBuffer(2, b"g2", ()), StoredBuffer(220, None, ((2, 100, 200), (1, 10, 20))))
    return ChunkTable(NONCE, chunks, (model, opt))


LEAVES = (
    (
        LeafInfo("w", "numpy", "float32", (15, 25), 1500, 0),
        LeafInfo("b", "torch", "bfloat16", (50,), 100, 1),
        LeafInfo("empty", "numpy", "int8", (0, 3), 0, None),
    ),
    (LeafInfo("", "numpy", "int8", (220,), 220, 0), LeafInfo("w", "numpy", "float32", (15, 25), 0, None)),
)


def draft(**changes: Any) -> Draft:
    """Return a small manifest in which nothing is empty."""
    given = table()
    costs = given.costs()
    fields = [
        FieldInfo(
            name, type_name, kind, cost.raw_bytes, cost.stored_bytes, cost.new_bytes, imports, LEAVES[i]
        )
        for i, (name, type_name, kind, imports, cost) in enumerate(
            [
                ("model", "torch.nn.modules.linear.Linear", "pickle", ("collections.deque",), costs[0]),
                ("opt", "numpy.ndarray", "tree", (), costs[1]),
            ]
        )
    ]
    parts: dict[str, Any] = {
        "store_id": STORE,
        "collection": "exp/Run 1",
        "name": CheckpointName(3, 7, "host-1", "best", "0123456789abcdef" * 2),
        "created_ns": 1_700_000_000_000_000_000,
        "parent": CheckpointRef(
            STORE, "exp/Run 1", CheckpointName(2, 0, None, None, "e" * 32).text, "f" * 64
        ),
        "metadata": {"loss": 0.25, "tags": ["a", b"b", None, True, {"deep": [1]}]},
        "attributes": {"flow": "Train"},
        "fields": fields,
        "table": given,
    }
    return Draft(**{**parts, **changes})


def source_of(given: Draft, digest: str | None = None) -> ManifestSource:
    """Return where a manifest belongs."""
    return ManifestSource(given.store_id, given.collection, given.name.text, digest)


DRAFT = draft()
DATA = encode(DRAFT, LIMITS)
SOURCE = source_of(DRAFT)


def opened(
    data: bytes, source: ManifestSource = SOURCE, limits: Limits = LIMITS
) -> tuple[Manifest, ChunkTable]:
    """Decode all of a manifest, as a load does."""
    manifest = decode_summary(data, source, limits)
    return manifest, decode_table(data, manifest, source, limits)


def problem(data: bytes) -> FormatError | IntegrityError | None:
    """Return the error that opening raises, None if it is opened; errors that are not ours pass."""
    try:
        opened(data)
    except (FormatError, IntegrityError) as exc:
        return exc
    return None


def parts(data: bytes = DATA) -> tuple[bytes, bytes]:
    """Return the msgpack of summary and chunk table."""
    middle = HEADER_BYTES + struct.unpack_from(">I", data, 8)[0]
    unzip = zstandard.ZstdDecompressor().decompress
    return unzip(data[HEADER_BYTES:middle]), unzip(data[middle:])


def trees(data: bytes = DATA) -> tuple[Tree, Tree]:
    """Return summary and chunk table as they are packed."""
    summary, body = (msgpack.unpackb(part) for part in parts(data))
    return summary, body


def zipped(data: bytes, **options: Any) -> bytes:
    return zstandard.ZstdCompressor(**{"level": 3, **options}).compress(data)


def assembled(
    summary: bytes,
    body: bytes,
    *,
    frames: Mapping[int, bytes] | None = None,
    lengths: Mapping[int, int] | None = None,
    version: int = 1,
    flags: int = 0,
    signature: bytes = bytes(48),
) -> bytes:
    """Put a manifest together from msgpack, with digests that are right.

    ``frames`` replaces frame 0 or 1, ``lengths`` one of the four lengths of the header.
    """
    stored = [(frames or {}).get(i, zipped(part)) for i, part in enumerate((summary, body))]
    sizes = [len(stored[0]), len(summary), len(stored[1]), len(body)]
    for i, size in (lengths or {}).items():
        sizes[i] = size
    head = struct.pack(">4sHHIIII", b"CKPT", version, flags, *sizes)
    head += blake3(stored[0]).digest() + blake3(stored[1]).digest() + signature
    return head + blake3(head).digest() + stored[0] + stored[1]


class Raw:
    """Bytes that take the place of a value in a tree, whatever they are."""

    def __init__(self, data: bytes) -> None:
        self.data = data


def packed(tree: Any) -> bytes:
    """Pack a tree that may hold Raw."""
    raws: list[bytes] = []

    def mark(value: Any) -> Any:
        raws.append(value.data)
        return f"<<raw {len(raws) - 1:6}>>"

    data: bytes = msgpack.packb(tree, default=mark)
    for i, raw in enumerate(raws):
        data = data.replace(msgpack.packb(f"<<raw {i:6}>>"), raw)
    return data


def forged(change: Callable[[Tree, Tree], Any]) -> bytes:
    """Return the manifest after ``change`` had its two trees; all digests are right."""
    summary, body = copy.deepcopy(trees())
    change(summary, body)
    return assembled(packed(summary), packed(body))


Path = tuple[Any, ...]


def places(tree: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of every value in a tree, containers first."""
    yield path
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def value_at(tree: Any, path: Path) -> Any:
    for step in path:
        tree = tree[step]
    return tree


def replaced(tree: Any, path: Path, value: Any) -> Any:
    """Return a copy of the tree with another value at ``path``."""
    if not path:
        return value
    result = copy.deepcopy(tree)
    value_at(result, path[:-1])[path[-1]] = value
    return result


@contextmanager
def frugal(*, max_mib: float, max_s: float = 1.0) -> Iterator[None]:
    """Fail if the block takes more memory or time than that."""
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        yield
        seconds = time.perf_counter() - begin
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= max_mib * 2**20, f"{peak / 2**20:.1f} MiB at the peak"
    assert seconds <= max_s, f"took {seconds:.2f} s"
