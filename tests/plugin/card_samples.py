"""What a card may be made of: a run like a real one, and single saves to vary."""

from __future__ import annotations

import math
import random
from datetime import datetime, timedelta, timezone
from typing import Any

from metaflow_extensions.ckptstore.plugins.checkpoint.card.facts import CardFacts, LineageFact, SavedFact

__all__ = ["PATHSPEC", "START", "at", "facts", "save", "training"]

PATHSPEC = "TrainFlow/1764/train/3"
START = datetime(2026, 10, 3, 14, 3, 22, tzinfo=timezone.utc)


def at(seconds: float) -> str:
    """Return the time so many seconds after the attempt's start."""
    return (START + timedelta(seconds=seconds)).isoformat()


def save(number: int = 0, **different: Any) -> SavedFact:
    """Return a durable save, a minute after the one before."""
    values: dict[str, Any] = {
        "name": "epoch",
        "state": "saved",
        "attempt": 0,
        "metadata": {"val_loss": 1 / (number + 1)},
        "created_on": at(60 * number + 3),
        "version_id": f"1.{number}",
        "size": 3000,
        "stored_bytes": 2000,
        "new_bytes": 500,
        "started_s": 60.0 * number,
        "blocked_s": 0.5,
        "background_s": 2.5,
    }
    return SavedFact(**values | different)


def facts(*saves: SavedFact, **different: Any) -> CardFacts:
    """Return the facts of a finished first attempt of ten minutes."""
    values: dict[str, Any] = {
        "pathspec": PATHSPEC,
        "attempt": 0,
        "state": "finished",
        "started_on": at(0),
        "written_on": at(600),
        "elapsed_s": 600.0,
        "saved": saves,
        "observed_s": 600.0,
    }
    return CardFacts(**values | different)


def training(n_saves: int = 11) -> CardFacts:
    """Return a training's second attempt: it loaded what the crashed first one saved, and one save failed."""
    chance = random.Random(4)
    saves: list[SavedFact] = []
    now_s = 21.0
    for number in range(n_saves):
        loss = 1.42 * math.exp(-number / 5) + 0.21 + chance.random() * 0.06
        is_best = number in (3, 8)
        blocked_s, background_s = 0.11 + chance.random() * 0.06, 5.1 + chance.random() * 2
        known = {"epoch": number + 4, "val_loss": loss, "accuracy": 1 - loss / 2.2}
        common: dict[str, Any] = {"attempt": 1, "metadata": known, "started_s": now_s}
        if number == 5:
            error = "BackendError: cannot write chunks/7f/7fa2c1: the storage answered 503 (4 tries in 12 s)"
            saves.append(
                save(
                    number,
                    state="failed",
                    created_on="",
                    error=error,
                    blocked_s=0.9,
                    background_s=None,
                    **common,
                )
            )
        else:
            saves.append(
                save(
                    number,
                    name="best" if is_best else "epoch",
                    latest=not is_best,
                    created_on=at(now_s + blocked_s + background_s),
                    size=1_503_238_553 + number * 4096,
                    stored_bytes=1_211_000_000,
                    new_bytes=18_400 if is_best else 402_000_000,
                    blocked_s=blocked_s,
                    background_s=background_s,
                    **common,
                )
            )
        now_s += 9.0 if is_best else 58 + chance.random() * 11
    lineage = tuple(
        LineageFact("epoch", 0, pathspec, at(-60 * minutes), {"epoch": epoch, "val_loss": loss})
        for pathspec, minutes, epoch, loss in (
            ("TrainFlow/1760/train/3", 1503, 1, 2.114),
            (PATHSPEC, 21, 2, 1.87),
            (PATHSPEC, 16, 3, 1.69),
        )
    )
    return facts(
        *saves,
        attempt=1,
        written_on=at(now_s),
        elapsed_s=now_s,
        found=lineage[-1],
        lineage=lineage,
        n_failures=1,
        observed_s=now_s + 1260,
    )
