"""Arrays and tensors of the caller's that a load writes to: what they are, whether they can be, and the writing."""

from __future__ import annotations

import sys
from math import prod
from typing import Any, NamedTuple

from ckptstore.serializers._devices import settle
from ckptstore.serializers._outline import LeafSpec
from ckptstore.serializers.arrays import strided_range
from ckptstore.serializers.memory import address_of
from ckptstore.serializers.tensors import check_memory, space_of, torch_name

__all__ = [
    "Span",
    "bytes_of",
    "clone",
    "copy",
    "is_meta",
    "is_module",
    "leaf_of",
    "refusal",
    "span_of",
    "span_of_bytes",
    "tensors_of",
]


class Span(NamedTuple):
    """Where the elements of an array or tensor lie: ``space`` is a device, ``layout`` the strides in bytes."""

    space: str
    low: int
    high: int
    start: int
    layout: tuple[int, ...]


def leaf_of(value: Any) -> LeafSpec | None:
    """Return what an array or tensor is, None for anything else."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        shape = tuple(value.shape)
        return LeafSpec("torch", torch_name(value.dtype), shape, prod(shape) * value.element_size())
    if numpy is not None and isinstance(value, numpy.ndarray):
        return LeafSpec("numpy", str(value.dtype), tuple(value.shape), value.nbytes)
    return None


def is_module(value: Any) -> bool:
    """Tell whether this is an ``nn.Module``."""
    nn = getattr(sys.modules.get("torch"), "nn", None)
    return nn is not None and isinstance(value, nn.Module)


def tensors_of(module: Any, *, persistent: bool) -> dict[str, Any]:
    """Return the parameters and buffers of a module by their names in its state_dict; none of its hooks runs.

    ``persistent``: without the buffers that a state_dict leaves out.
    """
    found: dict[str, Any] = {}
    for prefix, inner in module.named_modules(remove_duplicate=False):
        left_out = inner._non_persistent_buffers_set if persistent else ()
        for group in (inner._parameters, inner._buffers):
            for name, tensor in group.items():
                if tensor is not None and name not in left_out:
                    found[f"{prefix}.{name}" if prefix else name] = tensor
    return found


def refusal(value: Any) -> str | None:
    """Return why nothing can be written to an array or tensor, None if it can."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        numpy = sys.modules["numpy"]
        if type(value) not in (numpy.ndarray, numpy.memmap):
            return f"a {type(value).__name__} is no plain array"
        if not value.flags.writeable:
            return "it is read-only"
    else:
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            return f"a {type(value).__name__} is no plain tensor"
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            return "it is sparse, quantized or nested"
        if value.device.type == "meta":
            return "it is on the meta device and has no memory"
        if value.is_inference():
            return "it was made in inference mode"
        try:
            check_memory(value)
        except ValueError as exc:
            return str(exc)
    if _overlaps_itself(tuple(value.shape), _strides(value), leaf_of(value)):
        return "some of its elements share their memory"
    return None


def _strides(value: Any) -> tuple[int, ...]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return tuple(stride * value.element_size() for stride in value.stride())
    return tuple(value.strides)


def _overlaps_itself(shape: tuple[int, ...], strides: tuple[int, ...], leaf: LeafSpec | None) -> bool:
    if leaf is None or not leaf.nbytes:
        return False
    reach = leaf.nbytes // prod(shape)
    for stride, n in sorted((abs(stride), n) for n, stride in zip(shape, strides, strict=True) if n > 1):
        if stride < reach:
            return True
        reach += (n - 1) * stride
    return False


def span_of(value: Any) -> Span | None:
    """Return where the elements lie, None if there are none."""
    leaf = leaf_of(value)
    if leaf is None or not leaf.nbytes:
        return None
    shape, strides = leaf.shape, _strides(value)
    low, high = strided_range(shape, strides, leaf.nbytes // prod(shape))
    if leaf.kind == "torch":
        space = space_of(value)
        start = value.data_ptr()
    else:
        space, start = "", value.__array_interface__["data"][0]
    layout = tuple(stride for n, stride in zip(shape, strides, strict=True) if n > 1)
    return Span(space, start + low, start + high, start, layout)


def span_of_bytes(view: memoryview) -> Span | None:
    """Return where bytes lie that ``bytes_of`` gave."""
    start = address_of(view)
    return None if start is None else Span("", start, start + view.nbytes, start, (1,))


def is_meta(value: Any) -> bool:
    """Tell whether a tensor has no elements because it is on the meta device."""
    return bool(getattr(value, "is_meta", False)) and value.numel() > 0


def bytes_of(value: Any) -> memoryview | None:
    """Return the writable bytes of an array or tensor, None if they do not follow one another in this process."""
    leaf = leaf_of(value)
    if leaf is None or not leaf.nbytes:
        return None
    if leaf.kind == "numpy":
        numpy = sys.modules["numpy"]
        return memoryview(value.reshape(-1).view(numpy.uint8)) if value.flags.c_contiguous else None
    if value.device.type != "cpu" or not value.is_contiguous() or value.is_conj() or value.is_neg():
        return None
    torch = sys.modules["torch"]
    start = value.storage_offset() * value.element_size()
    whole = torch.empty(0, dtype=torch.uint8).set_(value.untyped_storage(), start, (leaf.nbytes,), (1,))
    return memoryview(whole.numpy())


def clone(value: Any) -> Any:
    """Return the elements in memory of their own."""
    return value.copy() if _is_array(value) else value.detach().clone()


def copy(destination: Any, source: Any) -> None:
    """Write the elements of ``source``, which has the same dtype and shape; nothing where they are there already."""
    if span_of(destination) == span_of(source) and not _is_flagged(destination) and not _is_flagged(source):
        return
    if not _is_array(source):
        # Streams of the caller's that this thread cannot see may still use the tensor, and will use it next.
        settle(space_of(destination))
        # Not a view of the graph of a backward pass, whatever the caller's tensor is.
        destination.detach().copy_(source.detach())
        settle(space_of(destination))
    else:
        sys.modules["numpy"].copyto(destination, source, casting="no")


def _is_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _is_flagged(value: Any) -> bool:
    """Tell whether the elements are not those that the memory holds."""
    return hasattr(value, "is_conj") and bool(value.is_conj() or value.is_neg())
