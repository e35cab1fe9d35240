"""``codec="auto"``: what is far from redundant is stored raw while the storage keeps up; all else is encoded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from ckptstore import CheckpointStore, StoreConfig, _upload
from ckptstore._encoding import EncodingChoice
from ckptstore.backends.memory import MemoryBackend

CHUNK = 65_536
RNG = np.random.default_rng(3)
STATE = {
    "weights": RNG.standard_normal(8 * CHUNK // 4, dtype=np.float32),
    "zeros": np.zeros(CHUNK // 4, np.float32),
    "ids": np.minimum(RNG.zipf(1.3, CHUNK // 8), 50_000).astype(np.int64),
    "text": b" ".join(b"%d words" % i for i in range(CHUNK // 4)),
}


@pytest.fixture
def choices(monkeypatch):
    """The choices of stores opened from here on; saves of a few chunks are large."""
    made: list[Recording] = []

    class Recording(EncodingChoice):
        answer: bool | None = None

        def __init__(self, *args):
            super().__init__(*args)
            self.told = []
            self.at_once = []
            made.append(self)

        def ask(self):
            return super().ask() if self.answer is None else self.answer

        def encoded(self, stored_bytes, seconds):
            assert seconds > 0
            self.told.append(("encoded", stored_bytes))

        def put(self, stored_bytes, seconds, n_at_once):
            assert seconds > 0
            self.at_once.append(n_at_once)
            self.told.append(("put", stored_bytes))

        def flushed(self, stored_bytes, seconds, waited_s):
            assert seconds >= waited_s > 0
            self.told.append(("flushed", stored_bytes))

        def sum(self, what):
            return sum(nbytes for kind, nbytes in self.told if kind == what)

    monkeypatch.setattr(_upload, "EncodingChoice", Recording)
    monkeypatch.setattr(_upload, "_ADAPTIVE_BYTES", 4 * CHUNK)
    return made


def config(**options):
    return StoreConfig(chunk_bytes=CHUNK, inline_bytes=64, durability="os", **options)


def codecs(folder: Path) -> dict[str, int]:
    """How many chunks are stored under each codec."""
    found: dict[str, int] = {}
    for path in (folder / "chunks").rglob("*.*.*"):
        codec = path.name.rpartition(".")[2]
        found[codec] = found.get(codec, 0) + 1
    return found


def saved(folder: Path, choices, answer: bool | None, state=STATE, **options) -> dict[str, int]:
    with CheckpointStore.open(folder, config=config(**options)) as store:
        choices[-1].answer = answer
        store.save("run", state)
        back = store.load("run")
        assert all(np.array_equal(back[name], value) for name, value in state.items())
    return codecs(folder)


def test_auto_is_the_default():
    assert StoreConfig().codec == "auto"


def test_a_storage_that_keeps_up_gets_raw_weights_and_nothing_else_raw(tmp_path, choices):
    found = saved(tmp_path, choices, False)
    assert found.pop("raw") == 8
    assert "planes4" not in found
    assert sum(found.values()) >= 3  # zeros, ids and text


def test_a_slow_storage_gets_everything_encoded(tmp_path, choices):
    assert "raw" not in saved(tmp_path, choices, True)


def test_a_small_save_is_encoded_whatever_the_storage(tmp_path, choices):
    small = {"weights": STATE["weights"][: 3 * CHUNK // 4]}
    assert saved(tmp_path, choices, False, small) == {"planes4": 3}
    assert choices[-1].told == []


@pytest.mark.parametrize(("codec", "found"), [("planes", {"planes4": 8}), ("raw", {"raw": 8})])
def test_forced_is_forced(tmp_path, choices, codec, found):
    weights = {"weights": STATE["weights"]}
    for answer in (True, False):
        assert saved(tmp_path / str(answer), choices, answer, weights, codec=codec) == found
        assert choices[-1].told == []


class Far(MemoryBackend):
    """Puts from the loop, as a network would; each waits until ``n_wanted`` are under way, or for no more."""

    def __init__(self, n_wanted=1):
        super().__init__({}, name="far")
        self.put_in_worker = None
        self._left = n_wanted
        self._enough = asyncio.Event()

    async def put(self, key, data, **options):
        if key.startswith("chunks/"):
            self._left -= 1
            if self._left <= 0:
                self._enough.set()
            await self._enough.wait()
        return await super().put(key, data, **options)


@pytest.mark.parametrize("place", ["memory", "local", "far"])
def test_the_choice_is_told_what_was_done(tmp_path, choices, place):
    async def far(executor):
        return Far()

    where = {"memory": "memory://", "local": tmp_path / "store", "far": far}[place]
    with CheckpointStore.open(where, config=config()) as store:
        sizes = store.save("run", STATE).sizes
        choice = choices[-1]
        # What is redundant has no part in it.
        assert 0.75 < choice.sum("encoded") / STATE["weights"].nbytes < 0.9
        inline = sizes.new_bytes - choice.sum("put")
        assert 0 <= inline < 4096
        assert choice.sum("flushed") == choice.sum("put")
        choice.told.clear()
        store.save("run", STATE)
        assert choice.told == []  # all found: nothing was sent


def test_puts_are_told_among_how_many_they_were(choices):
    async def far(executor):
        return Far(n_wanted=4)

    with CheckpointStore.open(far, config=config(encode_workers=2, io_concurrency=4)) as store:
        store.save("run", STATE)
    at_once = choices[-1].at_once
    # The first four waited for each other: the first was alone at its start, all were there when it ended.
    assert max(at_once) >= 2.5
    assert max(at_once) <= 2 * 2 + 4
    assert at_once[-1] >= 1


def test_manifest_and_sizes_tell_what_was_chosen(tmp_path, choices):
    with CheckpointStore.open(tmp_path, config=config()) as store:
        choices[-1].answer = False
        raw = store.inspect(store.save("run", {"w": STATE["weights"]}))
        assert raw.fields["w"].stored_bytes >= raw.fields["w"].raw_bytes
        choices[-1].answer = True
        encoded = store.inspect(store.save("other", {"w": STATE["weights"]}))
        assert encoded.fields["w"].stored_bytes < 0.9 * encoded.fields["w"].raw_bytes
