"""``python -m bench --profile quick --out DIR``: every part of the benchmark, tables and plots, in one go."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from bench.harness import is_installed
from bench.plots import plot
from bench.verdicts import table_of_goals

__all__ = ["PROFILES", "run_profile"]

PAGE = "tables.md"

_BESIDE = "ours ours-background ours-raw torch-fsync pickle-fsync incumbent-fsync copy"
_MODEL = (
    "ours ours-background ours-reserved ours-planes ours-raw ours-raw-background torch torch-fsync torch-mmap "
    "safetensors-fsync dcp dcp-async torchsnapshot-fsync torchsnapshot-async orbax-fsync incumbent "
    "incumbent-fsync copy hash disk"
)
_GOALS = (
    "ours ours-background ours-reserved ours-planes ours-raw torch torch-fsync dcp dcp-async "
    "torchsnapshot-fsync orbax-fsync incumbent incumbent-fsync copy hash disk"
)
_LOOPS = (
    "no-save ours-background ours-raw-background dcp-async torchsnapshot-async orbax torch-fsync incumbent"
)
_OTHERS = "bf16 lora embedding objects tabular tokens"
_ON_S3 = "s3-ours s3-ours-background s3-torch-boto3 s3-torch-obstore s3-torch-s5cmd s3-pickle-metaflow"
_PACKAGE = "incumbent incumbent-fsync incumbent-package incumbent-package-fsync"
_COUNTER = (
    "bench --size 1KiB --workload counter --system ours ours-os torch-fsync pickle pickle-fsync incumbent"
)
_PARTS = "ours torch-mmap safetensors torch-fsync"

Profile = Mapping[str, str]
"""part -> module and arguments"""

PROFILES: Mapping[str, Profile] = {
    "toy": {
        "model": "bench --size 256KiB --rounds 1 --workload arrays --system ours ours-raw copy hash",
        "many": "bench --size 256KiB --rounds 1 --workload torch many-small --system ours",
        "random": "bench --size 256KiB --rounds 1 --workload random --system ours-planes ours-raw",
        "counter": "bench --size 1KiB --rounds 1 --workload counter --system ours-os",
        "codecs": "bench.codecs --chunks 1 --rounds 1",
        "growth": "bench.growth --tensors 100 200 --chunks 100 200 --rounds 1",
        "training": "bench.training --size 256KiB --saves 2 --steps 2 --threads 1 --rounds 1 "
        "--system no-save ours-background",
        "s3-clients": "bench.s3_cost --objects 2 --rounds 1 --null-only",
    },
    "quick": {
        "model": f"bench --size 256MiB --rounds 3 --workload torch --system {_MODEL}",
        "package": f"bench --size 64MiB --rounds 2 --workload torch --system ours {_PACKAGE}",
        "others": f"bench --size 32MiB --rounds 1 --workload {_OTHERS} --system {_BESIDE}",
        "many": f"bench --size 64MiB --rounds 2 --workload torch many-small --system {_PARTS}",
        "random": "bench --size 64MiB --rounds 3 --workload random --system ours-planes ours-raw",
        "counter": f"{_COUNTER} --rounds 3",
        "codecs": "bench.codecs --chunks 2 --rounds 3",
        "s3-states": f"bench --backend s3 --size 64MiB --rounds 1 --workload torch --system {_ON_S3}",
        "s3-small": "bench --backend s3 --size 4MiB --rounds 2 --workload counter many-small --system s3-ours",
        "s3-clients": "bench.s3_cost --objects 32 --rounds 2",
        "training": f"bench.training --size 64MiB --saves 3 --steps 10 --rounds 1 --system {_LOOPS}",
        "growth": "bench.growth --tensors 1000 10000 100000 --chunks 10000 100000 --rounds 1",
    },
    # What is promised, and what it is held against, at the sizes that the promises name; nothing else.
    "goals": {
        "model": f"bench --size 2GiB --rounds 3 --workload torch --system {_GOALS}",
        "many": "bench --size 2GiB --rounds 3 --workload torch many-small --system ours",
        "package": f"bench --size 512MiB --rounds 3 --workload torch --system ours ours-background {_PACKAGE}",
        "changes": "bench --size 512MiB --rounds 3 --workload lora embedding --system ours",
        "bf16": "bench --size 512MiB --rounds 3 --workload bf16 --system ours-planes",
        "random": "bench --size 512MiB --rounds 5 --workload random --system ours-planes ours-raw",
        "counter": "bench --size 1KiB --rounds 20 --workload counter --system ours-os",
        "s3-small": "bench --backend s3 --size 64MiB --rounds 3 --workload counter many-small --system s3-ours",
        "codecs": "bench.codecs --chunks 8 --rounds 5",
        "s3-clients": "bench.s3_cost --objects 64 --rounds 3 --null-only",
        "training": "bench.training --size 128MiB --rounds 3 --system no-save ours-background dcp-async",
        "growth": "bench.growth --tensors 10000 100000 --chunks 100000 1000000 --rounds 1",
    },
    "full": {
        "model": "bench --size 2GiB --rounds 5 --workload torch",
        "bf16": "bench --size 1GiB --rounds 5 --workload bf16",
        "changes": f"bench --size 512MiB --rounds 5 --workload lora embedding --system {_MODEL}",
        "others": f"bench --size 256MiB --rounds 5 --workload {_OTHERS} --system {_BESIDE}",
        "many": f"bench --size 2GiB --rounds 5 --workload torch many-small --system {_PARTS}",
        "random": "bench --size 512MiB --rounds 5 --workload random --system ours-planes ours-raw",
        "counter": f"{_COUNTER} --rounds 20",
        "codecs": "bench.codecs --chunks 8 --rounds 5",
        "s3-states": "bench --backend s3 --size 1GiB --rounds 5 --workload torch",
        "s3-small": "bench --backend s3 --size 64MiB --rounds 5 --workload counter many-small --system s3-ours",
        "s3-clients": "bench.s3_cost --objects 128 --rounds 5",
        "training": f"bench.training --size 256MiB --rounds 5 --system {_LOOPS}",
        "growth": "bench.growth --rounds 3",
    },
}


def run_profile(
    name: str,
    folder: str,
    *,
    rounds: int | None = None,
    scratch: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> int:
    """Runs the parts one after another; `folder` gets a JSON file each, the plots, and a page of all tables.

    The page ends with the table of all goals. `rounds`: of every part, instead
    of its own. `scratch`: where the files of the states go. Returns 1 when a
    part failed, whose reason is then on the page.
    """
    os.makedirs(folder, exist_ok=True)
    records: dict[str, Any] = {}
    sections: list[str] = []
    status = 0
    for part, command in PROFILES[name].items():
        if rounds is not None:
            command = re.sub(r"--rounds \d+", f"--rounds {rounds}", command)
        kept = os.path.join(folder, f"{part}.json")
        arguments = ["-m", *command.split(), "--json", kept]
        if scratch is not None and not command.startswith(("bench.growth", "bench.s3_cost", "bench.codecs")):
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
    sections.append("# goals\n\n" + "\n".join(table_of_goals(_goals(records))) + "\n")
    with open(os.path.join(folder, PAGE), "w", encoding="utf-8") as file:
        file.write(_about(records) + "\n".join(sections))
    return status


def _goals(records: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """All verdicts, each with the size of its state."""
    for record in records.values():
        for row in record.get("goals", ()):
            state = record.get("states", {}).get(row["where"])
            where = row["where"] if state is None else f"{row['where']}, {_size(state['state_bytes'])}"
            yield {**row, "where": where}


def _size(nbytes: int) -> str:
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if nbytes >= 0.95 * unit:
            return f"{nbytes / unit:.1f} {name}"
    return f"{nbytes} B"


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
