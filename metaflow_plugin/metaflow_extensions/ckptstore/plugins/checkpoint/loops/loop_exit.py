"""How a ``for`` was left: by ``break`` or ``return``, or by an exception that is on its way."""

from __future__ import annotations

import dis
import gc
from inspect import CO_GENERATOR
from types import FrameType, TracebackType

__all__ = ["is_left_by_choice"]

_AT_YIELD = frozenset({"YIELD_VALUE", "RESUME"})


def is_left_by_choice(frame: FrameType | None) -> bool:
    """Tell whether the ``for`` that runs in this frame drops its iterator in the normal flow of the code.

    To be asked in the iterator's ``__del__`` with the frame that drops it. Both
    ``break`` and an exception take the iterator off the frame's stack, and
    Python does not tell which. Two facts do, and both must hold:

    - the frame is at the instruction that pops one value, as compiled for
      ``break`` and ``return``; an exception is at the one that raised it;
    - no traceback holds the frame. One does as soon as an exception leaves an
      instruction, a signal's too, which can come at any instruction.

    A generator that is closed at its ``yield`` (tqdm and the like) was dropped
    by the frame below it, which is then looked at. False also says: not sure.
    """
    while frame is not None and frame.f_code.co_flags & CO_GENERATOR and _instruction(frame) in _AT_YIELD:
        frame = frame.f_back
    if frame is None or _instruction(frame) != "POP_TOP":
        return False
    return not any(isinstance(holder, TracebackType) for holder in gc.get_referrers(frame))


def _instruction(frame: FrameType) -> str:
    return dis.opname[frame.f_code.co_code[frame.f_lasti]] if frame.f_lasti >= 0 else ""
