"""The protocol of saves, deletions and collections as a model in virtual time: any rule can be dropped.

    python gc_model.py [N_SEEDS]

Writers, collectors and people who delete and undelete are generators; each
``yield`` is a moment at which anybody else may act, time may pass, or the actor
may crash. After every step, every checkpoint that is live, or was deleted less
than the grace ago, must have all its chunks.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Key = tuple[str, int]
Named = dict[str, Key]

DIGESTS = "abcdef"


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The parameters of the protocol, and its rules, each of which can be dropped."""

    grace: float = 20
    save_limit: float = 8
    zombie: int = 3
    undelete_within: float = 10
    unique_names: bool = True
    head_before_delete: bool = False
    """For shared names: look at the chunk's time again right before it is deleted."""
    cut_before_manifests: bool = True
    manifest_before_tombstone: bool = True
    clock_ahead: int = 0
    """How far the collector's clock may be ahead of the storage's."""
    empty_listings: float = 0.0
    """The share of listings of manifests that come back empty."""
    hidden_manifests: float = 0.0
    """The share of manifests that a listing does not show."""
    canary: bool = True
    list_twice: bool = True


class World:
    """The storage, its clock, and what is still on its way to it."""

    def __init__(self, rules: Rules, seed: int) -> None:
        self.rules = rules
        self.random = random.Random(seed)
        self.now = 0
        self.chunks: dict[Key, int] = {}
        self.manifests: dict[int, Named] = {}
        self.tombstones: dict[int, int] = {}
        self._on_their_way: list[tuple[int, Callable[[], None]]] = []
        self._last = 0

    def number(self) -> int:
        """Return a number that nobody has."""
        self._last += 1
        return self._last

    def live(self) -> list[int]:
        return [number for number in self.manifests if number not in self.tombstones]

    def later(self, delay: int, land: Callable[[], None]) -> None:
        """A request that was given up and lands all the same."""
        self._on_their_way.append((self.now + delay, land))

    def land(self) -> None:
        due = [one for one in self._on_their_way if one[0] <= self.now]
        for one in due:
            self._on_their_way.remove(one)
            one[1]()

    def violation(self) -> str | None:
        for number, named in self.manifests.items():
            deleted = self.tombstones.get(number)
            if deleted is not None and self.now - deleted >= self.rules.grace:
                continue
            missing = [key for key in named.values() if key not in self.chunks]
            if missing:
                return f"checkpoint {number} (deleted: {deleted}) lacks {missing} at {self.now}"
        return None


def writer(world: World) -> Iterator[None]:
    """Saves for ever; what a base holds is not sent again."""
    rules, rng = world.rules, world.random
    memory: tuple[Named, int] | None = None
    while True:
        known_at, base = world.now, Named()
        if memory is not None and rng.random() < 0.5:
            base, known_at = memory
        elif live := world.live():
            base = world.manifests[rng.choice(live)]
        yield
        named = Named()
        for digest in rng.sample(DIGESTS, rng.randint(1, 4)):
            key = base.get(digest)
            if key is None:
                key = digest, world.number() if rules.unique_names else 0
                world.chunks[key] = world.now
            named[digest] = key
            yield
        if world.now - known_at > rules.save_limit:
            memory = None
            continue
        number, sent_at = world.number(), world.now

        def commit(number: int = number, named: Named = named) -> None:
            world.manifests[number] = named

        if rng.random() < 0.25:
            world.later(rules.zombie, commit)
            memory = None
        else:
            commit()
            memory = named, sent_at
        yield


def listing(world: World) -> tuple[dict[int, Named], dict[int, int]] | None:
    """What a collector sees of manifests and tombstones; None if it sees that it is not all."""
    rules, rng = world.rules, world.random
    if rng.random() < rules.empty_listings:
        return None if rules.canary else ({}, {})
    shown = {
        number: named for number, named in world.manifests.items() if rng.random() >= rules.hidden_manifests
    }
    return shown, dict(world.tombstones)


def collector(world: World) -> Iterator[None]:
    """Collects for ever."""
    rules, rng = world.rules, world.random
    while True:
        cut = world.now + rng.choice([0, rules.clock_ahead]) - rules.grace
        yield
        seen = listing(world)
        if seen is None:
            continue
        manifests, tombstones = seen
        purged = [number for number in manifests if tombstones.get(number, cut) < cut]
        if rules.list_twice:
            yield
            again = listing(world)
            if again is None:
                continue
            manifests = again[0] | manifests
            purged = [number for number in purged if number in again[1]]
        used = {key for number, named in manifests.items() if number not in purged for key in named.values()}
        yield
        if not rules.cut_before_manifests:
            cut = world.now - rules.grace
        victims = [key for key, put_at in world.chunks.items() if put_at < cut and key not in used]
        orphans = [
            number
            for number, deleted_at in tombstones.items()
            if number not in manifests and deleted_at < cut - rules.grace
        ]
        for number in purged:
            if not rules.manifest_before_tombstone:
                world.tombstones.pop(number, None)
                yield
            world.manifests.pop(number, None)
            yield
        for key in victims:
            if rules.head_before_delete:
                old = world.chunks.get(key, cut) < cut
                yield
                if not old:
                    continue
            world.chunks.pop(key, None)
            yield
        for number in orphans:
            world.manifests.pop(number, None)
            world.tombstones.pop(number, None)
            yield


def people(world: World) -> Iterator[None]:
    """Delete checkpoints, and bring some back."""
    rng = world.random
    while True:
        live = world.live()
        deleted = [
            number
            for number, deleted_at in world.tombstones.items()
            if number in world.manifests and world.now - deleted_at < world.rules.undelete_within
        ]
        if deleted and rng.random() < 0.25:
            del world.tombstones[rng.choice(deleted)]
        elif live:
            world.tombstones[rng.choice(live)] = world.now
        yield


def run(rules: Rules, seed: int, *, n_steps: int = 160) -> str | None:
    """Return the first violation of one interleaving, or None."""
    world = World(rules, seed)
    rng = world.random
    makers = [writer, writer, writer, collector, collector, people]
    actors = [make(world) for make in makers]
    for _ in range(n_steps):
        draw = rng.random()
        if draw < 0.2:
            world.now += rng.randint(1, 3)
            world.land()
        elif draw < 0.22:
            crashed = rng.randrange(5)
            actors[crashed] = makers[crashed](world)
        elif draw < 0.28:
            next(actors[5])
        else:
            next(actors[rng.randrange(5)])
        if found := world.violation():
            return f"seed {seed}: {found}"
    return None


SAFE = {
    "as it is": Rules(),
    "tight": Rules(grace=12, undelete_within=6),
    "longer late requests": Rules(zombie=11),
    "undelete to the last": Rules(undelete_within=16),
    "empty listings": Rules(empty_listings=0.2),
}
WEAK = {
    "no limit of a save": Rules(save_limit=1e9),
    "a grace that is too short": Rules(grace=8, undelete_within=4),
    "late requests beyond the grace": Rules(zombie=15),
    "the clock of the collector's machine": Rules(clock_ahead=15),
    "listings that are believed": Rules(empty_listings=0.01, canary=False, list_twice=False),
    "tombstones removed before their manifest": Rules(manifest_before_tombstone=False),
    "undelete at any age": Rules(undelete_within=1e9),
    "chunks under their digest alone": Rules(unique_names=False),
    "a look before each deletion": Rules(unique_names=False, head_before_delete=True),
    "the cut after the manifests": Rules(grace=12, undelete_within=6, cut_before_manifests=False),
}


HIDING = Rules(hidden_manifests=0.01)
HIDING_ONCE = Rules(hidden_manifests=0.01, list_twice=False)


def count(rules: Rules, n_seeds: int) -> tuple[int, str | None]:
    """Return how many seeds violate the invariants, and what the first one says."""
    found = [one for seed in range(n_seeds) if (one := run(rules, seed))]
    return len(found), found[0] if found else None


if __name__ == "__main__":
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    for name, rules in {**SAFE, **WEAK}.items():
        print(f"{name:45}", *count(rules, seeds), flush=True)
