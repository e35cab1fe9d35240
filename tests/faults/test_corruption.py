"""Bytes that are not what was stored: an error that names field and key, or a copy that heals; never wrong data."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from rig import Faulty, Storage

from ckptstore import AsyncCheckpointStore, CheckpointStore, StoreConfig
from ckptstore._keys import CHUNKS
from ckptstore.errors import (
    AccessDeniedError,
    BackendError,
    CheckpointStoreError,
    ChunkCorruptError,
    ChunkMissingError,
    IntegrityError,
)
from ckptstore.testing import Fault

CONFIG = StoreConfig(durability="os", chunk_bytes=16384, inline_bytes=64, encode_workers=1)
SEED = int(os.environ.get("CKPTSTORE_TEST_SEED", "20260101"))


def state() -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {
        "normal": {"w": rng.standard_normal(2000).astype("float32")},  # planes
        "counter": np.arange(1500),  # shuffle
        "text": ["a long text, again and again; " * 200],  # zstd
        "noise": rng.integers(0, 256, 5000, dtype="uint8"),  # raw
        "small": [np.full(30, n) for n in range(10)],  # packed, several to a chunk
        "epoch": 3,
    }


def same(loaded: Any, saved: Any) -> bool:
    if isinstance(saved, np.ndarray):
        return loaded.dtype == saved.dtype and np.array_equal(loaded, saved)
    if isinstance(saved, dict):
        return list(loaded) == list(saved) and all(same(loaded[name], saved[name]) for name in saved)
    if isinstance(saved, list):
        return len(loaded) == len(saved) and all(map(same, loaded, saved))
    return bool(loaded == saved)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def positions(rng: random.Random, n_bytes: int) -> list[int]:
    """Return bits to flip: one of every byte of a small object, some of a large one, both ends among them."""
    if n_bytes <= 700:
        chosen = list(range(n_bytes))
    else:
        chosen = sorted({0, 1, n_bytes - 1, *(rng.randrange(n_bytes) for _ in range(150))})
    return [8 * byte + rng.randrange(8) for byte in chosen]


def test_no_flipped_bit_in_any_stored_file_gives_wrong_data(tmp_path: Path) -> None:
    print("CKPTSTORE_TEST_SEED =", SEED)
    rng = random.Random(SEED)
    saved = state()

    async def problem_of(storage: Storage, checkpoint: Any, told: Any) -> CheckpointStoreError | None:
        """Inspect and load; return what the load noticed. What is given must be right."""
        problem = None
        try:
            store = await storage.open(config=CONFIG)
        except CheckpointStoreError as exc:
            return exc
        with contextlib.suppress(CheckpointStoreError):
            assert (await store.inspect(checkpoint)) == told
        try:
            assert same(await store.load(checkpoint), saved)
        except CheckpointStoreError as exc:
            problem = exc
        await store.aclose()
        return problem

    async def main() -> None:
        storage = Storage("memory", tmp_path)
        store = await storage.open(config=CONFIG)
        checkpoint = await store.save("c", saved, label="best")
        await store.pin(checkpoint)
        told = await store.inspect(checkpoint)
        codecs = {key.rpartition(".")[2] for key in storage.chunks()}
        assert codecs >= {"raw", "zstd", "planes4", "shuffle8"}
        await store.aclose()
        for key in storage.keys():  # noqa: SIM118  # not a dict
            data, at = storage.space[key]
            for bit in positions(rng, len(data)):
                storage.space[key] = flipped(data, bit), at
                problem = await problem_of(storage, checkpoint, told)
                if key.startswith(CHUNKS) or key.endswith(checkpoint.ref.name):
                    assert key in str(problem), f"bit {bit} of {key}"
                if key.startswith(CHUNKS):
                    assert isinstance(problem, ChunkCorruptError)
                    assert any(f"field {name!r}" in str(problem) for name in saved)
            storage.space[key] = data, at
        assert await problem_of(storage, checkpoint, told) is None

    asyncio.run(main())


Change = Callable[[Path, Path], None]
"""Change the chunk at the first path; the second is another chunk of the same size."""


def _write(content: Callable[[bytes], bytes]) -> Change:
    return lambda path, _: path.write_bytes(content(path.read_bytes())) and None


def _replace(make: Callable[[Path], object]) -> Change:
    def change(path: Path, _: Path) -> None:
        path.unlink()
        make(path)

    return change


def _swap(path: Path, other: Path) -> None:
    ours = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(ours)


def _link_to_itself(path: Path, _: Path) -> None:
    moved = path.with_name("moved")
    path.rename(moved)
    path.symlink_to(moved)


def _socket(path: Path) -> None:
    where = os.getcwd()
    os.chdir(path.parent)  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name[:60])
        os.rename(path.name[:60], path.name)
    finally:
        os.chdir(where)


def _bomb(data: bytes) -> bytes:
    """Return a frame of the same length that declares 2^40 bytes of content."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0b11100000]) + struct.pack("<Q", 1 << 40)
    return (header + b"\x03\x00\x00" * len(data))[: len(data)]


def _another_size(data: bytes) -> bytes:
    frame = zstandard.ZstdCompressor().compress(b"short")
    return (frame + bytes(len(data)))[: len(data)]


def _exact_frame_of_another_size(data: bytes) -> bytes:
    n = len(data) - 20  # a frame of one raw block is its content and a few bytes
    while len(frame := zstandard.ZstdCompressor(level=1).compress(random.Random(n).randbytes(n))) < len(data):
        n += 1
    return frame


CHANGES: dict[str, tuple[Change, type[CheckpointStoreError]]] = {
    "missing": (_replace(lambda path: None), ChunkMissingError),
    "truncated": (_write(lambda data: data[:-1]), ChunkCorruptError),
    "halved": (_write(lambda data: data[: len(data) // 2]), ChunkCorruptError),
    "extended": (_write(lambda data: data + b"\0"), ChunkCorruptError),
    "doubled": (_write(lambda data: data + data), ChunkCorruptError),
    "much longer": (_write(lambda data: data * 100), ChunkCorruptError),
    "a bit flipped at rest": (_write(lambda data: flipped(data, 4 * len(data))), ChunkCorruptError),
    "two chunks swapped": (_swap, ChunkCorruptError),
    "empty": (_write(lambda data: b""), ChunkCorruptError),
    "HTML": (_write(lambda data: b"<!DOCTYPE html><html>502 Bad Gateway</html>"), ChunkCorruptError),
    "zeros": (_write(lambda data: bytes(len(data))), ChunkCorruptError),
    "a frame of another content size": (_write(_another_size), ChunkCorruptError),
    "a whole frame of another content size": (_write(_exact_frame_of_another_size), ChunkCorruptError),
    "a bomb": (_write(_bomb), ChunkCorruptError),
    "a directory": (_replace(Path.mkdir), ChunkCorruptError),
    "a FIFO": (_replace(os.mkfifo), ChunkCorruptError),
    "a socket": (_replace(_socket), ChunkCorruptError),
    "a link to the chunk itself": (_link_to_itself, ChunkCorruptError),
    "a link to a device": (_replace(lambda path: path.symlink_to("/dev/zero")), ChunkCorruptError),
    "a broken link": (_replace(lambda path: path.symlink_to("nowhere")), ChunkCorruptError),
    "a device": (_replace(lambda path: os.mknod(path, 0o20666, os.makedev(1, 5))), ChunkCorruptError),
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[CheckpointStore]:
    with CheckpointStore.open(str(tmp_path / "store"), config=CONFIG) as opened:
        yield opened


def files_of(store: CheckpointStore, tmp_path: Path, codec: str) -> list[Path]:
    """Return the files of chunks stored under ``codec``, a family of codecs."""
    found = (tmp_path / "store" / "chunks").rglob(f"*.{codec}*")
    return sorted(path for path in found if path.is_file())


@pytest.mark.parametrize("codec", ["raw", "zstd", "planes", "shuffle"])
@pytest.mark.parametrize("what", CHANGES)
def test_a_chunk_that_is_not_what_was_stored_is_named(
    store: CheckpointStore, tmp_path: Path, what: str, codec: str
) -> None:
    change, kind = CHANGES[what]
    if what == "a device" and os.geteuid() != 0:
        pytest.skip("only root may make devices")
    rng = np.random.default_rng(1)
    arrays = {
        "raw": [rng.integers(0, 256, 9000, dtype="uint8") for _ in range(2)],
        "zstd": [rng.integers(0, 2, 9000, dtype="uint8") for _ in range(2)],
        "planes": [rng.standard_normal(3000).astype("float32") for _ in range(2)],
        "shuffle": [np.arange(n, n + 1500) for n in range(2)],
    }[codec]
    checkpoint = store.save("c", {"first": {"deep": [arrays[0]]}, "second": arrays[1], "third": 3})
    path, other = files_of(store, tmp_path, codec)
    change(path, other)
    with pytest.raises(kind) as caught:
        store.load(checkpoint)
    message = str(caught.value)
    assert f"{CHUNKS}{path.parent.name}/{path.name}" in message or what == "two chunks swapped"
    assert any(place in message for place in ("field 'first' at \"['deep'][0]\"", "field 'second'"))
    assert store.load(checkpoint, fields=["third"]) == {"third": 3}
    assert store.inspect(checkpoint).checkpoint == checkpoint
    # The next save does not build on what cannot be trusted less than before: it works.
    assert store.load(store.save("c", {"n": 1})) == {"n": 1}


@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_raw_bytes_under_a_zstd_key_and_the_reverse_are_corrupt(
    store: CheckpointStore, tmp_path: Path, codec: str
) -> None:
    value = np.zeros(9000, "uint8") if codec == "zstd" else np.random.default_rng(0).bytes(9000)
    checkpoint = store.save("c", {"field": value})
    (path,) = files_of(store, tmp_path, codec)
    path.write_bytes(
        bytes(9000) if codec == "zstd" else zstandard.ZstdCompressor().compress(path.read_bytes())
    )
    with pytest.raises(ChunkCorruptError, match=r"field 'field'.*chunks/"):
        store.load(checkpoint)


def over(storage: Storage, *, shortcuts: bool) -> Any:
    """Open a store over a faulty backend, with one checkpoint in it."""

    async def opened() -> tuple[AsyncCheckpointStore, Faulty, Any]:
        backends: list[Faulty] = []

        def wrap(inner: Any) -> Faulty:
            backends.append(Faulty(inner, shortcuts=shortcuts))
            return backends[0]

        store = await storage.open(wrap, config=CONFIG)
        return store, backends[0], await store.save("c", state())

    return opened()


@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_bit_flipped_in_transit_heals_by_itself(tmp_path: Path, kind: str, shortcuts: bool) -> None:
    async def main() -> None:
        store, backend, checkpoint = await over(Storage(kind, tmp_path / "store"), shortcuts=shortcuts)
        for times, heals in ((1, True), (2, True), (3, False)):
            backend.arm(Fault(when="corrupt", prefix=CHUNKS, bit=1234, times=times))
            if heals:
                assert same(await store.load(checkpoint), state())
            else:
                backend.arm(Fault(when="corrupt", prefix=CHUNKS, bit=1234, times=None))
                with pytest.raises(ChunkCorruptError):
                    await store.load(checkpoint)
            assert backend.fired >= times
        assert store._engine.budget.in_use == 0
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("shortcuts", [False, True])
@pytest.mark.parametrize("kind", ["memory", "local"])
def test_a_chunk_without_permission_is_not_missing(tmp_path: Path, kind: str, shortcuts: bool) -> None:
    async def main() -> None:
        store, backend, checkpoint = await over(Storage(kind, tmp_path / "store"), shortcuts=shortcuts)
        refused = Fault(prefix=CHUNKS, verb="get", times=None, error=lambda: AccessDeniedError("not yours"))
        backend.arm(refused)
        with pytest.raises(AccessDeniedError, match="not yours"):
            await store.load(checkpoint)
        await store.aclose()

    asyncio.run(main())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_not_missing(store: CheckpointStore, tmp_path: Path) -> None:
    checkpoint = store.save("c", state())
    files_of(store, tmp_path, "raw")[0].chmod(0)
    with pytest.raises(AccessDeniedError, match="chunks/"):
        store.load(checkpoint)


@pytest.mark.parametrize("damage", ["missing", "a bit flipped at rest", "a directory", "truncated"])
@pytest.mark.parametrize("codec", ["planes", "raw"])
def test_another_copy_of_the_same_bytes_heals(tmp_path: Path, damage: str, codec: Any) -> None:
    url = str(tmp_path / "store")
    with CheckpointStore.open(url, config=CONFIG) as store:
        checkpoint = store.save("c", state())
        own = set((tmp_path / "store/chunks").rglob("*.*"))
        copying = StoreConfig(durability="os", chunk_bytes=16384, inline_bytes=64, codec=codec)
        with CheckpointStore.open(url, config=copying) as other:
            other.save("elsewhere", state())
        for path in own:
            CHANGES[damage][0](path, path)
        assert same(store.load(checkpoint), state())
        for path in set((tmp_path / "store/chunks").rglob("*.*")) - own:
            path.write_bytes(b"neither")
        with pytest.raises(IntegrityError):
            store.load(checkpoint)


@pytest.mark.parametrize("shortcuts", [False, True])
def test_a_damaged_chunk_is_named_although_no_copy_can_be_looked_for(tmp_path: Path, shortcuts: bool) -> None:
    async def main() -> None:
        storage = Storage("memory", tmp_path)
        store, backend, checkpoint = await over(storage, shortcuts=shortcuts)
        for key in storage.chunks():
            del storage.space[key]
        backend.arm(Fault(verb="list", prefix=CHUNKS, times=None, error=lambda: AccessDeniedError("no")))
        with pytest.raises(ChunkMissingError, match="field"):
            await store.load(checkpoint)
        backend.arm(Fault(verb="list", prefix=CHUNKS, times=None))
        with pytest.raises(BackendError):  # it may be there: nothing is concluded
            await store.load(checkpoint)
        await store.aclose()

    asyncio.run(main())
