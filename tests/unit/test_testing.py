from __future__ import annotations

import asyncio
import threading

import pytest

from ckptstore.backends.memory import MemoryBackend
from ckptstore.errors import ObjectNotFoundError, StoreFullError, UnavailableError
from ckptstore.testing import Fault, FaultyBackend, RecordingBackend, Request, SlowBackend


async def keys(backend, prefix=""):
    return [info.key async for info in backend.list(prefix)]


async def everything(backend):
    await backend.put("a/1", b"one")
    await backend.put("a/2", b"two", staged=True)
    await backend.sync()
    await backend.get("a/1")
    await backend.head("a/1")
    await keys(backend)
    await backend.delete("a/1")
    await backend.put("a/3", b"three")
    assert await backend.delete_many(["a/3", "a/none"]) == {}
    assert await backend.sweep("a/", 0.0, dry_run=True) == (0, 0)


@pytest.mark.parametrize("wrap", [FaultyBackend, SlowBackend, RecordingBackend])
def test_a_wrapper_passes_everything_through_and_offers_no_way_past_it(run, wrap):
    async def main():
        inner = MemoryBackend(name="inner")
        backend = wrap(inner)
        await everything(backend)
        assert (backend.url, backend.zombie_s) == (inner.url, inner.zombie_s)
        assert backend.put_in_worker is None
        assert backend.get_in_worker is None
        assert list(inner.space) == ["a/2"]
        assert await backend.get("a/2", start=1, length=1) == b"w"
        await backend.aclose()

    run(main())


@pytest.mark.parametrize("when", ["before", "after"])
def test_every_single_request_can_be_made_to_fail(run, when):
    async def main():
        nth = 0
        while True:
            nth += 1
            backend = FaultyBackend(MemoryBackend(), Fault(nth=nth, when=when))
            try:
                await everything(backend)
            except UnavailableError:
                assert backend.fired == 1
                assert backend.operations == nth
            else:
                assert backend.fired == 0
                return nth - 1

    assert run(main()) == 10


def test_before_is_not_applied_and_after_is(run):
    async def main():
        for when, stored in (("before", []), ("after", ["a/b"])):
            inner = MemoryBackend()
            with pytest.raises(StoreFullError):
                await FaultyBackend(inner, Fault(when=when, error=lambda: StoreFullError("full"))).put(
                    "a/b", b""
                )
            assert list(inner.space) == stored

    run(main())


def test_a_fault_counts_only_what_matches(run):
    async def main():
        backend = FaultyBackend(MemoryBackend(), Fault(nth=2, verb="put", prefix="chunks/", times=2))
        for key in ("chunks/1", "manifests/1", "manifests/2"):
            await backend.put(key, b"x")
        await backend.get("chunks/1")
        for _ in range(2):
            with pytest.raises(UnavailableError):
                await backend.put("chunks/2", b"x")
        await backend.put("chunks/2", b"x")
        assert (backend.operations, backend.fired) == (7, 2)

    run(main())


def test_a_fault_for_ever_never_heals(run):
    async def main():
        backend = FaultyBackend(MemoryBackend(), Fault(verb="get", times=None))
        await backend.put("a/b", b"x")
        for _ in range(20):
            with pytest.raises(UnavailableError):
                await backend.get("a/b")

    run(main())


def test_corrupt_flips_one_bit_of_one_answer(run):
    async def main():
        backend = FaultyBackend(MemoryBackend(), Fault(nth=2, when="corrupt", bit=8 * 5 + 3))
        await backend.put("a/b", b"\0\0\0")
        assert [await backend.get("a/b") for _ in range(3)] == [b"\0\0\0", b"\0\0\x08", b"\0\0\0"]
        assert backend.fired == 1

    run(main())


def test_a_gate_holds_what_comes_until_it_is_opened(run):
    async def main():
        backend = SlowBackend(MemoryBackend())
        gate = backend.gate("put", "chunks/")
        await backend.put("manifests/1", b"")
        held = [asyncio.create_task(backend.put(f"chunks/{n}", b"")) for n in range(3)]
        await gate.until_arrived(3)
        await gate.until_arrived(1)
        assert gate.arrived == 3
        assert await keys(backend) == ["manifests/1"]
        held[0].cancel()
        gate.open()
        await asyncio.wait(held)
        assert await keys(backend) == ["chunks/1", "chunks/2", "manifests/1"]
        await backend.put("chunks/9", b"")
        gate.close()
        late = asyncio.create_task(backend.put("chunks/8", b""))
        await gate.until_arrived(5)
        assert not late.done()
        gate.open()
        await late

    run(main())


def test_a_gate_can_be_opened_from_another_thread(run):
    backend = SlowBackend(MemoryBackend())
    gate = backend.gate()

    def opener():
        gate.wait_arrived(1)
        gate.open()

    thread = threading.Thread(target=opener)
    thread.start()
    run(backend.put("a/b", b""))
    thread.join()
    with pytest.raises(TimeoutError):
        gate.wait_arrived(2, timeout_s=0.01)


def test_a_recording_lists_every_request_and_which_failed(run):
    async def main():
        backend = RecordingBackend(MemoryBackend())
        await everything(backend)
        with pytest.raises(ObjectNotFoundError):
            await backend.get("a/1")
        await backend.get("a/2", start=1, length=9)
        assert backend.requests == [
            Request("put", "a/1", 3),
            Request("put", "a/2", 3, staged=True),
            Request("sync", ""),
            Request("get", "a/1", 3),
            Request("head", "a/1"),
            Request("list", ""),
            Request("delete", "a/1"),
            Request("put", "a/3", 5),
            Request("delete_many", "a/3", keys=("a/3", "a/none")),
            Request("sweep", "a/"),
            Request("get", "a/1", 0, failed=True),
            Request("get", "a/2", 2, 1, 9),
        ]
        assert backend.of("put", "a/2") == [Request("put", "a/2", 3, staged=True)]

    run(main())
