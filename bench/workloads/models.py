"""States of training: models and their optimizers, shaped and distributed like real ones."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.workloads.compare import Values, is_tensor

__all__ = [
    "change_adapters",
    "change_all",
    "change_rows",
    "make_arrays",
    "make_bf16",
    "make_embedding",
    "make_lora",
    "make_many_small",
    "make_torch",
]

Floats = npt.NDArray[np.float32]

N_LAYERS = 12
N_SMALL = 10_000
CHANGED_SHARE = 0.01
"""Of a LoRA state's bytes, and of an embedding's rows, between two saves."""


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


def make_arrays(rng: np.random.Generator, nbytes: int) -> Values:
    return _model_and_adam(rng, nbytes, lambda array: array)


def make_torch(rng: np.random.Generator, nbytes: int) -> Values:
    torch: Any = importlib.import_module("torch")
    return _model_and_adam(rng, nbytes, torch.from_numpy)


def make_bf16(rng: np.random.Generator, nbytes: int) -> Values:
    torch: Any = importlib.import_module("torch")
    model = {
        name: torch.from_numpy(_weight(rng, shape)).to(torch.bfloat16)
        for name, shape in _transformer_shapes(nbytes // 2).items()
    }
    return {"model": model, "step": 1200}


def make_many_small(rng: np.random.Generator, nbytes: int) -> Values:
    torch: Any = importlib.import_module("torch")
    n_tensors = max(1, min(N_SMALL, nbytes // 64))
    weights = rng.lognormal(0.0, 1.0, n_tensors)
    lengths = np.maximum(1, (weights / weights.sum() * (nbytes / 4)).astype(np.int64))
    tensors = {
        f"blocks.{i}.scale": torch.from_numpy(_normal(rng, (int(n),), 0.1)) for i, n in enumerate(lengths)
    }
    return {"model": tensors, "step": 1200}


def make_lora(rng: np.random.Generator, nbytes: int) -> Values:
    """A frozen base in bf16, and fp32 adapters with their moments: 1 % of the bytes."""
    torch: Any = importlib.import_module("torch")
    shapes = _transformer_shapes(int(nbytes * (1 - CHANGED_SHARE)) // 2)
    base = {name: torch.from_numpy(_weight(rng, shape)).to(torch.bfloat16) for name, shape in shapes.items()}
    wide = [(name, shape) for name, shape in shapes.items() if len(shape) == 2 and "layers" in name]
    budget = int(nbytes * CHANGED_SHARE)
    rank = max(1, budget // sum(12 * sum(shape) for _, shape in wide))
    adapters: Values = {}
    moments: dict[int, Values] = {}
    for name, (n_out, n_in) in wide:
        budget -= 12 * rank * (n_out + n_in)  # an adapter's numbers and both their moments
        if adapters and budget < 0:
            break  # a state too small for an adapter everywhere
        for half, shape in (("lora_A", (rank, n_in)), ("lora_B", (n_out, rank))):
            scale = _gradient_scale(rng, shape)
            moments[len(moments)] = {
                "step": 1200,
                "exp_avg": torch.from_numpy(_first_moment(rng, shape, scale)),
                "exp_avg_sq": torch.from_numpy(_second_moment(rng, shape, scale)),
            }
            adapters[f"{name}.{half}"] = torch.from_numpy(_weight(rng, shape))
    return {"base": base, "adapters": adapters, "optimizer": {"state": moments}, "step": 1200}


def make_embedding(rng: np.random.Generator, nbytes: int) -> Values:
    """One large fp32 table of rows of 64, and a small model on top."""
    torch: Any = importlib.import_module("torch")
    n_rows = max(128, int(nbytes * 0.98) // (64 * 4))
    top = {
        name: torch.from_numpy(_weight(rng, (64, 64)))
        for name in (f"top.{i}.weight" for i in range(max(1, nbytes // 50 // (64 * 64 * 4))))
    }
    return {"model": {"embedding.weight": torch.from_numpy(_normal(rng, (n_rows, 64), 0.1))} | top}


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif is_tensor(value) or isinstance(value, np.ndarray):
        yield value


def change_all(rng: np.random.Generator, values: Values) -> None:
    """As an optimizer's step does: every number of every tensor."""
    for leaf in _leaves(values):
        leaf *= 1 + rng.uniform(0.01, 0.02)


def change_adapters(rng: np.random.Generator, values: Values) -> None:
    change_all(rng, {"adapters": values["adapters"], "optimizer": values["optimizer"]})


def change_rows(rng: np.random.Generator, values: Values) -> None:
    """1 % of the rows, scattered all over."""
    table = values["model"]["embedding.weight"]
    table[rng.choice(len(table), max(1, int(len(table) * CHANGED_SHARE)), replace=False)] *= 1.01
