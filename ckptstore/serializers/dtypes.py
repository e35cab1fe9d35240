"""Element types of arrays and tensors as plain data, checked without numpy or torch."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["Description", "describe", "itemsize_of", "plane_width", "rebuild", "torch_itemsize"]

Description = Any
"""str, ["sub", description, shape] or ["struct", names, descriptions, offsets, titles, itemsize, aligned]."""

_MAX_NESTING = 16
_MAX_ITEMSIZE = 2**31 - 1

_FIXED = re.compile(r"\|[biu]1|[<>](?:[iu](?:2|4|8)|f(?:2|4|8|12|16)|c(?:8|16|24|32))")
_TIME = re.compile(r"[<>][mM]8(?:\[[1-9]?\d{0,9}(?:Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?")
_SIZED = re.compile(r"(?:\|[SV]|[<>]U)([1-9]\d{0,9})")

_TORCH_ITEMSIZE = {
    "bfloat16": 2, "float16": 2, "float32": 4, "float64": 8,
    "float8_e4m3fn": 1, "float8_e4m3fnuz": 1, "float8_e5m2": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "float4_e2m1fn_x2": 1,
    "complex32": 4, "complex64": 8, "complex128": 16,
    "bool": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8,
    "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8,
    "bits8": 1, "bits16": 2, "bits1x8": 1, "bits2x4": 1, "bits4x2": 1, "bit": 1,
    "qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1,
    **{f"{sign}int{bits}": 1 for sign in ("", "u") for bits in range(1, 8)},
}  # fmt: skip


def torch_itemsize(name: str) -> int | None:
    """Return the bytes of one element of ``torch.<name>``, or None for a name nobody knows."""
    return _TORCH_ITEMSIZE.get(name)


def itemsize_of(desc: Description, *, max_dims: int, depth: int = 0) -> int:
    """Return the bytes of one element, after checking ``desc`` completely.

    Raises ValueError with a short reason if it is not a description.
    """
    if depth > _MAX_NESTING:
        raise ValueError("dtype nested too deeply")
    if type(desc) is str:
        return _simple_itemsize(desc)
    if type(desc) is not list or not desc:
        raise ValueError("malformed dtype")
    if desc[0] == "sub" and len(desc) == 3:
        size = itemsize_of(desc[1], max_dims=max_dims, depth=depth + 1)
        if type(desc[2]) is not list or not 0 < len(desc[2]) <= max_dims:
            raise ValueError("malformed dtype shape")
        for n in desc[2]:
            if type(n) is not int or n <= 0:
                raise ValueError("malformed dtype shape")
            size *= n
            if size > _MAX_ITEMSIZE:
                raise ValueError("dtype too large")
        return size
    if desc[0] == "struct" and len(desc) == 7:
        return _struct_itemsize(desc, max_dims=max_dims, depth=depth)
    raise ValueError("malformed dtype")


def _simple_itemsize(desc: str) -> int:
    if _FIXED.fullmatch(desc):
        return int(desc[2:])
    if _TIME.fullmatch(desc):
        return 8
    match = _SIZED.fullmatch(desc)
    if match is None:
        raise ValueError(f"unknown dtype {desc[:40]!r}")
    size = int(match[1]) * (4 if desc[1] == "U" else 1)
    if size > _MAX_ITEMSIZE:
        raise ValueError("dtype too large")
    return size


def _struct_itemsize(desc: list[Any], *, max_dims: int, depth: int) -> int:
    _, names, formats, offsets, titles, itemsize, aligned = desc
    for part in (names, formats, offsets, titles):
        if type(part) is not list or len(part) != len(names):
            raise ValueError("malformed structured dtype")
    if type(itemsize) is not int or not 0 < itemsize <= _MAX_ITEMSIZE or type(aligned) is not bool:
        raise ValueError("malformed structured dtype")
    labels = [*names, *(title for title in titles if title is not None)]
    if not all(type(label) is str for label in labels) or len(set(labels)) != len(labels):
        raise ValueError("malformed field names in a structured dtype")
    for fmt, offset in zip(formats, offsets, strict=True):
        size = itemsize_of(fmt, max_dims=max_dims, depth=depth + 1)
        if type(offset) is not int or offset < 0 or offset + size > itemsize:
            raise ValueError("a field of a structured dtype lies outside it")
    return itemsize


def plane_width(desc: Description) -> int:
    """Return the width in bytes of the numbers in an element, 1 where there is none to speak of."""
    if type(desc) is not str:
        return 1
    kind = desc[1]
    if kind == "U":
        return 4
    if kind in "mM":
        return 8
    if kind not in "iufc":
        return 1
    size = int(desc[2:]) // (2 if kind == "c" else 1)
    return size if size in (1, 2, 4, 8) else 1


def rebuild(desc: Description) -> Any:
    """Return the numpy dtype of a checked description; numpy must be installed."""
    import numpy as np

    if type(desc) is str:
        return np.dtype(desc)
    if desc[0] == "sub":
        return np.dtype((rebuild(desc[1]), tuple(desc[2])))
    _, names, formats, offsets, titles, itemsize, aligned = desc
    fields: dict[str, Any] = {
        "names": list(names),
        "formats": [rebuild(fmt) for fmt in formats],
        "offsets": list(offsets),
        "itemsize": itemsize,
    }
    if any(title is not None for title in titles):
        fields["titles"] = list(titles)
    structured: Any = np.dtype
    return structured(fields, align=aligned)


def describe(dtype: Any) -> Description | None:
    """Return the description of a numpy dtype, or None if none gives back exactly this dtype.

    None for object and other types whose elements are not their bytes, types
    of other packages, zero-sized elements, metadata, and record classes.
    """
    desc = _describe(dtype, 0)
    if desc is None:
        return None
    try:
        itemsize_of(desc, max_dims=64)
        again = rebuild(desc)
    except (ValueError, TypeError):
        return None
    if again != dtype or again.type is not dtype.type or again.isalignedstruct != dtype.isalignedstruct:
        return None
    return desc


def _describe(dtype: Any, depth: int) -> Description | None:
    if (
        depth > _MAX_NESTING
        or dtype.hasobject
        or dtype.metadata is not None
        or dtype.itemsize == 0
        or dtype.kind not in "biufcmMSUV"
        or (dtype.isbuiltin != 1 and type(dtype).__module__ not in ("numpy", "numpy.dtypes"))
    ):
        return None
    if dtype.subdtype is not None:
        base, shape = dtype.subdtype
        inner = _describe(base, depth + 1)
        return None if inner is None else ["sub", inner, list(shape)]
    if dtype.names is None:
        return dtype.str
    formats, offsets, titles = [], [], []
    for name in dtype.names:
        part = dtype.fields[name]
        inner = _describe(part[0], depth + 1)
        title = part[2] if len(part) > 2 else None
        if inner is None or not (title is None or type(title) is str):
            return None
        formats.append(inner)
        offsets.append(part[1])
        titles.append(title)
    return ["struct", list(dtype.names), formats, offsets, titles, dtype.itemsize, dtype.isalignedstruct]
