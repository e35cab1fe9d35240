"""Tensors of other devices, brought into this process's memory: all of a dump together.

On CUDA they travel into pinned memory, which a device writes to by itself, on a
stream beside the caller's, and are waited for once. Pinned memory is torch's
own: it keeps what was given back, and the next dump gets it again.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, TypeVar

from ckptstore._memory import allocate
from ckptstore.serializers.memory import Region, memory_at

__all__ = ["CudaLink", "Link", "fetch", "link_to", "settle", "shared_out"]

T = TypeVar("T")

_MIN_PIECE_BYTES = 1024**2
_MAX_PIECE_BYTES = 4 * 1024**3
_ALIGNMENT = 64


class Link:
    """The way from a device that torch knows nothing faster for than copies one by one."""

    def __init__(self, space: str) -> None:
        self._torch = sys.modules["torch"]
        self._device = self._torch.device(space)

    def settle(self) -> None:
        """Wait until the device has done all it was told to, by whatever stream."""
        accelerator: Any = getattr(self._torch, "accelerator", None)  # since torch 2.6
        current: Any = accelerator and accelerator.current_accelerator()
        if current is not None and current.type == self._device.type:
            accelerator.synchronize(self._device)
        else:
            wait = getattr(getattr(self._torch, self._device.type, None), "synchronize", None)
            if wait is not None:
                wait()

    def memory(self, nbytes: int) -> Any:
        """Return memory of this process, as a tensor of ``nbytes`` bytes."""
        return self._torch.frombuffer(allocate(nbytes), dtype=self._torch.uint8)

    def copying(self) -> AbstractContextManager[Any]:
        """Return what ``copy`` is called in, and whatever makes its sources."""
        return nullcontext()

    def copy(self, into: Any, source: Any) -> None:
        """Copy bytes of the device, or have them copied by the end of ``finish``."""
        into.copy_(source)

    def finish(self) -> None:
        """Wait until all copies have ended."""


class CudaLink(Link):
    """The way from a GPU: copies are queued on a stream of their own, and end together."""

    def __init__(self, space: str) -> None:
        super().__init__(space)
        self._stream = _side_stream(space)

    def settle(self) -> None:
        # Which stream is the caller's current one, only its own thread could tell: dumps run on others.
        self._torch.cuda.synchronize(self._device)

    def memory(self, nbytes: int) -> Any:
        try:
            return _pinned(nbytes)
        except RuntimeError:  # none is left to be pinned; copies into other memory are only slower
            return super().memory(nbytes)

    def copying(self) -> AbstractContextManager[Any]:
        stream: AbstractContextManager[Any] = self._torch.cuda.stream(self._stream)
        return stream

    def copy(self, into: Any, source: Any) -> None:
        into.copy_(source, non_blocking=True)

    def finish(self) -> None:
        self._stream.synchronize()


@functools.cache  # torch keeps the memory that a stream has used for that stream: another one each time adds up.
def _side_stream(space: str) -> Any:
    return sys.modules["torch"].cuda.Stream(space)


def _pinned(nbytes: int) -> Any:
    torch = sys.modules["torch"]
    return torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=True)


def link_to(space: str) -> Link:
    """Return the way from a device, which is named as torch does."""
    return CudaLink(space) if space.startswith("cuda") else Link(space)


def settle(space: str) -> None:
    """Wait until a device has done all it was told to; nothing for this process's memory, which is ""."""
    if space:
        link_to(space).settle()


def fetch(
    regions: Iterable[Region],
    *,
    copy_failed: Callable[[Region, Exception], Exception],
    device_failed: Callable[[str, Exception], Exception],
) -> None:
    """Give all regions of other devices their bytes, in memory that is nobody else's.

    What the devices were told before has then been done, and the copies have
    ended: the caller may change and free its tensors. The devices copy at the
    same time. Nothing that is still being copied is left behind by an error:
    ``copy_failed`` makes one for a region, ``device_failed`` for a whole device.
    """
    spaces: dict[str, list[Region]] = {}
    for region in regions:
        if region.space:
            spaces.setdefault(region.space, []).append(region)
    with ExitStack() as ends:
        for space, mine in spaces.items():
            blamed = functools.partial(device_failed, space)
            link = _checked(functools.partial(link_to, space), blamed)
            _checked(link.settle, blamed)
            # The regions hold their tensors until then, so nobody is given memory that is still read.
            ends.callback(_checked, link.finish, blamed)
            for nbytes, places in shared_out(mine):
                memory = link.memory(nbytes)
                with link.copying():
                    for region, at in places:
                        try:
                            _copy(link, region, memory[at : at + region.stored_bytes])
                        except Exception as exc:
                            raise copy_failed(region, exc) from exc


def _copy(link: Link, region: Region, memory: Any) -> None:
    for at, source in region.sources():
        link.copy(memory[at : at + source.numel()], source)
    region.bring(memory_at(memory.data_ptr(), memory.numel(), memory))


def _checked(step: Callable[[], T], blamed: Callable[[Exception], Exception]) -> T:
    try:
        return step()
    except Exception as exc:
        raise blamed(exc) from exc


def shared_out(regions: Iterable[Region]) -> Iterator[tuple[int, list[tuple[Region, int]]]]:
    """Yield pieces of memory that hold all regions: the size of each, and its regions with their offsets.

    torch pins powers of two. So a piece is one, as large as what is left to be
    placed fills, and small regions take the room that large ones leave.
    """
    left = sorted(
        ((_aligned(region.stored_bytes), region) for region in regions),
        key=lambda sized: sized[0],
        reverse=True,
    )
    total = sum(nbytes for nbytes, _ in left)
    while left:
        fills = min(max(1 << (total.bit_length() - 1), _MIN_PIECE_BYTES), _MAX_PIECE_BYTES)
        room = max(1 << (left[0][0] - 1).bit_length(), fills)
        places: list[tuple[Region, int]] = []
        rest: list[tuple[int, Region]] = []
        used = 0
        for nbytes, region in left:
            if used + nbytes <= room:
                places.append((region, used))
                used += nbytes
            else:
                rest.append((nbytes, region))
        yield used, places
        left = rest
        total -= used


def _aligned(nbytes: int) -> int:
    return -(-nbytes // _ALIGNMENT) * _ALIGNMENT
