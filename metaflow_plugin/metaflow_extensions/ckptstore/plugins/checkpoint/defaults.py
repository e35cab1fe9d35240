"""The decorator's arguments and their defaults, all that Metaflow needs to know before a flow has the decorator."""

from __future__ import annotations

from typing import Any

__all__ = ["DEFAULTS"]

DEFAULTS: dict[str, Any] = {
    "load_policy": "fresh",
    "include": None,
    "exclude": None,
    "temp_dir_root": None,
    "show_card": True,
    "background": False,
    "keep": None,
    "on_preemption": "finish",
    "sigterm": False,
}
