"""The summary of a manifest: what ``inspect`` and ``list`` read, to and from msgpack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from typing import Any

from ckptstore._keys import CheckpointName, check_field
from ckptstore._metadata import check_stored_metadata
from ckptstore._schema import (
    INT64_MAX,
    as_hex,
    as_int,
    as_ints,
    as_list,
    as_lists,
    as_map,
    as_optional,
    as_str,
    as_strs,
)
from ckptstore._table import ChunkTable
from ckptstore.checkpoint import Checkpoint, CheckpointRef, FieldInfo, LeafInfo, Manifest, Sizes
from ckptstore.config import Limits
from ckptstore.errors import InvalidNameError, LimitExceededError, ManifestCorruptError
from ckptstore.serializers import names_to_trust

__all__ = ["SUMMARY_KEYS", "Draft", "read_summary", "summary_to_msgpack"]

SUMMARY_KEYS = (
    "store", "collection", "epoch", "seq", "run", "label", "id", "created_ns", "parent",
    "metadata", "attributes", "raw", "stored", "new", "chunks", "fields",
)  # fmt: skip
_FIELD_KEYS = ("name", "type", "kind", "raw", "stored", "new", "globals", "leaves")
_KINDS = ("tree", "pickle")
_LEAF_KINDS = ("numpy", "torch")
_OBJECTS = ("O", "|O", "object")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """All that a manifest says, before it is bytes."""

    store_id: str
    collection: str
    name: CheckpointName
    created_ns: int
    parent: CheckpointRef | None
    metadata: Mapping[str, Any]
    attributes: Mapping[str, Any]
    fields: Sequence[FieldInfo]
    table: ChunkTable


def summary_to_msgpack(draft: Draft) -> dict[str, Any]:
    fields, name = draft.fields, draft.name
    return {
        "store": draft.store_id,
        "collection": draft.collection,
        "epoch": name.epoch,
        "seq": name.seq,
        "run": name.run,
        "label": name.label,
        "id": name.id,
        "created_ns": draft.created_ns,
        "parent": list(draft.parent.to_dict().values()) if draft.parent else None,
        "metadata": draft.metadata,
        "attributes": draft.attributes,
        "raw": sum(field.raw_bytes for field in fields),
        "stored": sum(field.stored_bytes for field in fields),
        "new": sum(field.new_bytes for field in fields),
        "chunks": len(draft.table.chunks),
        "fields": [
            {
                "name": field.name,
                "type": field.type_name,
                "kind": field.kind,
                "raw": field.raw_bytes,
                "stored": field.stored_bytes,
                "new": field.new_bytes,
                "globals": list(field.globals),
                "leaves": [
                    [leaf.path, leaf.kind, leaf.dtype, list(leaf.shape), leaf.nbytes, leaf.block]
                    for leaf in field.leaves
                ],
            }
            for field in fields
        ],
    }


def read_summary(tree: dict[str, Any], name: str, digest: str, limits: Limits) -> Manifest:
    """Return the summary as typed values. Raises ManifestCorruptError or LimitExceededError."""
    fields: dict[str, FieldInfo] = {}
    for i, item in enumerate(as_list(tree["fields"], "fields")):
        field = _read_field(item, f"fields[{i}]", limits)
        if field.name in fields:
            raise ManifestCorruptError(f"fields[{i}]: {field.name!r} occurs twice")
        fields[field.name] = field
    sizes = Sizes(
        as_int(tree["raw"], "raw"),
        as_int(tree["stored"], "stored"),
        as_int(tree["new"], "new"),
        as_int(tree["chunks"], "chunks"),
    )
    if sizes.raw_bytes > limits.max_total_bytes:
        raise LimitExceededError(
            f"{sizes.raw_bytes} bytes, at most {limits.max_total_bytes} are allowed (Limits.max_total_bytes)"
        )
    sums = tuple(
        sum(getattr(field, what) for field in fields.values())
        for what in ("raw_bytes", "stored_bytes", "new_bytes")
    )
    if sums != (sizes.raw_bytes, sizes.stored_bytes, sizes.new_bytes):
        raise ManifestCorruptError("the sizes of the fields do not add up")
    try:
        ref = CheckpointRef(
            as_hex(tree["store"], "store", 32), as_str(tree["collection"], "collection"), name, digest
        )
        parent = _read_parent(tree["parent"])
    except InvalidNameError as exc:
        raise ManifestCorruptError(str(exc)) from exc
    if not name.endswith("~" + as_hex(tree["id"], "id", 32)):
        raise ManifestCorruptError("id: another than in the key")
    checkpoint = Checkpoint(
        ref=ref,
        collection=ref.collection,
        label=as_optional(as_str, tree["label"], "label"),
        run=as_optional(as_str, tree["run"], "run"),
        epoch=as_int(tree["epoch"], "epoch"),
        seq=as_int(tree["seq"], "seq"),
        created_ns=as_int(tree["created_ns"], "created_ns"),
        metadata=check_stored_metadata(tree["metadata"], "metadata", limits),
        attributes=check_stored_metadata(tree["attributes"], "attributes", limits),
        parent=parent,
        sizes=sizes,
        fields=tuple(fields),
    )
    return Manifest(checkpoint, fields)


def _read_parent(value: Any) -> CheckpointRef | None:
    if value is None:
        return None
    return CheckpointRef(*as_list(value, "parent", 4))


def _read_field(value: Any, path: str, limits: Limits) -> FieldInfo:
    tree = as_map(value, path, _FIELD_KEYS)
    kind = as_str(tree["kind"], path + ".kind")
    if kind not in _KINDS:
        raise ManifestCorruptError(f"{path}.kind: {kind[:40]!r} is not known")
    names = tuple(as_str(item, path + ".globals") for item in as_list(tree["globals"], path + ".globals"))
    return FieldInfo(
        name=_read_name(tree["name"], path + ".name"),
        type_name=as_str(tree["type"], path + ".type"),
        kind=kind,
        raw_bytes=as_int(tree["raw"], path + ".raw"),
        stored_bytes=as_int(tree["stored"], path + ".stored"),
        new_bytes=as_int(tree["new"], path + ".new"),
        globals=names,
        leaves=_read_leaves(as_list(tree["leaves"], path + ".leaves"), path + ".leaves", limits),
        untrusted=names_to_trust(names),
    )


def _read_name(value: Any, path: str) -> str:
    try:
        return check_field(as_str(value, path))
    except InvalidNameError as exc:
        raise ManifestCorruptError(f"{path}: {exc}") from exc


def _read_leaves(items: list[Any], path: str, limits: Limits) -> tuple[LeafInfo, ...]:
    one = path + "[{}]"
    rows = as_lists(items, one, 6)
    paths, kinds, dtypes, shapes, sizes, blocks = zip(*rows, strict=True) if rows else ((),) * 6
    as_strs(paths, one + ".path")
    as_ints(sizes, one + ".nbytes")
    as_ints([0 if block is None else block for block in blocks], one + ".block")
    if not set(as_strs(kinds, one + ".kind")).issubset(_LEAF_KINDS):
        i, kind = next((i, kind) for i, kind in enumerate(kinds) if kind not in _LEAF_KINDS)
        raise ManifestCorruptError(f"{path}[{i}].kind: {kind[:40]!r} is not known")
    if not set(as_strs(dtypes, one + ".dtype")).isdisjoint(_OBJECTS):
        i = next(i for i, dtype in enumerate(dtypes) if dtype in _OBJECTS)
        raise ManifestCorruptError(f"{path}[{i}].dtype: an array of objects has no bytes")
    dims = _read_shapes(shapes, one + ".shape", limits)
    for shape, nbytes in set(zip(dims, sizes, strict=True)):
        # 0 where a leaf before it has the same bytes.
        if nbytes and (not (n_elements := prod(shape)) or nbytes % n_elements):
            i = next(i for i, found in enumerate(zip(dims, sizes, strict=True)) if found == (shape, nbytes))
            raise ManifestCorruptError(f"{path}[{i}]: {nbytes} bytes are not those of {n_elements} elements")
    return tuple(map(LeafInfo._make, zip(paths, kinds, dtypes, dims, sizes, blocks, strict=True)))


def _read_shapes(shapes: Sequence[Any], path: str, limits: Limits) -> list[tuple[int, ...]]:
    dims = [tuple(shape) for shape in as_lists(shapes, path)]
    if set(map(type, chain.from_iterable(dims))) - {int}:
        dims = [tuple(as_ints(shape, path.format(i))) for i, shape in enumerate(dims)]
    # Leaves are many, and their shapes are few.
    for shape in set(dims):
        if len(shape) > limits.max_dims:
            place = path.format(dims.index(shape))
            raise LimitExceededError(
                f"{place}: {len(shape)} dimensions, at most {limits.max_dims} (Limits.max_dims)"
            )
        n_elements = 1
        for n in shape:
            n_elements *= as_int(n, path.format(dims.index(shape))) if n < 0 or n > INT64_MAX else n
            if n_elements > INT64_MAX:
                raise ManifestCorruptError(f"{path.format(dims.index(shape))}: more elements than 2^63")
    return dims
