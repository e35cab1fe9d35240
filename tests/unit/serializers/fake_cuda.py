"""A device that does its work late: tensors of this process's memory that pass for those of a GPU.

What is queued there is done when somebody waits for it and no sooner, so
whoever forgets to wait reads what was there before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ckptstore.serializers import _devices, destination, tensors

torch: Any = pytest.importorskip("torch")


class FakeCuda:
    """Stands where ``torch.cuda`` does, and keeps a log of what it was asked for."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.pinned_left = 2**40
        self.fail: str | None = None
        """The step that raises; a copy is named with its bytes, as in the log."""
        self.stream_now: FakeStream | None = None
        self._spaces: dict[int, str] = {}
        self._held: list[Any] = []
        self._queued: dict[str, list[Callable[[], object]]] = {}

    def place(self, value: Any, space: str = "cuda:0") -> Any:
        """Have the memory of a tensor or storage belong to the device; return it."""
        storage = _storage_of(value)
        self._held.append(storage)
        self._spaces[storage.data_ptr()] = space
        return value

    def queue(self, kernel: Callable[[], object], space: str = "cuda:0") -> None:
        """Have a device work on something later, on a stream that only the caller knows."""
        self._queued.setdefault(space, []).append(kernel)

    def note(self, step: str) -> None:
        self.log.append(step)
        if step == self.fail:
            raise RuntimeError("CUDA error: injected")

    def space_of(self, value: Any) -> str:
        if value.device.type != "cpu":
            return str(value.device)
        return self._spaces.get(_storage_of(value).data_ptr(), "")

    def synchronize(self, device: Any) -> None:
        self.note(f"settle {device}")
        for kernel in self._queued.pop(str(device), ()):
            kernel()

    def pinned(self, nbytes: int) -> Any:
        if nbytes > self.pinned_left:
            raise RuntimeError("CUDA error: out of memory")
        self.note(f"pin {nbytes}")
        memory = torch.zeros(nbytes, dtype=torch.uint8).as_subclass(PinnedMemory)
        PinnedMemory.cuda = self
        return memory

    @contextmanager
    def stream(self, stream: FakeStream) -> Iterator[None]:
        before, self.stream_now = self.stream_now, stream
        try:
            yield
        finally:
            self.stream_now = before


def _storage_of(value: Any) -> Any:
    return value.untyped_storage() if isinstance(value, torch.Tensor) else value


class FakeStream:
    """A stream beside the caller's: copies wait here until somebody synchronizes."""

    def __init__(self, cuda: FakeCuda, space: str) -> None:
        self._cuda = cuda
        self._space = space
        self.copies: list[Callable[[], object]] = []

    def synchronize(self) -> None:
        copies, self.copies = self.copies, []
        for copy in copies:
            copy()
        self._cuda.note(f"finish {self._space}")


class PinnedMemory(torch.Tensor):  # type: ignore[misc]
    """Memory that a device writes to when its stream gets there."""

    cuda: FakeCuda

    def copy_(self, source: Any, non_blocking: bool = False) -> Any:
        self.cuda.note(f"copy {source.numel()}")
        assert non_blocking, "the host waited for a single copy"
        assert self.cuda.stream_now is not None, "a copy on the caller's own stream"
        target = self.as_subclass(torch.Tensor)
        self.cuda.stream_now.copies.append(lambda: target.copy_(source))
        return self


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A GPU as far as dumps and destinations can see."""
    fake = FakeCuda()
    monkeypatch.setattr(torch.cuda, "Stream", lambda space: FakeStream(fake, space))
    monkeypatch.setattr(torch.cuda, "stream", fake.stream)
    monkeypatch.setattr(torch.cuda, "synchronize", fake.synchronize)
    monkeypatch.setattr(_devices, "_pinned", fake.pinned)
    for module in (tensors, destination):
        monkeypatch.setattr(module, "space_of", fake.space_of)
    _devices._side_stream.cache_clear()
    yield fake
    _devices._side_stream.cache_clear()
