"""The store's marker: made once, the same for everybody, and never guessed."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import pytest

from ckptstore import StoreConfig
from ckptstore._keys import MARKER
from ckptstore._marker import StoreMarker, open_marker
from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import ConfigError, ManifestCorruptError, StoreNotFoundError, UnsupportedVersionError

Run = Callable[[Any], Any]
DAY = 86_400.0
GOOD = {"format": 1, "store_id": "ab" * 16, "grace_s": DAY, "digest": "blake3"}


def space_of(marker: object) -> dict[str, tuple[bytes, float]]:
    data = marker if isinstance(marker, bytes) else json.dumps(marker).encode()
    return {MARKER: (data, 0.0)}


def opened(run: Run, space: Any, config: StoreConfig | None = None, *, create: bool = True) -> StoreMarker:
    found: StoreMarker = run(open_marker(MemoryBackend(space), config or StoreConfig(), create=create))
    return found


def test_a_new_store_has_an_id_of_its_own(run: Run) -> None:
    one, other = opened(run, {}), opened(run, {})
    assert one.store_id != other.store_id
    assert len(one.store_id) == 32
    assert int(one.store_id, 16) >= 0


def test_a_new_marker_says_what_the_format_page_says(run: Run) -> None:
    space: dict[str, tuple[bytes, float]] = {}
    marker = opened(run, space, StoreConfig(grace_s=7200))
    assert list(space) == [MARKER]
    said = json.loads(space[MARKER][0])
    assert said == {"format": 1, "store_id": marker.store_id, "grace_s": 7200, "digest": "blake3"}


def test_a_store_opened_again_is_the_same_and_not_written(run: Run) -> None:
    space: dict[str, tuple[bytes, float]] = {}
    first = opened(run, space)
    written = dict(space)
    for create in (True, False):
        assert opened(run, space, create=create) == first
    assert space == written


def test_no_store_is_an_error_and_nothing_is_made(run: Run) -> None:
    space: dict[str, tuple[bytes, float]] = {}
    with pytest.raises(StoreNotFoundError, match=r"memory://.*create=True"):
        opened(run, space, create=False)
    assert space == {}


def test_an_existing_store_keeps_its_grace(run: Run) -> None:
    space = space_of({**GOOD, "grace_s": 7 * DAY})
    assert opened(run, space, StoreConfig(grace_s=7200)) == StoreMarker("ab" * 16, 7 * DAY, 3.5 * DAY)


def test_two_creators_at_once_agree_on_one_id(run: Run) -> None:
    class Late(MemoryBackend):
        """Every creator has seen that there is no store before any of them puts one."""

        async def put(self, *args: Any, **options: Any) -> Any:
            await barrier.wait()
            return await super().put(*args, **options)

    class Barrier:
        def __init__(self, n: int) -> None:
            self.left = n
            self.all_here = asyncio.Event()

        async def wait(self) -> None:
            self.left -= 1
            if not self.left:
                self.all_here.set()
            await self.all_here.wait()

    barrier = Barrier(5)

    async def race() -> list[StoreMarker]:
        space: dict[str, tuple[bytes, float]] = {}
        return await asyncio.gather(*(open_marker(Late(space), StoreConfig(), create=True) for _ in range(5)))

    found = run(race())
    assert len(found) == 5
    assert len({marker.store_id for marker in found}) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"null", b"[]", b"1", b'"x"', b"{}", b"\xff\xfe", b"\0" * 100, b"<html>503</html>", b"[" * 100_000,
        b'{"a":' * 10_000, json.dumps(GOOD).encode() + b"x", json.dumps(GOOD).encode()[:-1],
        json.dumps({**GOOD, "x": "y" * 70_000}).encode(),
    ],
    ids=lambda data: ascii(data[:12]),
)  # fmt: skip
def test_a_damaged_marker_is_an_error_and_left_alone(run: Run, data: bytes) -> None:
    space = space_of(data)
    with pytest.raises(ManifestCorruptError, match=r"ckptstore.json of memory://"):
        opened(run, space)
    assert space[MARKER][0] == data


def test_a_marker_cut_anywhere_is_an_error(run: Run) -> None:
    data = json.dumps(GOOD).encode()
    for length in range(len(data)):
        with pytest.raises(ManifestCorruptError):
            opened(run, space_of(data[:length]))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("format", value) for value in (None, True, 1.0, "1", [1], {}, [[[]]])),
        *(("digest", value) for value in (None, 1, True, ["blake3"], {})),
        *(
            ("store_id", value)
            for value in (None, 1, "", "AB" * 16, "ab" * 15, "ab" * 17, "g" * 32, "ab" * 16 + "\n")
        ),
        *(
            ("grace_s", value)
            for value in (None, True, "86400", 0, -1, 0.0, math.nan, math.inf, 10**400, 1e300, [1], {})
        ),
    ],
)
def test_a_marker_with_a_wrong_value_is_an_error(run: Run, key: str, value: Any) -> None:
    with pytest.raises(ManifestCorruptError, match=key):
        opened(run, space_of({**GOOD, key: value}))


@pytest.mark.parametrize("key", ["store_id", "grace_s", "digest"])
def test_a_marker_with_a_value_missing_is_an_error(run: Run, key: str) -> None:
    with pytest.raises(ManifestCorruptError, match=key):
        opened(run, space_of({name: value for name, value in GOOD.items() if name != key}))


@pytest.mark.parametrize(
    "marker",
    [
        {"format": 2},
        {"format": 2, "digest": ["a", "b"], "store_id": 7},
        {**GOOD, "format": 0},
        {**GOOD, "format": 10**300},
        {**GOOD, "digest": "sha256"},
        {**GOOD, "digest": "x" * 10_000},
    ],
    ids=lambda marker: str(marker)[:20],
)
def test_another_format_or_digest_asks_for_an_upgrade(run: Run, marker: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedVersionError, match="upgrade") as info:
        opened(run, space_of(marker))
    assert len(str(info.value)) < 300


def test_a_store_for_exclusive_use_asks_for_the_promise(run: Run) -> None:
    space: dict[str, tuple[bytes, float]] = {}
    assert opened(run, space, StoreConfig(grace_s=60, exclusive=True)).grace_s == 60
    with pytest.raises(ConfigError, match=r"exclusive=True"):
        opened(run, space)
    assert opened(run, space, StoreConfig(exclusive=True)).grace_s == 60


class Remote(MemoryBackend):
    """A storage where a request that was given up may land a quarter of an hour later."""

    zombie_s = 900.0


@pytest.mark.parametrize(
    ("backend", "grace_s", "largest"),
    [
        (MemoryBackend, DAY, DAY - 3600),
        (Remote, DAY, DAY - 3600 - 900),
        (MemoryBackend, 7200.0, 7200 - 900),
        (Remote, 7200.0, 7200 - 900 - 900),
    ],
)
def test_saves_lateness_and_clocks_must_fit_into_the_grace(
    run: Run, backend: type[MemoryBackend], grace_s: float, largest: float
) -> None:
    fits = StoreConfig(grace_s=grace_s, max_save_s=largest - 1)
    assert run(open_marker(backend(), fits, create=True)).max_save_s == largest - 1
    too_long = StoreConfig(grace_s=grace_s, max_save_s=largest)
    space: dict[str, tuple[bytes, float]] = {}
    with pytest.raises(ConfigError, match="max_save_s"):
        run(open_marker(backend(space), too_long, create=True))
    assert space == {}, "a store was made that nobody can use"
    existing = space_of({**GOOD, "grace_s": grace_s})
    with pytest.raises(ConfigError, match="max_save_s"):
        run(open_marker(backend(existing), StoreConfig(max_save_s=largest), create=False))


def test_half_the_grace_is_for_a_save(run: Run) -> None:
    assert opened(run, {}, StoreConfig(grace_s=7200)).max_save_s == 3600


def test_no_new_marker_is_made_where_checkpoints_are(run: Run) -> None:
    space: dict[str, tuple[bytes, float]] = {"manifests/c/-collection": (b"", 0.0)}
    with pytest.raises(ManifestCorruptError, match=r"memory://.*ckptstore\.json is gone"):
        opened(run, space)
    assert list(space) == ["manifests/c/-collection"]


def test_a_store_that_another_process_makes_and_fills_meanwhile_is_opened(run: Run) -> None:
    class Racing(MemoryBackend):
        async def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
            try:
                return await super().get(key, start=start, length=length)
            finally:
                self.space.setdefault(MARKER, (json.dumps(GOOD).encode(), 0.0))
                self.space.setdefault("manifests/c/-collection", (b"", 0.0))

    assert run(open_marker(Racing({}), StoreConfig(), create=True)).store_id == GOOD["store_id"]
