"""Captures: values as they were, in memory until somebody asks for them to be saved."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from ckptstore import AsyncCheckpointStore, StoreConfig, last
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import (
    ConfigError,
    InvalidNameError,
    InvalidPolicyError,
    SaveCancelledError,
    StoreClosedError,
    UnserializableError,
)
from ckptstore.testing import RecordingBackend


def values(seed: int) -> dict[str, Any]:
    return {"weights": np.full(50_000, seed, "f4"), "list": [seed], "seed": seed}


def change(given: dict[str, Any]) -> None:
    given["weights"][:] = -1
    given["list"].append("later")
    given["seed"] = -1


def is_values(loaded: dict[str, Any], seed: int) -> bool:
    expected = values(seed)
    return np.array_equal(loaded["weights"], expected["weights"]) and all(
        loaded[name] == expected[name] for name in ("list", "seed")
    )


def test_a_capture_is_saved_as_the_values_were(store: Any) -> None:
    given = values(1)
    captured = store.capture("c", given, label="mark", run="r", metadata={"n": 1}, attributes={"a": 2})
    assert captured.raw_bytes >= given["weights"].nbytes
    change(given)
    assert store.list() == []
    later = store.save("c", values(2))
    saved = store.save_captured(captured)
    assert is_values(store.load(saved), 1)
    assert (saved.label, saved.run, saved.metadata, saved.attributes) == ("mark", "r", {"n": 1}, {"a": 2})
    # Its place in the order is that of its save.
    assert [found.ref for found in store.list("c")] == [saved.ref, later.ref]


def test_a_capture_is_saved_once(store: Any) -> None:
    captured = store.capture("c", values(1))
    saved = store.save_captured(captured)
    assert store.save_captured(captured) == saved
    captured.discard()
    assert store.save_captured(captured) == saved
    assert len(store.list("c")) == 1


def test_a_discarded_capture_is_never_saved(store: Any) -> None:
    captured = store.capture("c", values(1))
    captured.discard()
    captured.discard()
    with pytest.raises(SaveCancelledError, match="discarded"):
        store.save_captured(captured)
    assert store.list() == []


def test_captures_do_not_disturb_one_another(store: Any) -> None:
    given = values(0)
    captures = []
    for seed in range(4):
        given["weights"][:] = seed
        given["list"][:] = [seed]
        given["seed"] = seed
        captures.append(store.capture("c", given))
    background = store.save("c", values(9), wait=False)
    captures[1].discard()
    assert is_values(store.load(store.save_captured(captures[2])), 2)
    again = store.capture("c", values(5))
    assert is_values(store.load(store.save_captured(captures[0])), 0)
    assert is_values(store.load(store.save_captured(captures[3])), 3)
    assert is_values(store.load(store.save_captured(again)), 5)
    assert is_values(store.load(store.committed(background)), 9)


def test_a_capture_reuses_what_is_stored_already(store: Any) -> None:
    captured = store.capture("c", values(1))
    store.save("c", values(1))
    assert store.save_captured(captured).sizes.new_bytes < 1000


def test_a_captured_save_is_followed_by_its_retention(store: Any) -> None:
    first = store.save("c", values(0))
    store.save("c", values(1))
    captured = store.capture("c", values(2), keep=last(1), parent=first.ref)
    assert len(store.list("c")) == 2
    saved = store.save_captured(captured)
    assert saved.parent == first.ref
    assert [found.ref for found in store.list("c")] == [saved.ref, first.ref]


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        (("", {}), {}, InvalidNameError),
        (("c", [1]), {}, ConfigError),
        (("c", {3: 1}), {}, InvalidNameError),
        (("c", {}), {"label": ""}, InvalidNameError),
        (("c", {}), {"metadata": {"a": object()}}, ConfigError),
        (("c", {}), {"parent": "c"}, ConfigError),
        (("c", {}), {"keep": "last(1)"}, InvalidPolicyError),
        (("c", {}), {"protect": "c"}, ConfigError),
    ],
)
def test_wrong_arguments_are_refused_at_the_capture(
    open_store: Any, arguments: Any, options: Any, kind: type[Exception]
) -> None:
    store = open_store("memory://")
    with pytest.raises(kind):
        store.capture(*arguments, **options)


def test_what_cannot_be_saved_is_named_at_the_capture(store: Any) -> None:
    import threading

    with pytest.raises(UnserializableError) as caught:
        store.capture("c", {"big": np.ones(10**6), "lock": threading.Lock()})
    assert caught.value.field == "lock"
    captured = store.capture("c", values(1))
    assert is_values(store.load(store.save_captured(captured)), 1)


def test_a_capture_touches_no_storage() -> None:
    async def main() -> None:
        backend = RecordingBackend(MemoryBackend())

        async def opened(executor: Any) -> RecordingBackend:
            return backend

        async with await AsyncCheckpointStore.open(opened) as store:
            before = len(backend.requests)
            captured = await store.capture("c", values(1), keep=last(1))
            (await store.capture("c", values(2))).discard()
            assert len(backend.requests) == before
            await captured.save()
            assert len(backend.requests) > before

    asyncio.run(main())


def test_closing_discards_and_says_so() -> None:
    async def main() -> None:
        space: dict[str, Any] = {}
        store = await AsyncCheckpointStore.open("memory://", space=space)
        saved = await store.capture("c", values(1))
        checkpoint = await saved.save()
        captured = await store.capture("c", values(2))
        kept = store._saves.captures
        await store.aclose()
        with pytest.raises(StoreClosedError, match="closed"):
            await captured.save()
        with pytest.raises(StoreClosedError):
            await store.capture("c", values(3))
        assert await saved.save() == checkpoint  # what had happened has
        captured.discard()
        assert kept._arenas == []
        assert len([key for key in space if key.startswith("manifests/c/f")]) == 1

    asyncio.run(main())


def test_the_memory_of_two_captures_is_kept_and_used_again() -> None:
    async def main() -> None:
        async with await AsyncCheckpointStore.open("memory://", config=StoreConfig()) as store:
            captures = [await store.capture("c", values(seed)) for seed in range(4)]
            kept = store._saves.captures._arenas
            assert kept == []
            await captures[0].save()
            captures[0].discard()
            assert len(kept) == 1
            for captured in captures:
                captured.discard()
            assert len(kept) == 2
            assert all(
                segment.used == 0 for arena in kept for segment in arena._segments
            )  # all of it is free again
            memory = [arena._segments[0].memory.obj for arena in kept]
            again = [await store.capture("c", values(seed)) for seed in range(2)]
            assert kept == []
            for captured in again:
                captured.discard()
            assert [arena._segments[0].memory.obj for arena in kept] in (memory, memory[::-1])
            # Nothing of a capture that nobody holds is kept by the store.
            captures.clear()
            again.clear()
            del captured
            await store.capture("c", values(7))
            assert list(store._saves.captures._open) == []

    asyncio.run(main())
