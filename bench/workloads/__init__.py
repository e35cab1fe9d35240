"""States to save: seeded, shaped like real ones, made anew in every process."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from bench.workloads import data, models
from bench.workloads.compare import Values, raw_buffers, same

__all__ = ["WORKLOADS", "Values", "Workload", "build", "change", "raw_buffers", "same"]


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of state: `make(rng, nbytes)` builds it with about `nbytes` of data."""

    name: str
    about: str
    make: Callable[[np.random.Generator, int], Values]
    change: Callable[[np.random.Generator, Values], None]
    """What happens to it, in place, between two saves."""
    needs: tuple[str, ...] = ()
    """Packages without which it is skipped."""
    torch: bool = False
    """Its leaves are torch tensors: what torch.save is for."""
    tensors: bool = False
    """Nearly all of it is tensors or arrays: what formats of named tensors are for."""


def build(name: str, nbytes: int, *, seed: int) -> Values:
    """The state of the workload `name` with about `nbytes` of data; equal arguments give equal bytes."""
    return WORKLOADS[name].make(_rng(name, seed), nbytes)


def change(name: str, values: Values, *, seed: int) -> None:
    """What happens to the state between two saves, in place; the same for the same seed."""
    WORKLOADS[name].change(_rng(name, seed), values)


def _rng(name: str, seed: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _of_torch(
    name: str,
    about: str,
    make: Callable[[np.random.Generator, int], Values],
    change: Callable[[np.random.Generator, Values], None] = models.change_all,
) -> Workload:
    return Workload(name, about, make, change, needs=("torch",), torch=True, tensors=True)


WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        _of_torch("torch", "fp32 model and its Adam moments, 300 torch tensors", models.make_torch),
        Workload(
            "arrays",
            "the same model and moments as 300 numpy arrays",
            models.make_arrays,
            models.change_all,
            tensors=True,
        ),
        _of_torch("bf16", "bf16 weights of a language model", models.make_bf16),
        _of_torch(
            "lora",
            "a frozen bf16 base; adapters and their moments, 1 %, change",
            models.make_lora,
            models.change_adapters,
        ),
        _of_torch(
            "embedding",
            "an fp32 table of rows, 1 % of them, scattered, change",
            models.make_embedding,
            models.change_rows,
        ),
        _of_torch("many-small", "10,000 small fp32 tensors", models.make_many_small),
        Workload(
            "objects",
            "lists of a user's dataclass with text, lists and dicts, 1 % change",
            data.make_objects,
            data.change_objects,
        ),
        Workload(
            "tabular",
            "a pandas frame of mixed columns, one changes, and dicts",
            data.make_tabular,
            data.change_score,
            needs=("pandas",),
        ),
        Workload(
            "tokens",
            "int64 token ids, Zipf-distributed; the position changes",
            data.make_tokens,
            data.change_position,
            tensors=True,
        ),
        Workload(
            "random",
            "300 arrays of random 32-bit words, which nothing shrinks",
            data.make_random,
            data.flip_words,
            tensors=True,
        ),
        Workload(
            "counter",
            "a few small values, whatever the size asked for",
            data.make_counter,
            data.change_counter,
        ),
    )
}
