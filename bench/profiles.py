"""``python -m bench --profile quick --out DIR``: every part of the benchmark, tables and plots, in one go."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from bench.harness import is_installed
from bench.plots import plot

__all__ = ["PROFILES", "run_profile"]

PAGE = "tables.md"

_BESIDE = "ours ours-background ours-raw torch-fsync pickle-fsync incumbent-fsync copy"
_MODEL = (
    "ours ours-background ours-reserved ours-planes ours-raw ours-raw-background torch torch-fsync torch-mmap "
    "safetensors-fsync dcp dcp-async torchsnapshot-fsync torchsnapshot-async orbax-fsync incumbent "
    "incumbent-fsync copy hash disk"
)
_LOOPS = (
    "no-save ours-background ours-raw-background dcp-async torchsnapshot-async orbax torch-fsync incumbent"
)
_OTHERS = "bf16 lora embedding many-small objects tabular tokens counter"
_ON_S3 = "s3-ours s3-ours-background s3-torch-boto3 s3-torch-obstore s3-torch-s5cmd s3-pickle-metaflow"

Profile = Mapping[str, str]
"""part -> module and arguments"""

PROFILES: Mapping[str, Profile] = {
    "toy": {
        "model": "bench --size 256KiB --rounds 1 --workload arrays --system ours ours-raw copy hash",
        "growth": "bench.growth --tensors 100 200 --chunks 100 200 --rounds 1",
        "training": "bench.training --size 256KiB --saves 2 --steps 2 --threads 1 --rounds 1 "
        "--system no-save ours-background",
        "s3-clients": "bench.s3_cost --objects 2 --rounds 1 --null-only",
    },
    "quick": {
        "model": f"bench --size 256MiB --rounds 3 --workload torch --system {_MODEL}",
        "others": f"bench --size 32MiB --rounds 1 --workload {_OTHERS} --system {_BESIDE}",
        "s3-states": f"bench --backend s3 --size 64MiB --rounds 1 --workload torch --system {_ON_S3}",
        "s3-clients": "bench.s3_cost --objects 32 --rounds 2",
        "training": f"bench.training --size 64MiB --saves 3 --steps 10 --rounds 1 --system {_LOOPS}",
        "growth": "bench.growth --tensors 1000 10000 100000 --chunks 10000 100000 --rounds 1",
    },
    "full": {
        "model": "bench --size 2GiB --rounds 5 --workload torch",
        "bf16": "bench --size 1GiB --rounds 5 --workload bf16",
        "changes": f"bench --size 512MiB --rounds 5 --workload lora embedding --system {_MODEL}",
        "others": f"bench --size 256MiB --rounds 5 --workload {_OTHERS} --system {_BESIDE}",
        "s3-states": "bench --backend s3 --size 1GiB --rounds 5 --workload torch",
        "s3-clients": "bench.s3_cost --objects 128 --rounds 5",
        "training": f"bench.training --size 256MiB --rounds 5 --system {_LOOPS}",
        "growth": "bench.growth --rounds 3",
    },
}


def run_profile(
    name: str, folder: str, *, scratch: str | None = None, say: Callable[[str], None] = lambda line: None
) -> int:
    """Runs the parts one after another; `folder` gets a JSON file each, the plots, and a page of all tables.

    `scratch`: where the files of the states go. Returns 1 when a part failed,
    whose reason is then on the page.
    """
    os.makedirs(folder, exist_ok=True)
    records: dict[str, Any] = {}
    sections: list[str] = []
    status = 0
    for part, command in PROFILES[name].items():
        kept = os.path.join(folder, f"{part}.json")
        arguments = ["-m", *command.split(), "--json", kept]
        if scratch is not None and not command.startswith(("bench.growth", "bench.s3_cost")):
            arguments += ["--dir", scratch]
        shown = f"python -m {command}"
        say(shown)
        started_s = time.monotonic()
        # The rounds are told on stderr, as they come.
        done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)
        section = f"# {part}\n\n`{shown}`, {time.monotonic() - started_s:.0f} s\n\n"
        if done.returncode:
            status = 1
            section += f"FAILED: {shlex.join(arguments)} ended with {done.returncode}\n\n"
        if os.path.exists(kept):
            with open(kept, encoding="utf-8") as file:
                records[part] = json.load(file)
        sections.append(section + done.stdout.strip() + "\n")
    if is_installed("matplotlib"):
        drawn = plot(records, folder)
        sections.append("# plots\n\n" + "".join(f"![{one}]({one})\n" for one in drawn))
    else:
        sections.append("# plots\n\nNone: matplotlib is not installed.\n")
    with open(os.path.join(folder, PAGE), "w", encoding="utf-8") as file:
        file.write(_about(records) + "\n".join(sections))
    return status


def _about(records: Mapping[str, Any]) -> str:
    machine = next((record["machine"] for record in records.values()), None)
    if machine is None:
        return ""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return (
        f"{machine['cpu']}, {machine['n_cores']} cores, {machine['memory_bytes'] / (1 << 30):.1f} GiB, "
        f"{machine['system']}, {machine['file_system']}, Python {machine['python']}, "
        f"commit {machine['commit']}; {packages}.\n\n"
    )
