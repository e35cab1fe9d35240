"""How the page writes things: escaped text, sizes, durations, numbers."""

from __future__ import annotations

import html
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

__all__ = ["NONE", "clipped", "count", "duration", "escape", "instant", "metadata_cell", "number", "size"]

NONE = "\N{EN DASH}"
"""Where there is nothing to tell."""

MAX_NAME_CHARS = 120
MAX_VALUE_CHARS = 80
MAX_PAIRS = 12

# HTML has no way to write these, and some would turn the text around them.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")

# Unit and its seconds, the smaller unit and its seconds, and where the next step begins.
_LONG = (
    ("min", 60, "s", 1, 3600.0),
    ("h", 3600, "min", 60, 172800.0),
    ("d", 86400, "h", 3600, math.inf),
)


def escape(text: object) -> str:
    """Return text that is only text, in an element and in an attribute."""
    return html.escape(_UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(text)), quote=True)


def clipped(text: str, max_chars: int = MAX_NAME_CHARS) -> str:
    """Return the escaped text, or its beginning with an ellipsis."""
    return escape(text if len(text) <= max_chars else text[: max_chars - 1] + "\N{HORIZONTAL ELLIPSIS}")


def size(n_bytes: int) -> str:
    """Return bytes in binary units with three digits at least: ``1.50 MiB``."""
    power = max(0, min(5, (int(n_bytes).bit_length() - 1) // 10))
    unit = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")[power]
    value = n_bytes / 1024**power
    return f"{value:.{0 if power == 0 or value >= 100 else 1 if value >= 10 else 2}f} {unit}"


def duration(seconds: float | None) -> str:
    """Return a time as a person would say it: ``12 ms``, ``3.4 s``, ``5 min 20 s``, ``2 h 5 min``."""
    if seconds is None:
        return NONE
    if seconds < 0.0995:
        return f"{max(0.0, seconds) * 1000:.{1 if 0 < seconds < 0.00995 else 0}f} ms"
    if seconds < 59.95:
        return f"{seconds:.{2 if seconds < 9.995 else 1}f} s"
    whole = round(seconds)
    unit, per_unit, small, per_small, _ = next(step for step in _LONG if whole < step[-1])
    many, rest = divmod(whole, per_unit)
    few = rest // per_small
    return f"{many} {unit} {few} {small}" if few else f"{many} {unit}"


def number(value: float) -> str:
    """Return a number in few digits."""
    if isinstance(value, int) and abs(value) < 10**9:
        return str(value)
    try:
        return f"{float(value):.4g}"
    except OverflowError:  # an int that no float holds
        return f"about 1e{len(str(abs(value))) - 1}" if abs(value) < 10**1000 else "a huge number"


def count(n: int, one: str, many: str = "") -> str:
    """Return ``1 checkpoint``, ``2,000 checkpoints``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def instant(iso: str) -> str:
    """Return an ISO 8601 time in UTC as date and time to the second."""
    return escape(iso[:19].replace("T", " ")) if iso else NONE


def metadata_cell(metadata: Mapping[str, Any]) -> str:
    """Return a mapping's pairs, bounded in number and length."""
    pairs = [
        f'<span class="pair"><b>{clipped(str(key), 40)}</b> {clipped(_value(value), MAX_VALUE_CHARS)}</span>'
        for key, value in list(metadata.items())[:MAX_PAIRS]
    ]
    left = len(metadata) - len(pairs)
    if left:
        pairs.append(f'<span class="pair muted">and {left:,} more</span>')
    return " ".join(pairs) or NONE


def _value(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return number(value) if math.isfinite(value) else str(value)
    if isinstance(value, int):
        return number(value)
    if isinstance(value, str):
        return value
    return _SHORT.repr(value)


class _Short(reprlib.Repr):
    """What is not a plain value is named only: its repr may cost anything."""

    def repr_instance(self, x: object, level: int) -> str:
        return f"<{type(x).__name__}>"


_SHORT = _Short()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 8
