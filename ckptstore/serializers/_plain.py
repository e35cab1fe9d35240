"""The check of the plainest nodes, of which there may be a hundred thousand: contiguous arrays and tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore.config import Limits
from ckptstore.serializers.dtypes import torch_itemsize
from ckptstore.serializers.graph import PARAMETER, REQUIRES_GRAD

__all__ = ["PLAIN", "plain_extent"]

PLAIN = frozenset({"array", "tensor"})
"""Tags of the nodes that may be plain."""


def plain_extent(
    node: list[Any], block_sizes: Sequence[int], itemsizes: Mapping[str, int], limits: Limits
) -> int | None:
    """Return how far an array or tensor reaches into its block, in bytes from the block's start.

    None unless it is sound, contiguous, on the CPU, of a dtype that ``torch`` or
    ``itemsizes`` knows, has elements, and lies in a block of its own field. What
    is wrong with any other, if anything is, its full check tells.

    ``node`` has a tag of ``PLAIN`` and as many parts as that tag has.
    """
    _, desc, shape, strides, block, offset, *rest = node
    if type(desc) is not str or type(shape) is not list or len(shape) > limits.max_dims:
        return None
    if strides is not None or type(block) is not int or type(offset) is not int:
        return None
    if node[0] == "tensor":
        device, flags = rest
        end = torch_itemsize(desc)
        if device != "cpu" or type(flags) is not int or flags & ~(REQUIRES_GRAD | PARAMETER):
            return None
    else:
        end = itemsizes.get(desc)
        if type(rest[0]) is not bool:
            return None
    if not end or offset < 0 or not 0 <= block < len(block_sizes):
        return None
    for n in shape:
        if type(n) is not int or n <= 0:
            return None
        end *= n
    end += offset
    return end if end <= block_sizes[block] else None
