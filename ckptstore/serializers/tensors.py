"""torch tensors and storages as nodes, and back. torch is imported only when a value brings it."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from math import prod
from typing import Any, TypeVar

from ckptstore.errors import CheckpointStoreError
from ckptstore.serializers.arrays import strided_range
from ckptstore.serializers.dtypes import torch_itemsize
from ckptstore.serializers.graph import CONJ, NEG, PARAMETER, REQUIRES_GRAD
from ckptstore.serializers.memory import Extent

__all__ = [
    "TensorBuilder",
    "check_memory",
    "encode_storage",
    "encode_tensor",
    "plain_extent",
    "space_of",
    "storage_extent",
    "torch_name",
]

T = TypeVar("T")

_COMMON = frozenset(
    {"float32", "bfloat16", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"}
)
"""Dtypes whose tensors torch makes of memory in one call."""

_WASTE_BYTES = 64 * 1024
"""A lone view keeps its strides up to this many bytes of gaps, or as many as it has elements."""


@functools.cache  # The types of torch are few, and this is asked of every tensor.
def torch_name(dtype: Any) -> str:
    """Return ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def space_of(value: Any) -> str:
    """Return the name of the device that holds a tensor or storage: "" is this process's memory."""
    device = value.device
    return "" if device.type == "cpu" else str(device)


def plain_extent(tensor: Any) -> tuple[bool, Extent | None]:
    """Return whether an object of exactly Tensor or Parameter is its elements and flags alone, and their memory.

    None if it has no memory of its own.
    """
    torch = sys.modules["torch"]
    try:
        if (
            tensor.layout is not torch.strided
            or tensor.is_quantized
            or tensor.is_nested
            or tensor.__dict__
            or torch_itemsize(torch_name(tensor.dtype)) is None
        ):
            return False, None
        device = tensor.device
        if device.type == "meta":
            return True, None
        # Tensors inside torch.func transforms and fakes have no memory of their own.
        start = tensor.data_ptr()
        storage = tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return False, None
    n = tensor.numel()
    if n == 0:
        return True, None
    if start == 0:
        if not tensor._is_zerotensor():
            return False, None
        # Zeros that have no memory.
        tensor = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device).zero_()
        start, storage = tensor.data_ptr(), tensor.untyped_storage()
    itemsize = tensor.element_size()
    nbytes = n * itemsize
    span = nbytes if tensor.is_contiguous() else _span(tensor)
    low = start - storage.data_ptr()
    if low < 0 or low + span > storage.nbytes():
        return False, None
    width = itemsize // 2 if tensor.is_complex() else itemsize
    space = space_of(tensor)
    extent = Extent(start, span, owner=tensor, width=width, space=space)
    source = _source(storage, low, span) if space else None
    extent.source = source
    if span > 2 * nbytes and span - nbytes > _WASTE_BYTES and not (tensor.is_conj() or tensor.is_neg()):
        extent.compact = (lambda: _compact_there(tensor, source)) if source else (lambda: _compact(tensor))
        extent.compact_bytes = nbytes
    return True, extent


def check_memory(value: Any) -> None:
    """Raise ValueError if ``value`` is a tensor whose storage is too small to hold it, because it was freed.

    torch would give such a tensor memory again when it loads it, with whatever is in there.
    """
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return
    if value.layout is not torch.strided or value.device.type == "meta" or value.numel() == 0:
        return
    try:
        held = value.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError):
        return
    if value.storage_offset() * value.element_size() + _span(value) > held and not value._is_zerotensor():
        raise ValueError(f"its storage holds {held} bytes, fewer than its elements need")


def _span(tensor: Any) -> int:
    itemsize = tensor.element_size()
    strides = tuple(stride * itemsize for stride in tensor.stride())
    return strided_range(tuple(tensor.shape), strides, itemsize)[1]


def storage_extent(storage: Any) -> Extent | None:
    """Return the memory of an untyped storage, None if it has none."""
    storage = _untyped(storage)[0]
    if storage.device.type == "meta" or storage.nbytes() == 0:
        return None
    space = space_of(storage)
    extent = Extent(storage.data_ptr(), storage.nbytes(), owner=storage, width=1, space=space)
    if space:
        extent.source = _source(storage, 0, storage.nbytes())
    return extent


def _source(storage: Any, at: int, nbytes: int) -> Callable[[], Any]:
    def source() -> Any:
        torch = sys.modules["torch"]
        return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage, at, (nbytes,), (1,))

    return source


def _compact(tensor: Any) -> memoryview:
    torch = sys.modules["torch"]
    packed = bytearray(tensor.numel() * tensor.element_size())
    view = torch.frombuffer(packed, dtype=tensor.dtype).view(tensor.shape)
    view.copy_(tensor.detach())
    return memoryview(packed)


def _compact_there(tensor: Any, source: Callable[[], Any]) -> Any:
    torch = sys.modules["torch"]
    try:
        packed = tensor.detach().contiguous()
    except (
        RuntimeError
    ):  # a GPU in training has little memory left: the gaps come along, and are left out here
        whole = source().cpu().untyped_storage()
        packed = torch.empty(0, dtype=torch.uint8).view(tensor.dtype)
        packed = packed.set_(whole, 0, tensor.shape, tensor.stride()).contiguous()
    return packed.reshape(-1).view(torch.uint8)


def encode_tensor(tensor: Any, extent: Extent | None, block: Any) -> list[Any]:
    """Return the node of a plain tensor; ``block`` is the reference to its extent's block."""
    flags = (
        (REQUIRES_GRAD if tensor.requires_grad else 0)
        | (PARAMETER if type(tensor) is sys.modules["torch"].nn.Parameter else 0)
        | (CONJ if tensor.is_conj() else 0)
        | (NEG if tensor.is_neg() else 0)
    )
    offset = 0
    strides = None if tensor.is_contiguous() else list(tensor.stride())
    if extent is not None and extent.region is not None:
        if extent.region.compacted:
            strides = None
        else:
            offset = extent.start - extent.region.start
    name = torch_name(tensor.dtype)
    return ["tensor", name, list(tensor.shape), strides, block, offset, space_of(tensor) or "cpu", flags]


def encode_storage(storage: Any, extent: Extent | None, block: Any) -> list[Any]:
    """Return the node of a typed or untyped storage."""
    untyped, name = _untyped(storage)
    offset = 0
    if extent is not None and extent.region is not None:
        offset = extent.start - extent.region.start
    return ["storage", name, untyped.nbytes(), block, offset, space_of(untyped) or "cpu"]


def _untyped(storage: Any) -> tuple[Any, str | None]:
    if type(storage) is sys.modules["torch"].UntypedStorage:
        return storage, None
    return storage._untyped_storage, torch_name(storage.dtype)


class TensorBuilder:
    """Restores tensors and storages; those that shared memory share one storage again.

    Tensors that were saved from another device than the CPU go to ``device``,
    or stay on the CPU if it is None; with "saved" each goes to the one it was on.
    """

    def __init__(self, device: str | None) -> None:
        import torch

        self._torch = torch
        self._device = device
        self._storages: dict[tuple[Any, str], Any] = {}
        """By block and device, the storage, or the tensor that has it."""

    def dtype(self, name: str) -> Any:
        """Return ``torch.<name>``. Raises CheckpointStoreError if this torch has no such type."""
        dtype = getattr(self._torch, name, None) if torch_itemsize(name) is not None else None
        if not isinstance(dtype, self._torch.dtype):
            raise CheckpointStoreError(
                f"torch {self._torch.__version__} has no dtype {name!r}: load with the version that saved it"
            )
        return dtype

    def device(self, name: str) -> Any:
        """Return the ``torch.device`` of that name."""
        return self._torch.device(name)

    def size(self, shape: list[int]) -> Any:
        """Return a ``torch.Size``."""
        return self._torch.Size(shape)

    def tensor(self, node: list[Any], key: Any, memory: memoryview | None) -> Any:
        """Return the tensor of a checked node; ``key`` identifies its block, ``memory`` holds it."""
        torch = self._torch
        _, name, shape, strides, _, offset, device, flags = node
        dtype = self.dtype(name)
        if strides is None and self._is_whole(node, key, memory):
            # One call instead of four, and there may be a hundred thousand.
            tensor = self._storages[key, "cpu"] = torch.frombuffer(memory, dtype=dtype).resize_(shape)
            return self._flagged(tensor, flags)
        if strides is None:
            strides = _contiguous(shape)
        if memory is None:
            tensor = self._moved(
                "meta" if device == "meta" else self._target(device),
                lambda where: torch.empty_strided(shape, strides, dtype=dtype, device=where),
            )
        else:
            storage = self._storage(key, memory, device)
            itemsize = dtype.itemsize
            if offset % itemsize:
                # A storage offset counts elements: this one starts inside an element of its block.
                storage, offset = _part(torch, storage, offset), 0
            # Making a complex32 tensor directly warns that its operators are experimental.
            tensor = torch.empty(0, dtype=torch.uint8, device=storage.device).view(dtype)
            tensor.set_(storage, offset // itemsize, shape, strides)
        return self._flagged(tensor, flags)

    def _is_whole(self, node: list[Any], key: Any, memory: memoryview | None) -> bool:
        """Tell whether a contiguous tensor is all elements of a block that no other tensor has used."""
        _, name, shape, _, _, offset, device, _ = node
        return (
            memory is not None
            and name in _COMMON
            and offset == 0
            and prod(shape) * torch_itemsize(name) == len(memory)
            and self._target(device) == "cpu"
            and (key, "cpu") not in self._storages
        )

    def _flagged(self, tensor: Any, flags: int) -> Any:
        torch = self._torch
        if flags & CONJ:
            torch._C._set_conj(tensor, True)
        if flags & NEG:
            torch._C._set_neg(tensor, True)
        if flags & PARAMETER:
            return torch.nn.Parameter(tensor, requires_grad=bool(flags & REQUIRES_GRAD))
        if flags & REQUIRES_GRAD:
            tensor.requires_grad_(True)
        return tensor

    def storage(self, node: list[Any], key: Any, memory: memoryview | None) -> Any:
        """Return the storage of a checked node."""
        torch = self._torch
        _, name, nbytes, _, offset, device = node
        if memory is None:
            storage = self._moved(
                "meta" if device == "meta" else self._target(device),
                lambda where: torch.UntypedStorage(nbytes, device=where),
            )
        else:
            storage = self._storage(key, memory, device)
            if offset or nbytes != storage.nbytes():
                storage = _part(torch, storage, offset)[:nbytes]
        if name is None:
            return storage
        return torch.storage.TypedStorage(wrap_storage=storage, dtype=self.dtype(name), _internal=True)

    def _target(self, device: str) -> str:
        if device == "cpu" or self._device is None:
            return "cpu"
        return device if self._device == "saved" else self._device

    def _moved(self, target: str, move: Callable[[str], T]) -> T:
        """Return what ``move`` makes on a device. One that is missing or full says nothing of the checkpoint."""
        if target in ("cpu", "meta"):
            return move(target)
        try:
            return move(target)
        except Exception as exc:
            raise CheckpointStoreError(
                f"tensors cannot go to the device {target!r}: {type(exc).__name__}: {str(exc)[:300]}; load them to "
                "the CPU, without device, or to a device that this machine has and that has room for them"
            ) from exc

    def _storage(self, key: Any, memory: memoryview, device: str) -> Any:
        target = self._target(device)
        storage = self._storages.get((key, target))
        if isinstance(storage, self._torch.Tensor):
            storage = self._storages[key, target] = storage.untyped_storage()
        if storage is None:
            whole = self._torch.frombuffer(memory, dtype=self._torch.uint8)
            storage = self._storages[key, target] = self._moved(target, whole.to).untyped_storage()
        return storage


def _part(torch: Any, storage: Any, offset: int) -> Any:
    return storage[offset:]


def _contiguous(shape: list[int]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for n in reversed(shape):
        strides.append(step)
        step *= max(n, 1)
    return tuple(reversed(strides))
