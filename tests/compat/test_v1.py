"""Format 1 stays readable: a frozen store, today's writer, and a reader that shares no code with it."""

from __future__ import annotations

import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from independent_reader import (
    Array,
    Checkpoint,
    Entry,
    FormatError,
    Named,
    Opaque,
    Store,
    encode_name,
)

from ckptstore import CheckpointStore

np = pytest.importorskip("numpy")
make_v1: Any = pytest.importorskip("make_v1")

FROZEN = Path(__file__).parent / "data" / "v1"
PARTS = [pytest.param(part, marks=pytest.mark.torch if part == "tensors" else ()) for part in make_v1.PARTS]
CODECS = ["raw", "zstd", *(f"{name}{width}" for name in ("planes", "shuffle") for width in (2, 4, 8))]


class Canon:
    """Turns what a reader gives, or the live value, into nested tuples that are equal if the values are.

    The second meeting with an object is its number, so sharing and cycles count too.
    """

    def __init__(self) -> None:
        self._objects: dict[int, int] = {}
        self._memory: dict[Any, int] = {}

    def of(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float, complex, str, bytes):
            return kind.__name__, repr(value)
        if isinstance(value, Named):
            return value.kind, _dtype_of_named(value), repr(value.value)
        if isinstance(value, np.generic | np.dtype):
            return _numpy_word(value)
        if kind.__module__ == "torch" and kind.__name__ in ("dtype", "device", "Size"):
            text = str(tuple(value) if kind.__name__ == "Size" else value).removeprefix("torch.")
            return f"torch.{kind.__name__}", text, "None"
        if kind in (tuple, frozenset) and not value:
            return (kind.__name__,)  # there is only one of each
        if id(value) in self._objects:
            return "again", self._objects[id(value)]
        self._objects[id(value)] = len(self._objects)
        return self._inside(kind, value)

    def _inside(self, kind: Any, value: Any) -> Any:
        if kind in (list, tuple):
            return kind.__name__, *map(self.of, value)
        if kind in (set, frozenset):
            return kind.__name__, *sorted(repr(Canon().of(item)) for item in value)
        if kind in (dict, OrderedDict):
            pairs = [(self.of(key), self.of(item)) for key, item in value.items()]
            return kind.__name__, pairs, self.of(vars(value)) if kind is OrderedDict else None
        if kind is bytearray:
            return "bytearray", bytes(value)
        if kind is SimpleNamespace:
            return "object", self.of(vars(value))
        if kind is Fraction:
            return "custom", ["ratio"], Canon().of([value.numerator, value.denominator])
        if kind is Opaque and value.kind == "custom":
            return "custom", value.names, Canon().of(value.payload)
        if kind is Array:
            return self._read_array(value)
        if kind is np.ndarray:
            values = [_element(value.dtype, item) for item in value.ravel()]
            root = value
            while getattr(root, "base", None) is not None:
                root = root.base
            memory = self._place(id(root)) if value.size else None
            return (
                "array",
                repr(_dtype(value.dtype)),
                value.shape,
                repr(values),
                memory,
                [value.flags.writeable],
            )
        return self._tensor(value)

    def _place(self, memory: Any) -> int:
        return self._memory.setdefault(memory, len(self._memory))

    def _read_array(self, array: Array) -> Any:
        values, extra, dtype = array.values, array.extra, repr(array.dtype)
        memory = None if array.block is None else self._place(array.block)
        if array.kind == "tensor" and values is not None:
            flags = extra[1]
            values = [value.conjugate() if flags & 4 else value for value in values]
            values = [-value if flags & 8 else value for value in values]
        return array.kind, dtype, array.shape, repr(values), memory, extra

    def _tensor(self, value: Any) -> Any:
        import torch

        if isinstance(value, torch.UntypedStorage):
            memory = self._place(value.data_ptr())
            values = [bytes([byte]) for byte in value.tolist()]
            return "storage", "None", (len(value),), repr(values), memory, [str(value.device)]
        flags = value.requires_grad + 2 * isinstance(value, torch.nn.Parameter)
        flags += 4 * value.is_conj() + 8 * value.is_neg()
        dtype = str(value.dtype).removeprefix("torch.")
        extra = [str(value.device), flags]
        if value.is_meta:
            return "tensor", repr(dtype), tuple(value.shape), "None", None, extra
        plain = value.detach().resolve_conj().resolve_neg()
        if value.dtype.itemsize <= 2 and value.dtype.is_floating_point:
            plain = plain.float()
        memory = self._place(value.untyped_storage().data_ptr()) if value.numel() else None
        return "tensor", repr(dtype), tuple(value.shape), repr(plain.flatten().tolist()), memory, extra


def _dtype(dtype: Any) -> Any:
    """A numpy dtype in the words of the format."""
    if dtype.subdtype is not None:
        return "sub", _dtype(dtype.subdtype[0]), dtype.subdtype[1]
    if dtype.names is None:
        return dtype.str
    parts = [dtype.fields[name] for name in dtype.names]
    titles = tuple(part[2] if len(part) > 2 else None for part in parts)
    dtypes, offsets = tuple(_dtype(part[0]) for part in parts), tuple(part[1] for part in parts)
    return "struct", dtype.names, dtypes, offsets, titles, dtype.itemsize, dtype.isalignedstruct


def _element(dtype: Any, value: Any) -> Any:
    if dtype.subdtype is not None:
        return tuple(_element(dtype.subdtype[0], item) for item in np.asarray(value).ravel())
    if dtype.names is not None:
        return tuple(_element(dtype.fields[name][0], value[name]) for name in dtype.names)
    if dtype.kind in "mM":
        return int(np.asarray(value).astype(dtype).view(dtype.str[0] + "i8"))
    return value.item() if isinstance(value, np.generic) else value


def _numpy_word(value: Any) -> Any:
    if isinstance(value, np.dtype):
        return "dtype", repr(_dtype(value)), "None"
    words = value.dtype.kind if value.dtype.kind in "US" else _dtype(value.dtype)
    return "scalar", repr(words), repr(_element(value.dtype, value))


def _dtype_of_named(value: Named) -> str:
    return str(value.dtype) if value.kind.startswith("torch.") else repr(value.dtype)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the same values, by today's writer."""
    folder = tmp_path_factory.mktemp("stores") / "fresh"
    make_v1.make(str(folder))
    return folder


@pytest.fixture(params=["frozen", "fresh"])
def folder(request: pytest.FixtureRequest) -> Path:
    return FROZEN if request.param == "frozen" else request.getfixturevalue("fresh")


def find(store: Store, part: str) -> tuple[str, Entry]:
    _, collection, label = make_v1.PARTS[part]
    (entry,) = [entry for entry in store.checkpoints(collection) if entry.label == label]
    return collection, entry


def expected(part: str) -> Any:
    if part == "tensors":
        pytest.importorskip("torch")
    return make_v1.PARTS[part][0]()


@pytest.mark.parametrize("part", [part for part in PARTS if part.values != ("objects",)])
def test_independent_reader_finds_the_values(folder: Path, part: str) -> None:
    values = expected(part)
    store = Store(folder)
    found = Checkpoint(store, *find(store, part)).values
    assert list(found) == list(values)
    ours, theirs = Canon(), Canon()
    for name, value in values.items():
        assert theirs.of(found[name]) == ours.of(value), name


def test_independent_reader_finds_pickles_and_what_is_outside_them(folder: Path) -> None:
    store = Store(folder)
    values = Checkpoint(store, *find(store, "objects")).values
    inside = make_v1.objects()["inside"]
    assert Canon().of(values["inside"]) == Canon().of(inside)
    assert values["object"].names == ["types.SimpleNamespace"]
    assert b"weights" in values["object"].payload
    assert values["object"].references == [values["inside"]]
    first, second = values["couple"]
    assert {first.count, second.count} == {0, 1}
    assert first.references[0] is second.references[0]
    assert first.references[0].count == 2
    assert values["second"] is second


@pytest.mark.parametrize("part", PARTS)
def test_todays_release_reads_the_frozen_store(part: str, tmp_path: Path) -> None:
    values = expected(part)
    shutil.copytree(FROZEN, tmp_path / "store")
    _, collection, label = make_v1.PARTS[part]
    with CheckpointStore.open(str(tmp_path / "store"), registry=make_v1.registry()) as store:
        (checkpoint,) = [item for item in store.list(collection) if item.label == label]
        found = store.load(checkpoint, trusted=part == "objects")
    ours, theirs = Canon(), Canon()
    for name, value in values.items():
        assert theirs.of(found[name]) == ours.of(value), name


def test_comparison_tells_values_types_and_sharing_apart() -> None:
    one, base = [1], np.arange(4.0)
    pairs: list[tuple[Any, Any]] = [
        ([one, one], [[1], [1]]),
        ([one, (one, 2)], [one, (one, 2.0)]),
        ([base, base[1:]], [base, base[1:].copy()]),
        (base, base.astype(">f8")),
        (OrderedDict(a=1), {"a": 1}),
    ]
    for left, right in pairs:
        assert Canon().of(left) == Canon().of(left)
        assert Canon().of(left) != Canon().of(right)


def test_checkpoints_are_listed_newest_first_without_deleted_ones(folder: Path) -> None:
    store = Store(folder)
    assert store.collections() == sorted([make_v1.PLAIN, make_v1.ARRAYS, make_v1.TENSORS, make_v1.TRAIN])
    entries = store.checkpoints(make_v1.TRAIN)
    assert [(entry.epoch, entry.seq, entry.run, entry.label, entry.pinned) for entry in entries] == [
        (2, 0, "B", "last", False),
        (1, 0, "A", "first", True),
    ]


def test_summary_tells_the_origin_of_a_checkpoint(folder: Path) -> None:
    store = Store(folder)
    summary = Checkpoint(store, *find(store, "plain")).summary
    assert (summary["run"], summary["label"]) == ("run=1", "Best é/~")
    assert summary["metadata"] == make_v1.METADATA
    assert summary["attributes"] == make_v1.ATTRIBUTES
    first, last = (Checkpoint(store, *find(store, part)) for part in ("first", "last"))
    assert first.summary["parent"] is None
    name = find(store, "first")[1].name
    assert last.summary["parent"] == [store.id, make_v1.TRAIN, name, first.digest]
    kinds = {
        field["name"]: field["kind"] for field in Checkpoint(store, *find(store, "objects")).summary["fields"]
    }
    assert kinds == {"inside": "tree", "object": "pickle", "couple": "pickle", "second": "pickle"}
    (leaf,) = last.summary["fields"][0]["leaves"]
    assert leaf[:5] == ["", "numpy", "float32", [6000], 24000]


@pytest.mark.parametrize("part", ["plain", "arrays", "objects", "first", "last"])
def test_sizes_are_those_of_the_chunk_table(folder: Path, part: str) -> None:
    store = Store(folder)
    checkpoint = Checkpoint(store, *find(store, part))
    columns, summary = checkpoint.table["chunks"], checkpoint.summary
    seen: set[int] = set()
    total = dict.fromkeys(("raw", "stored", "new"), 0)
    for field, buffers in zip(summary["fields"], checkpoint.table["buffers"], strict=True):
        inline = sum(len(buffer) for buffer in buffers if isinstance(buffer, bytes))
        lists = [buffer for buffer in buffers if isinstance(buffer, list)]
        used = {number for buffer in lists for number in buffer[::3]} - seen
        seen |= used
        found = {
            "raw": inline + sum(sum(buffer[2::3]) for buffer in lists),
            "stored": inline + sum(columns["stored"][i] for i in used),
            "new": inline + sum(columns["stored"][i] for i in used if columns["nonces"][i] == 0),
        }
        assert {key: field[key] for key in found} == found
        total = {key: total[key] + found[key] for key in total}
    assert {key: summary[key] for key in total} == total
    assert seen == set(range(summary["chunks"]))
    assert (summary["new"] < summary["stored"]) == (part == "last")


def test_every_codec_is_in_the_frozen_store(folder: Path) -> None:
    assert {path.suffix[1:] for path in folder.glob("chunks/*/*")} == set(CODECS)


def owners(store: Store) -> Iterator[tuple[str, Entry, Checkpoint]]:
    for collection in store.collections():
        for entry in store.checkpoints(collection):
            yield collection, entry, Checkpoint(store, collection, entry)


def flipped(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[], Store]:
    def make() -> Store:
        shutil.copytree(FROZEN, tmp_path / "store", dirs_exist_ok=True)
        return Store(tmp_path / "store")

    return make


@pytest.mark.parametrize("codec", CODECS)
def test_flipped_byte_of_a_chunk_is_caught(codec: str, copy: Callable[[], Store]) -> None:
    store = copy()
    for collection, entry, checkpoint in owners(store):
        table = checkpoint.table
        numbers = [table["codecs"][number] for number in table["chunks"]["codecs"]]
        if codec in numbers:
            number = numbers.index(codec)
            name = table["chunks"]["digests"][32 * number : 32 * number + 32].hex()
            (path,) = store.folder.glob(f"chunks/*/{name}.*")
            size = table["chunks"]["stored"][number]
            for at in (0, size // 2, size - 1):
                flipped(path, at)
                with pytest.raises(FormatError):
                    Checkpoint(store, collection, entry)
                flipped(path, at)
            assert Checkpoint(store, collection, entry).values
            return
    pytest.fail(f"no chunk under {codec}")


def test_flipped_byte_of_a_manifest_is_caught(copy: Callable[[], Store]) -> None:
    store = copy()
    collection, entry = find(store, "last")
    path = store.folder / "manifests" / encode_name(collection) / entry.name
    for at in [*range(0, 168, 3), 168, path.stat().st_size - 1]:
        flipped(path, at)
        with pytest.raises(FormatError):
            Checkpoint(store, collection, entry)
        flipped(path, at)
    assert Checkpoint(store, collection, entry).values["step"] == 2
