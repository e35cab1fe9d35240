"""What this process may use of the machine: processors and memory, within its control groups."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_cores", "usable_memory_bytes"]


def usable_cores(root: Path = Path("/")) -> int:
    """Return how many processors this process may keep busy: by affinity, and by the quota of its control groups.

    A quota of one and a half processors counts as two. ``root`` is where
    ``proc`` and ``sys`` are looked up.
    """
    if hasattr(os, "process_cpu_count"):  # Python 3.13: honours PYTHON_CPU_COUNT too
        cores = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quotas = [quota for group in _groups(root, "cpu") if (quota := _quota(group)) is not None]
    return max(1, min(cores, *(math.ceil(quota) for quota in quotas)) if quotas else cores)


def usable_memory_bytes(root: Path = Path("/")) -> int | None:
    """Return how much memory this process may use at most, None if that cannot be told."""
    limits = []
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no sysconf, or not these names
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for group in _groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limits += _numbers(group / name)[:1]
    return min((limit for limit in limits if limit > 0), default=None)


def _quota(group: Path) -> float | None:
    """Processors that the group may use, None without a limit."""
    numbers = _numbers(group / "cpu.max") or [
        *_numbers(group / "cpu.cfs_quota_us"),
        *_numbers(group / "cpu.cfs_period_us"),
    ]
    if len(numbers) == 2 and min(numbers) > 0:  # -1 or "max" for no limit
        return numbers[0] / numbers[1]
    return None


def _numbers(path: Path) -> list[int]:
    """The integers at the start of a file, none if there is no such file."""
    found: list[int] = []
    with contextlib.suppress(OSError, ValueError):
        for word in path.read_text().split():
            found.append(int(word))
    return found


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of the process's control group and those above it, of version 1 and 2.

    See cgroups(7) and proc(5): ``/proc/self/cgroup`` names the group in each
    hierarchy, ``/proc/self/mountinfo`` where the hierarchy can be seen, which
    in a container may be from its own group on.
    """
    names: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        for one in controllers.split(","):
            names["" if number == "0" else one] = name
    for line in _lines(root / "proc/self/mountinfo"):
        mounted, _, what = line.partition(" - ")
        places, words = mounted.split()[3:5], what.split()
        if len(places) < 2 or not words:
            continue
        kind, options = words[0], words[-1].split(",")
        if kind == "cgroup2" or (kind == "cgroup" and controller in options):
            name = names.get("" if kind == "cgroup2" else controller, "")
            yield from _upwards(root / places[1].lstrip("/"), os.path.relpath(name or "/", places[0]))


def _upwards(mount: Path, inside: str) -> Iterator[Path]:
    """Yield the directory ``inside`` a mount, if it is there to be seen, and those above it."""
    group = mount if inside.startswith("..") else mount / inside
    while group != mount:
        yield group
        group = group.parent
    yield mount


def _lines(path: Path) -> list[str]:
    with contextlib.suppress(OSError, ValueError):
        return path.read_text().splitlines()
    return []
