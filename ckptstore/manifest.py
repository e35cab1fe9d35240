"""The manifest: a fixed header, the summary, the chunk table.

    offset  bytes
         0      4  "CKPT"
         4      2  format version (1), big-endian like every number here
         6      2  flags: bit 0 = signed; the others are 0
         8     16  four uint32: stored and raw length of the summary, stored and raw length of the body
        24     32  BLAKE3 of the summary as stored
        56     32  BLAKE3 of the body as stored
        88     16  key id, zero when not signed
       104     32  HMAC-SHA256 of bytes 0 to 103, zero when not signed
       136     32  BLAKE3 of bytes 0 to 135: the manifest's digest, which a reference pins
       168         summary, then body: one zstd frame of msgpack each

``docs/format-v1.md`` is the normative text.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Any

import zstandard

from ckptstore._chunking import digest
from ckptstore._keys import CheckpointName, manifest_key, parse_name
from ckptstore._msgpack import pack, unpack
from ckptstore._pause import collector_paused
from ckptstore._schema import as_int, as_map, as_str
from ckptstore._signing import SIGNED_BYTES, Keyring, shown_id
from ckptstore._summary import SUMMARY_KEYS, Draft, read_summary, summary_to_msgpack
from ckptstore._table import ChunkTable
from ckptstore.checkpoint import Manifest
from ckptstore.codecs import decode_frame
from ckptstore.config import Limits
from ckptstore.errors import (
    ChunkCorruptError,
    FormatError,
    IntegrityError,
    LimitExceededError,
    ManifestCorruptError,
    SignatureError,
    StoreMismatchError,
    UnsupportedVersionError,
)

__all__ = [
    "HEADER_BYTES",
    "Draft",
    "ManifestSource",
    "decode_summary",
    "decode_table",
    "encode",
    "key_id_of",
    "summary_end",
]

MAGIC = b"CKPT"
VERSION = 1
FLAG_SIGNED = 1

_HEADER = struct.Struct(">4sHHIIII32s32s16s32s32s")
HEADER_BYTES = _HEADER.size
_DIGESTED = HEADER_BYTES - 32
_KEY_ID = slice(88, 104)

_BODY_KEYS = ("collection", "epoch", "seq", "id", "chunks", "nonces", "codecs", "buffers")


@dataclass(frozen=True, slots=True)
class ManifestSource:
    """Where manifest bytes came from; they must say the same. ``digest`` is the reference's pin, if any."""

    store_id: str
    collection: str
    name: str
    digest: str | None = None

    @property
    def key(self) -> str:
        return manifest_key(self.collection, self.name)


@dataclass(frozen=True, slots=True)
class _Header:
    summary_stored: int
    summary_raw: int
    body_stored: int
    body_raw: int
    summary_digest: bytes
    body_digest: bytes
    digest: bytes
    signed_by: str | None
    verified: bool


def encode(draft: Draft, limits: Limits, keyring: Keyring | None = None) -> bytes:
    """Return the manifest's bytes, signed if there are keys. Raises LimitExceededError."""
    with collector_paused():
        summary = pack(summary_to_msgpack(draft))
        name = draft.name
        body = pack(
            {
                "collection": draft.collection,
                "epoch": name.epoch,
                "seq": name.seq,
                "id": name.id,
                **draft.table.to_msgpack(),
            }
        )
        # Read back what will be committed: a table that nobody can read is never sent.
        ChunkTable.from_msgpack(_unpack_body(body, limits), limits)
    compressor = zstandard.ZstdCompressor(level=3)
    frames = [compressor.compress(part) for part in (summary, body)]
    total_stored = HEADER_BYTES + sum(map(len, frames))
    if total_stored > limits.max_manifest_stored_bytes:
        _too_large("stored", total_stored, limits.max_manifest_stored_bytes, "max_manifest_stored_bytes")
    if len(summary) + len(body) > limits.max_manifest_raw_bytes:
        _too_large("raw", len(summary) + len(body), limits.max_manifest_raw_bytes, "max_manifest_raw_bytes")
    lengths = (len(frames[0]), len(summary), len(frames[1]), len(body))
    digests = (digest(frames[0]), digest(frames[1]))
    flags, key_id, mac = (FLAG_SIGNED, keyring.newest, bytes(32)) if keyring else (0, bytes(16), bytes(32))
    head = _HEADER.pack(MAGIC, VERSION, flags, *lengths, *digests, key_id, mac, bytes(32))[:_DIGESTED]
    if keyring:
        head = head[:SIGNED_BYTES] + keyring.sign(head[:SIGNED_BYTES])
    return b"".join((head, digest(head), *frames))


def key_id_of(head: bytes) -> bytes | None:
    """Return the id of the key that a manifest says it is signed with, None if it does not say so."""
    if len(head) < HEADER_BYTES or not int.from_bytes(head[6:8], "big") & FLAG_SIGNED:
        return None
    return bytes(head[_KEY_ID])


def summary_end(head: bytes, source: ManifestSource, limits: Limits, keyring: Keyring | None = None) -> int:
    """Return how many bytes from the start hold header and summary. Raises as ``decode_summary``."""
    try:
        return HEADER_BYTES + _read_header(head, source, limits, keyring).summary_stored
    except FormatError as exc:
        raise _named(exc, source) from exc


def decode_summary(
    data: bytes, source: ManifestSource, limits: Limits, keyring: Keyring | None = None
) -> Manifest:
    """Return what the manifest says; ``data`` reaches at least to the summary's end.

    With keys, only what is signed by one of them is read; without, signatures
    are not looked at.

    Raises ManifestCorruptError, UnsupportedVersionError, LimitExceededError,
    IntegrityError (another content than the reference pins), SignatureError or
    StoreMismatchError, all naming the key.
    """
    try:
        header = _read_header(data, source, limits, keyring)
        raw = _read_frame(
            memoryview(data)[HEADER_BYTES : HEADER_BYTES + header.summary_stored],
            header.summary_stored,
            header.summary_raw,
            header.summary_digest,
            "summary",
        )
        with collector_paused():
            manifest = read_summary(_unpack_summary(raw, limits), source.name, header.digest.hex(), limits)
    except FormatError as exc:
        raise _named(exc, source) from exc
    checkpoint = manifest.checkpoint
    if checkpoint.ref.store_id != source.store_id:
        raise StoreMismatchError(
            f"manifest {source.key} belongs to store {checkpoint.ref.store_id}, this is {source.store_id}"
        )
    _check_identity(
        (checkpoint.collection, checkpoint.epoch, checkpoint.seq, checkpoint.run, checkpoint.label),
        parse_name(source.name),
        source,
    )
    return replace(manifest, signed_by=header.signed_by, signature_verified=header.verified)


def decode_table(
    data: bytes, manifest: Manifest, source: ManifestSource, limits: Limits, keyring: Keyring | None = None
) -> ChunkTable:
    """Return the chunk table of a whole manifest whose summary is ``manifest``. Raises as ``decode_summary``."""
    try:
        header = _read_header(data, source, limits, keyring)
        start = HEADER_BYTES + header.summary_stored
        if len(data) != start + header.body_stored:
            raise ManifestCorruptError(f"{len(data)} bytes, {start + header.body_stored} expected")
        raw = _read_frame(
            memoryview(data)[start:], header.body_stored, header.body_raw, header.body_digest, "chunk table"
        )
        with collector_paused():
            tree = _unpack_body(raw, limits)
        checkpoint = manifest.checkpoint
        name = parse_name(source.name)
        found = (
            as_str(tree["collection"], "collection"),
            as_int(tree["epoch"], "epoch"),
            as_int(tree["seq"], "seq"),
            as_str(tree["id"], "id"),
        )
        if name is None or found != (checkpoint.collection, checkpoint.epoch, checkpoint.seq, name.id):
            raise ManifestCorruptError("the chunk table belongs to another checkpoint")
        with collector_paused():
            table = ChunkTable.from_msgpack(tree, limits)
        _check_sums(manifest, table)
    except FormatError as exc:
        raise _named(exc, source) from exc
    return table


def _too_large(what: str, size: int, limit: int, option: str) -> None:
    raise LimitExceededError(
        f"the manifest takes {size} {what} bytes, at most {limit} are allowed: save fewer values, "
        f"larger chunks (chunk_bytes), or raise Limits.{option}"
    )


def _read_header(data: bytes, source: ManifestSource, limits: Limits, keyring: Keyring | None) -> _Header:
    if len(data) < HEADER_BYTES:
        raise ManifestCorruptError(f"{len(data)} bytes are too few for a manifest")
    magic, version, flags, a, b, c, d, summary, body, key_id, mac, own = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ManifestCorruptError("does not start as a manifest does")
    if digest(memoryview(data)[:_DIGESTED]) != own:
        # A newer format may digest another header, so its version is told before the damage.
        if version > VERSION:
            _refuse_version(version)
        raise ManifestCorruptError("the header is damaged")
    if version != VERSION or flags & ~FLAG_SIGNED:
        _refuse_version(version)
    if not flags & FLAG_SIGNED and (any(key_id) or any(mac)):
        raise ManifestCorruptError("a signature without its flag")
    signed = bool(flags & FLAG_SIGNED)
    if keyring is not None:
        if not signed:
            raise SignatureError(
                f"manifest {source.key} is not signed, and this store was opened with a signing_key, which refuses "
                "that: somebody else wrote it, or it is older than the key; open without the key to read it"
            )
        keyring.verify(f"manifest {source.key}", memoryview(data)[:SIGNED_BYTES], key_id, mac)
    signed_by = (shown_id(key_id) or key_id.hex()) if signed else None
    header = _Header(a, b, c, d, summary, body, own, signed_by, keyring is not None)
    if source.digest is not None and header.digest.hex() != source.digest:
        raise IntegrityError(
            f"manifest {source.key} is not the one the reference pins: digest {header.digest.hex()[:16]}…, "
            f"expected {source.digest[:16]}…"
        )
    if HEADER_BYTES + header.summary_stored + header.body_stored > limits.max_manifest_stored_bytes:
        raise LimitExceededError(
            f"larger than {limits.max_manifest_stored_bytes} bytes (Limits.max_manifest_stored_bytes)"
        )
    if header.summary_raw + header.body_raw > limits.max_manifest_raw_bytes:
        raise LimitExceededError(
            f"larger than {limits.max_manifest_raw_bytes} bytes raw (Limits.max_manifest_raw_bytes)"
        )
    return header


def _refuse_version(version: int) -> None:
    raise UnsupportedVersionError(
        f"format version {version} or its features are not known to this release (it reads {VERSION}); "
        "upgrade ckptstore to read it"
    )


def _read_frame(frame: memoryview, stored: int, raw: int, expected: bytes, what: str) -> bytes:
    if len(frame) != stored:
        raise ManifestCorruptError(f"{what}: cut short, {len(frame)} of {stored} bytes")
    if digest(frame) != expected:
        raise ManifestCorruptError(f"{what}: damaged, its digest differs")
    try:
        return decode_frame(frame, raw, zstandard.ZstdDecompressor())
    except ChunkCorruptError as exc:
        raise ManifestCorruptError(f"{what}: {exc}") from exc


def _unpack_summary(raw: bytes, limits: Limits) -> dict[str, Any]:
    # A leaf is a list of six, and one of its dimensions.
    tree = unpack(raw, what="summary", max_items=limits.max_nodes, max_values=8 * limits.max_nodes)
    return as_map(tree, "summary", SUMMARY_KEYS)


def _unpack_body(raw: bytes, limits: Limits) -> dict[str, Any]:
    # A chunk takes four numbers, and each of its segments three.
    max_items = 4 * limits.max_chunks + limits.max_nodes
    tree = unpack(raw, what="chunk table", max_items=max_items, max_values=2 * max_items)
    return as_map(tree, "chunk table", _BODY_KEYS)


def _check_identity(found: tuple[object, ...], name: CheckpointName | None, source: ManifestSource) -> None:
    if name is None or found != (source.collection, name.epoch, name.seq, name.run, name.label):
        raise ManifestCorruptError(
            f"manifest {source.key} is that of another checkpoint, stored under this key"
        )


def _check_sums(manifest: Manifest, table: ChunkTable) -> None:
    fields = list(manifest.fields.values())
    if len(table.buffers) != len(fields) or not all(table.buffers):
        raise ManifestCorruptError("the chunk table has other fields than the summary")
    for field, cost, buffers in zip(fields, table.costs(), table.buffers, strict=True):
        last = max([-1 if leaf.block is None else leaf.block for leaf in field.leaves], default=-1)
        if last >= len(buffers) - 1:
            raise ManifestCorruptError(f"field {field.name!r}: an array in a block that is not there")
        if (field.raw_bytes, field.stored_bytes, field.new_bytes) != (
            cost.raw_bytes,
            cost.stored_bytes,
            cost.new_bytes,
        ):
            raise ManifestCorruptError(f"field {field.name!r}: sizes of summary and chunk table differ")
    if manifest.checkpoint.sizes.n_chunks != len(table.chunks):
        raise ManifestCorruptError("summary and chunk table count other chunks")


def _named(exc: FormatError, source: ManifestSource) -> FormatError:
    return type(exc)(f"manifest {source.key}: {exc}")
