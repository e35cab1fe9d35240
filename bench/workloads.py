"""States to save: seeded, shaped like real ones, made anew in every process."""

from __future__ import annotations

import importlib
import math
import pickle
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WORKLOADS", "Sample", "Workload", "build", "raw_buffers", "same"]

Values = dict[str, Any]
Floats = npt.NDArray[np.float32]

MIB = 1 << 20
N_LAYERS = 12
N_SMALL = 10_000
N_WORDS = 50_000
OBJECTS_PER_FIELD = 50_000


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of state: `make(rng, nbytes)` builds it with about `nbytes` of data."""

    name: str
    about: str
    make: Callable[[np.random.Generator, int], Values]
    needs: tuple[str, ...] = ()
    """Packages without which it is skipped."""
    torch: bool = False
    """Its leaves are torch tensors: what torch.save is for."""


@dataclass(slots=True)
class Sample:
    """A user's own class, as it piles up in lists of flows: saved by pickle."""

    id: int
    text: str
    score: float
    tags: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


def build(name: str, nbytes: int, *, seed: int) -> Values:
    """The state of the workload `name` with about `nbytes` of data; equal arguments give equal bytes."""
    workload = WORKLOADS[name]
    return workload.make(np.random.default_rng([seed, zlib.crc32(name.encode())]), nbytes)


def _transformer_shapes(n_params: int) -> dict[str, tuple[int, ...]]:
    """100 parameters: 12 layers of 8, embeddings, a last norm and a head, about `n_params` in all."""
    width = max(4, int(math.sqrt(n_params * 0.85 / (12 * N_LAYERS))) // 4 * 4)
    in_layers = N_LAYERS * (12 * width * width + 9 * width)
    vocabulary = max(8, (n_params - in_layers - 65 * width) // (2 * width))
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (vocabulary, width), "position.weight": (64, width)}
    for layer in range(N_LAYERS):
        shapes |= {
            f"layers.{layer}.attention.qkv.weight": (3 * width, width),
            f"layers.{layer}.attention.qkv.bias": (3 * width,),
            f"layers.{layer}.attention.out.weight": (width, width),
            f"layers.{layer}.norm1.weight": (width,),
            f"layers.{layer}.mlp.up.weight": (4 * width, width),
            f"layers.{layer}.mlp.up.bias": (4 * width,),
            f"layers.{layer}.mlp.down.weight": (width, 4 * width),
            f"layers.{layer}.norm2.weight": (width,),
        }
    return shapes | {"norm.weight": (width,), "head.weight": (vocabulary, width)}


def _normal(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> Floats:
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(scale)
    return values


def _weight(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    if len(shape) == 1:
        values = _normal(rng, shape, 0.02)
        values += np.float32(1.0)
        return values
    return _normal(rng, shape, 1.0 / math.sqrt(shape[-1]))


def _gradient_scale(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Gradients differ by orders of magnitude between tensors, and by rows inside one."""
    overall = 10 ** rng.uniform(-5.0, -3.0)
    rows = np.exp(rng.standard_normal((shape[0],) + (1,) * (len(shape) - 1), dtype=np.float32))
    scale: Floats = np.multiply(rows, np.float32(overall), dtype=np.float32)
    return scale


def _first_moment(rng: np.random.Generator, shape: tuple[int, ...], scale: Floats) -> Floats:
    values = _normal(rng, shape, 0.23)  # sqrt((1 - 0.9) / (1 + 0.9)): the spread of an average with beta 0.9
    values *= scale
    return values


def _second_moment(rng: np.random.Generator, shape: tuple[int, ...], scale: Floats) -> Floats:
    values = rng.standard_normal(shape, dtype=np.float32)
    values *= np.float32(0.03)  # beta 0.999 averages the squares to within some 3 %
    values += np.float32(1.0)
    np.square(values, out=values)
    values *= np.square(scale)
    return values


def _model_and_adam(rng: np.random.Generator, nbytes: int, leaf: Callable[[npt.NDArray[Any]], Any]) -> Values:
    model: Values = {}
    state: dict[int, Values] = {}
    for index, (name, shape) in enumerate(_transformer_shapes(nbytes // 12).items()):
        scale = _gradient_scale(rng, shape)
        model[name] = leaf(_weight(rng, shape))
        state[index] = {
            "step": 1200,
            "exp_avg": leaf(_first_moment(rng, shape, scale)),
            "exp_avg_sq": leaf(_second_moment(rng, shape, scale)),
        }
    groups = [{"lr": 3e-4, "betas": (0.9, 0.999), "eps": 1e-8, "params": list(state)}]
    return {
        "model": model,
        "optimizer": {"state": state, "param_groups": groups},
        "epoch": 3,
        "best_loss": 0.731,
        "losses": rng.random(100).tolist(),
    }


def _make_arrays(rng: np.random.Generator, nbytes: int) -> Values:
    return _model_and_adam(rng, nbytes, lambda array: array)


def _make_torch(rng: np.random.Generator, nbytes: int) -> Values:
    torch: Any = importlib.import_module("torch")
    return _model_and_adam(rng, nbytes, torch.from_numpy)


def _make_bf16(rng: np.random.Generator, nbytes: int) -> Values:
    torch: Any = importlib.import_module("torch")
    model = {
        name: torch.from_numpy(_weight(rng, shape)).to(torch.bfloat16)
        for name, shape in _transformer_shapes(nbytes // 2).items()
    }
    return {"model": model, "step": 1200}


def _make_many_small(rng: np.random.Generator, nbytes: int) -> Values:
    torch: Any = importlib.import_module("torch")
    n_tensors = max(1, min(N_SMALL, nbytes // 64))
    weights = rng.lognormal(0.0, 1.0, n_tensors)
    lengths = np.maximum(1, (weights / weights.sum() * (nbytes / 4)).astype(np.int64))
    tensors = {
        f"blocks.{i}.scale": torch.from_numpy(_normal(rng, (int(n),), 0.1)) for i, n in enumerate(lengths)
    }
    return {"model": tensors, "step": 1200}


def _make_tokens(rng: np.random.Generator, nbytes: int) -> Values:
    ranks = rng.zipf(1.2, max(1, nbytes // 8))
    return {"tokens": np.minimum(ranks, N_WORDS).astype(np.int64), "position": 12_345}


def _words(rng: np.random.Generator, n_words: int) -> list[str]:
    letters = rng.choice(list("etaoinshrdlucmfw"), size=(n_words, 9))
    lengths = rng.integers(2, 10, n_words)
    return ["".join(row[:length]) for row, length in zip(letters.tolist(), lengths.tolist(), strict=True)]


def _make_objects(rng: np.random.Generator, nbytes: int) -> Values:
    words = _words(rng, 5_000)
    n_samples = max(1, nbytes // 560)
    values: Values = {"settings": {"lr": 3e-4, "seeds": list(range(20)), "note": "a réglage"}}
    for start in range(0, n_samples, OBJECTS_PER_FIELD):
        n = min(OBJECTS_PER_FIELD, n_samples - start)
        picks = rng.integers(0, len(words), (n, 70)).tolist()
        scores = rng.random((n, 4)).tolist()
        values[f"samples_{start // OBJECTS_PER_FIELD}"] = [
            Sample(
                id=start + i,
                text=" ".join([words[p] for p in pick[:66]]),
                score=score[0],
                tags=[words[p] for p in pick[66:]],
                facts={"loss": score[1], "weight": score[2], "margin": score[3]},
            )
            for i, (pick, score) in enumerate(zip(picks, scores, strict=True))
        ]
    return values


def _make_tabular(rng: np.random.Generator, nbytes: int) -> Values:
    pandas: Any = importlib.import_module("pandas")
    n_rows = max(4, nbytes // 64)
    words = np.array(_words(rng, 500), dtype=object)
    frame = pandas.DataFrame(
        {
            "time": pandas.Timestamp("2026-01-01") + pandas.to_timedelta(np.arange(n_rows), unit="s"),
            "user": rng.integers(0, 2_000_000, n_rows),
            "price": np.round(rng.lognormal(3.0, 1.0, n_rows), 2),
            "quantity": rng.poisson(3.0, n_rows).astype(np.int32),
            "score": rng.standard_normal(n_rows, dtype=np.float32),
            "signal": rng.standard_normal(n_rows),
            "country": pandas.Categorical.from_codes(
                rng.integers(0, 40, n_rows), [f"C{i:02}" for i in range(40)]
            ),
            "word": words[rng.integers(0, len(words), n_rows)],
        }
    )
    return {"frame": frame, "n_rows": n_rows}


def _make_counter(rng: np.random.Generator, nbytes: int) -> Values:
    return {"epoch": 3, "step": 12_345, "best_loss": float(rng.random()), "history": rng.random(20).tolist()}


WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload(
            "torch",
            "fp32 model and its Adam moments, 300 torch tensors",
            _make_torch,
            needs=("torch",),
            torch=True,
        ),
        Workload("arrays", "the same model and moments as 300 numpy arrays", _make_arrays),
        Workload("bf16", "bf16 weights of a language model", _make_bf16, needs=("torch",), torch=True),
        Workload("many-small", "10,000 small fp32 tensors", _make_many_small, needs=("torch",), torch=True),
        Workload("objects", "lists of a user's dataclass with text, lists and dicts", _make_objects),
        Workload("tabular", "a pandas frame of mixed columns", _make_tabular, needs=("pandas",)),
        Workload("tokens", "int64 token ids, Zipf-distributed", _make_tokens),
        Workload("counter", "four small values, whatever the size asked for", _make_counter),
    )
}


def _is_tensor(value: object) -> bool:
    return type(value).__module__ == "torch" and type(value).__name__ == "Tensor"


def _tensor_bytes(tensor: Any) -> memoryview:
    torch: Any = importlib.import_module("torch")
    return memoryview(tensor.reshape(-1).view(torch.uint8).numpy())


def raw_buffers(values: Values) -> list[memoryview]:
    """The bytes of the state without a copy of the large ones: what any system has to move.

    Tensors and arrays as they lie in memory; all else as pickle 5 writes it,
    its out-of-band buffers (a frame's columns) apart.
    """
    buffers: list[memoryview] = []
    rest: list[object] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif _is_tensor(value):
            buffers.append(_tensor_bytes(value))
        elif isinstance(value, np.ndarray) and value.dtype != object:
            buffers.append(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        else:
            rest.append(value)

    walk(values)
    out_of_band: list[pickle.PickleBuffer] = []
    stream = pickle.dumps(rest, protocol=5, buffer_callback=out_of_band.append)
    buffers.append(memoryview(stream))
    buffers.extend(buffer.raw() for buffer in out_of_band)
    return [buffer for buffer in buffers if buffer.nbytes]


def _pairs(first: Any, second: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(first, dict):
        return zip(first.values(), second.values(), strict=True)
    return zip(first, second, strict=True)


def same(first: Any, second: Any) -> bool:
    """Whether two states are equal: types, dtypes, keys in order, and every bit of every array."""
    if type(first) is not type(second):
        return False
    if _is_tensor(first):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and _tensor_bytes(first) == _tensor_bytes(second)
        )
    if isinstance(first, np.ndarray):
        return (
            first.dtype == second.dtype
            and first.shape == second.shape
            and bool(np.array_equal(first.view(np.uint8), second.view(np.uint8)))
        )
    if isinstance(first, dict) and list(first) != list(second):
        return False
    if isinstance(first, dict | list | tuple):
        return len(first) == len(second) and all(same(a, b) for a, b in _pairs(first, second))
    if hasattr(first, "equals"):
        return bool(first.equals(second))
    return bool(first == second)
