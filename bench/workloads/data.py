"""States that are no tensors: a user's objects, a frame, token ids, a counter."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bench.workloads.compare import Values

__all__ = [
    "Sample",
    "change_counter",
    "change_objects",
    "change_position",
    "change_score",
    "make_counter",
    "make_objects",
    "make_random",
    "make_tabular",
    "make_tokens",
]

N_WORDS = 50_000
OBJECTS_PER_FIELD = 50_000
N_RANDOM = 300


@dataclass(slots=True)
class Sample:
    """A user's own class, as it piles up in lists of flows: saved by pickle."""

    id: int
    text: str
    score: float
    tags: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)


def make_tokens(rng: np.random.Generator, nbytes: int) -> Values:
    ranks = rng.zipf(1.2, max(1, nbytes // 8))
    return {"tokens": np.minimum(ranks, N_WORDS).astype(np.int64), "position": 12_345}


def _words(rng: np.random.Generator, n_words: int) -> list[str]:
    letters = rng.choice(list("etaoinshrdlucmfw"), size=(n_words, 9))
    lengths = rng.integers(2, 10, n_words)
    return ["".join(row[:length]) for row, length in zip(letters.tolist(), lengths.tolist(), strict=True)]


def make_objects(rng: np.random.Generator, nbytes: int) -> Values:
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


def make_tabular(rng: np.random.Generator, nbytes: int) -> Values:
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
    groups = {word: {"n": int(n), "mean": float(mean)} for word, n, mean in _groups(rng, words)}
    return {"frame": frame, "groups": groups, "n_rows": n_rows}


def _groups(rng: np.random.Generator, words: Any) -> Iterator[tuple[str, int, float]]:
    unique = dict.fromkeys(words.tolist())
    return zip(unique, rng.poisson(100.0, len(unique)), rng.random(len(unique)), strict=True)


def make_random(rng: np.random.Generator, nbytes: int) -> Values:
    n_words = max(1, nbytes // 4 // N_RANDOM)
    return {
        "data": {f"block.{i}": rng.integers(0, 1 << 32, n_words, dtype=np.uint32) for i in range(N_RANDOM)}
    }


def make_counter(rng: np.random.Generator, nbytes: int) -> Values:
    return {"epoch": 3, "step": 12_345, "best_loss": float(rng.random()), "history": rng.random(20).tolist()}


def change_objects(rng: np.random.Generator, values: Values) -> None:
    """One in a hundred."""
    for name, samples in values.items():
        if name.startswith("samples_"):
            for i in rng.integers(0, len(samples), max(1, len(samples) // 100)).tolist():
                samples[i].score = float(rng.random())


def change_score(rng: np.random.Generator, values: Values) -> None:
    """One column of the frame."""
    frame = values["frame"]
    frame["score"] = rng.standard_normal(len(frame), dtype=np.float32)


def change_position(rng: np.random.Generator, values: Values) -> None:
    """How far the tokens were read, not the tokens."""
    values["position"] += int(rng.integers(1, 1000))


def flip_words(rng: np.random.Generator, values: Values) -> None:
    """Every one of them, into one that is as random."""
    mask = rng.integers(1, 1 << 32, dtype=np.uint32)
    for block in values["data"].values():
        np.bitwise_xor(block, mask, out=block)


def change_counter(rng: np.random.Generator, values: Values) -> None:
    values["step"] += 1
    values["history"].append(float(rng.random()))
