"""A reader of format 1 that was written from docs/format-v1.md alone.

It shares no code with ckptstore and needs msgpack, zstandard and blake3 only:
what it cannot read, the page does not say.
"""

import itertools
import json
import math
import re
import struct
from collections import OrderedDict, namedtuple
from dataclasses import make_dataclass
from pathlib import Path
from typing import Any

import blake3
import msgpack
import zstandard

# A checkpoint as its key tells it.
Entry = namedtuple("Entry", ["name", "epoch", "seq", "run", "label", "id", "pinned"])

# An array, tensor or storage: `values` are its elements in C order; arrays of one `block`
# (field, number) share memory; strides are bytes; `extra` is the rest of the node.
PARTS = ["kind", "dtype", "shape", "values", "block", "offset", "strides", "extra"]
Array = make_dataclass("Array", PARTS, eq=False)

# A dtype, device, size or scalar.
Named = namedtuple("Named", ["kind", "dtype", "value"], defaults=[None])

# A custom value, a pickle that nobody ran, or one object of a pickle.
Opaque = make_dataclass("Opaque", ["kind", "payload", "references", "buffers", "names", "count"], eq=False)


class FormatError(ValueError):
    """The store is not what the page says."""


def need(condition: bool, message: str) -> None:
    if not condition:
        raise FormatError(message)


def digest(data: bytes) -> bytes:
    return blake3.blake3(data).digest()


def unframe(frame: bytes, size: int) -> bytes:
    """The content of exactly one zstd frame that declares `size`."""
    try:
        head = zstandard.get_frame_parameters(frame)
        need(head.content_size == size, "frame of another size")
        need(head.window_size <= 1 << 26 and head.dict_id == 0, "frame out of limits")
        return zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    except zstandard.ZstdError as exc:
        raise FormatError(f"bad frame: {exc}") from exc


def unpack(data: bytes) -> Any:
    """One msgpack value of the page's dialect."""

    def unique(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        need(len(result) == len(pairs), "a map key twice")
        return result

    return msgpack.unpackb(data, object_pairs_hook=unique, ext_hook=lambda *_: need(False, "an extension"))


def encode_name(name: str) -> str:
    def escape(m: re.Match[bytes]) -> bytes:
        return b"+" + m[0].lower() if m[0].isalpha() else b"=%02x" % m[0][0]

    return re.sub(rb"[^a-z0-9._-]", escape, name.encode()).decode()


def decode_name(text: str) -> str:
    data = re.sub("[+]([a-z])", lambda m: m[1].upper(), text).encode("ascii")
    data = re.sub(b"=([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), data)
    name = data.decode("utf-8")
    need(encode_name(name) == text, f"{text!r} is no encoded name")
    return name


def decode_chunk(codec: str, stored: bytes, raw_length: int) -> bytes:
    if codec in ("raw", "zstd"):
        return unframe(stored, raw_length) if codec == "zstd" else stored
    need(codec[:-1] in ("shuffle", "planes") and codec[-1] in "248", f"unknown codec {codec!r}")
    width = int(codec[-1])
    n = raw_length // width
    need(n > 0, "no whole element")
    if codec.startswith("shuffle"):
        data = unframe(stored, raw_length)
        planes = [data[i * n : (i + 1) * n] for i in range(width)]
        tail = data[width * n :]
    else:
        planes, at = [], 4 * width
        for length in struct.unpack_from(f"<{width}I", stored):
            need(0 < length <= n, "bad length of a plane")
            plane = stored[at : at + length]
            planes.append(plane if length == n else unframe(plane, n))
            at += length
        tail = stored[at:]
    result = bytearray(width * n)
    for i, plane in enumerate(planes):
        result[i::width] = plane
    return bytes(result) + tail


# An element type is (its size in bytes, a function from its bytes to a value).
NUMPY = {"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I"}
NUMPY |= {"u8": "Q", "f2": "e", "f4": "f", "f8": "d", "M8": "q", "m8": "q"}
NUMPY |= {"c8": "ff", "c16": "dd"}
TORCH = {"bool": "?", "complex32": "ee", "complex64": "ff", "complex128": "dd"}
TORCH |= {f"int{8 << i}": "bhiq"[i] for i in range(4)}
TORCH |= {f"uint{8 << i}": "BHIQ"[i] for i in range(4)}
TORCH |= {f"float{16 << i}": "efd"[i] for i in range(3)}


def e4m3fn(byte: int) -> float:
    sign, exponent, fraction = -1.0 if byte >> 7 else 1.0, byte >> 3 & 15, byte & 7
    if byte & 127 == 127:
        return math.nan
    return sign * (fraction + 8 * (exponent > 0)) * 2.0 ** (max(exponent, 1) - 10)


def element_of(letters: str, order: str = "<") -> tuple[int, Any]:
    one = struct.Struct(order + letters)
    make = complex if len(letters) == 2 else lambda value: value
    return one.size, lambda data: make(*one.unpack(data))


def torch_element(name: str | None) -> tuple[int, Any]:
    if name in TORCH:
        return element_of(TORCH[name])
    if name == "bfloat16":
        return 2, lambda data: struct.unpack("<f", b"\0\0" + data)[0]
    if name == "float8_e5m2":
        return 1, lambda data: struct.unpack("<e", b"\0" + data)[0]
    if name == "float8_e4m3fn":
        return 1, lambda data: e4m3fn(data[0])
    return (2 if name and "16" in name else 1), bytes


def numpy_element(dtype: Any) -> tuple[int, Any]:
    if dtype[0] == "sub":
        size, read = numpy_element(dtype[1])
        n = math.prod(dtype[2])
        return n * size, lambda data: tuple(read(data[i * size :][:size]) for i in range(n))
    if dtype[0] == "struct":
        parts = [(at, *numpy_element(one)) for one, at in zip(dtype[2], dtype[3], strict=True)]
        return dtype[5], lambda data: tuple(read(data[at : at + size]) for at, size, read in parts)
    order, kind, rest = ">" if dtype[0] == ">" else "<", dtype[1], dtype[2:].partition("[")[0]
    if kind + rest in NUMPY:
        return element_of(NUMPY[kind + rest], order)
    if kind == "S":
        return int(rest), lambda data: data.rstrip(b"\0")
    if kind == "U":
        codec = "utf-32-be" if order == ">" else "utf-32-le"
        return 4 * int(rest), lambda data: data.decode(codec, "surrogatepass").rstrip("\0")
    need(kind in "Vfc", f"unknown dtype {dtype!r}")
    return int(rest), bytes


MUTABLE = {"list": list, "dict": dict, "set": set, "odict": OrderedDict}
BYTES = {
    "bytes": bytes,
    "bytearray": bytearray,
    "int": lambda data: int.from_bytes(data, "little", signed=True),
    "str": lambda data: data.decode("utf-8", "surrogatepass"),
}


def frozen(value: Any) -> Any:
    return tuple(map(frozen, value)) if isinstance(value, list) else value


class Checkpoint:
    """One checkpoint: `summary`, and `values`, its fields by name.

    Two references to one object of the checkpoint are one object here.
    """

    def __init__(self, store: "Store", collection: str, entry: Entry):
        path = store.folder / "manifests" / encode_name(collection) / entry.name
        data = path.read_bytes()
        need(data[:4] == b"CKPT" and len(data) >= 168, "no manifest")
        version, flags, s, s_raw, b, b_raw = struct.unpack(">HHIIII", data[4:24])
        need((version, flags & ~1) == (1, 0), "another format")
        need(digest(data[:136]) == data[136:168], "header is corrupt")
        need(len(data) == 168 + s + b, "manifest of another length")
        summary, table = data[168 : 168 + s], data[168 + s :]
        need(digest(summary) == data[24:56], "summary is corrupt")
        need(digest(table) == data[56:88], "chunk table is corrupt")
        self.digest = data[136:168].hex()
        self.summary = unpack(unframe(summary, s_raw))
        self.table = unpack(unframe(table, b_raw))
        self._store = store
        found = [
            [part[k] for k in ("collection", "epoch", "seq", "id")] for part in (self.summary, self.table)
        ]
        need(found == 2 * [[collection, entry.epoch, entry.seq, entry.id]], "of another key")
        names = [field["name"] for field in self.summary["fields"]]
        need(self.summary["store"] == store.id, "of another store")
        need((self.summary["run"], self.summary["label"]) == (entry.run, entry.label), "label")
        self._buffers = dict(zip(names, self.table["buffers"], strict=True))
        self._graphs = {name: unpack(self.buffer(name, 0)) for name in names}
        self._made: dict[tuple[str, int], Any] = {}
        self._empty: list[tuple[Any, str, list[Any]]] = []
        self.values = {name: self._value(name, self._graphs[name][0]) for name in names}
        while self._empty:
            self._fill(*self._empty.pop())

    def chunk(self, number: int) -> bytes:
        """The raw bytes of a chunk, checked."""
        columns = self.table["chunks"]
        name = columns["digests"][32 * number : 32 * number + 32]
        nonce = self.table["nonces"][columns["nonces"][number]].hex()
        codec = self.table["codecs"][columns["codecs"][number]]
        key = f"chunks/{name.hex()[:2]}/{name.hex()}.{nonce}.{codec}"
        stored = (self._store.folder / key).read_bytes()
        need(len(stored) == columns["stored"][number], f"{key}: stored length")
        raw = decode_chunk(codec, stored, columns["raw"][number])
        need(len(raw) == columns["raw"][number], f"{key}: raw length")
        need(digest(raw) == name, f"{key}: digest")
        return raw

    def buffer(self, field: str, number: int) -> bytes:
        buffer = self._buffers[field][number]
        if isinstance(buffer, bytes):
            return buffer
        parts = []
        for chunk, offset, length in zip(*[iter(buffer)] * 3, strict=True):
            raw = self.chunk(chunk)
            need(offset + length <= len(raw), "a segment beyond its chunk")
            parts.append(raw[offset : offset + length])
        return b"".join(parts)

    def _value(self, field: str, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        field, number = value if len(value) == 2 else (field, value[0])
        key = (field, number)
        if key not in self._made:
            node = self._graphs[field][1][number]
            if node[0] in MUTABLE:
                self._made[key] = MUTABLE[node[0]]()
                self._empty.append((self._made[key], field, node))
            else:
                self._made[key] = self  # a mark: being made
                self._made[key] = self._make(field, *node)
        need(self._made[key] is not self, "a cycle of immutable nodes")
        return self._made[key]

    def _many(self, field: str, values: list[Any]) -> list[Any]:
        return [self._value(field, value) for value in values]

    def _fill(self, made: Any, field: str, node: list[Any]) -> None:
        values = self._many(field, node[1])
        if node[0] == "list":
            made.extend(values)
        else:
            made.update(values if node[0] == "set" else zip(values[::2], values[1::2], strict=True))
        if node[0] == "odict":
            vars(made).update(zip(node[2][::2], self._many(field, node[2][1::2]), strict=True))

    def _make(self, field: str, tag: str, *args: Any) -> Any:
        if tag in ("tuple", "frozenset"):
            return {"tuple": tuple, "frozenset": frozenset}[tag](self._many(field, args[0]))
        if tag == "complex":
            return complex(*args)
        if tag in BYTES:
            return BYTES[tag](self._block(field, args[0])[1])
        if tag == "array":
            return self._array(field, tag, numpy_element(args[0]), *args)
        if tag in ("tensor", "storage"):
            size, read = torch_element(args[0])
            if tag == "storage":
                args = (args[0], [args[1] // size], None, *args[2:])
            elif args[2] is not None:
                args = (*args[:2], [size * stride for stride in args[2]], *args[3:])
            return self._array(field, tag, (size, read), *args)
        if tag == "scalar":
            dtype, value = args
            plain = dtype in ("U", "S")
            return Named(tag, frozen(dtype), value if plain else numpy_element(dtype)[1](value))
        if tag in ("dtype", "torch.dtype", "torch.device", "torch.Size"):
            return Named(tag, frozen(args[0]))
        if tag == "custom":
            return Opaque(tag, self._value(field, args[1]), [], [], [args[0]], 0)
        if tag == "pickle":
            payload, buffers, values, names, count = args
            data = [self._block(field, b)[1][at : at + n] for b, at, n, _readonly in buffers]
            stream = self._block(field, payload)[1]
            return Opaque(tag, stream, self._many(field, values), data, names, count)
        need(tag == "member", f"unknown node {tag!r}")
        return Opaque(tag, None, [self._value(field, args[0])], [], [], args[1])

    def _block(self, field: str, block: Any) -> tuple[tuple[str, int] | None, bytes]:
        """The bytes of a block reference or payload, and which block they are."""
        if block is None or isinstance(block, bytes):
            return None, block or b""
        field, number = block if isinstance(block, list) else (field, block)
        return (field, number), self.buffer(field, number + 1)

    def _array(self, field: str, kind: str, element: Any, *args: Any) -> Array:
        (size, read), (dtype, shape, strides, block, offset, *extra) = element, args
        if strides is None:
            strides = [size * math.prod(shape[i + 1 :]) for i in range(len(shape))]
        where, data = self._block(field, block)
        values = None if where is None and 0 not in shape else []
        if values is not None:
            for index in itertools.product(*map(range, shape)):
                at = offset + sum(i * stride for i, stride in zip(index, strides, strict=True))
                need(0 <= at <= len(data) - size, "an element beyond its block")
                values.append(read(data[at : at + size]))
        return Array(kind, frozen(dtype), tuple(shape), values, where, offset, tuple(strides), extra)


class Store:
    """A store in a folder: every object is the file that its key names."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        marker = json.loads((self.folder / "ckptstore.json").read_bytes())
        need((marker["format"], marker["digest"]) == (1, "blake3"), "another format")
        self.id = marker["store_id"]

    def collections(self) -> list[str]:
        names = []
        for path in (self.folder / "manifests").glob("*/-collection"):
            names.append(decode_name(path.parent.name))
            need(unpack(path.read_bytes()) == {"collection": names[-1]}, "another collection")
        return sorted(names)

    def checkpoints(self, collection: str) -> list[Entry]:
        """The checkpoints that are not deleted, newest first."""
        folder = self.folder / "manifests" / encode_name(collection)
        keys = {path.name for path in folder.iterdir()}
        entries = []
        for key in sorted(keys):
            if key.count("~") != 3 or key.endswith((".x", ".k")) or key + ".x" in keys:
                continue
            order, run, label, id = key.split("~")
            epoch, seq = 2**32 - 1 - int(order[:8], 16), 2**48 - 1 - int(order[8:], 16)
            run_label = (decode_name(run) or None, decode_name(label) or None)
            entries.append(Entry(key, epoch, seq, *run_label, id, key + ".k" in keys))
        return entries
