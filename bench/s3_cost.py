"""``python -m bench.s3_cost``: what an S3 client costs, per GB, against a server that costs almost nothing.

Every round of every client runs in a process of its own, interleaved and in
shuffled order. CPU is that of the client's process, user and system, of all
its threads; GB are decimal.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from bench.machine import describe_machine

__all__ = ["CLIENTS", "main"]

OBJECT_BYTES = 8 << 20
CONCURRENCY = 8
GOALS = {"put": 0.6, "get": 0.9}
"""Seconds of CPU per GB that ours may cost at most."""

_CREDENTIALS = {"aws_access_key_id": "bench", "aws_secret_access_key": "bench"}

Cost = dict[str, dict[str, float]]


def _keys(n_objects: int) -> list[str]:
    return [f"bench/{OBJECT_BYTES}_{number}" for number in range(n_objects)]


def _payload() -> bytes:
    return random.Random(0).randbytes(OBJECT_BYTES)


def _metered(what: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    what()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


async def _metered_all(jobs: Sequence[Callable[[], Any]]) -> dict[str, float]:
    """Run the jobs, CONCURRENCY at once."""
    source = iter(jobs)

    async def work() -> None:
        for job in source:
            await job()

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}


def _ours(endpoint: str, n_objects: int) -> Cost:
    from ckptstore import StoreConfig
    from ckptstore.backends import open_backend

    data, keys = _payload(), _keys(n_objects)
    idle = [memoryview(bytearray(OBJECT_BYTES)) for _ in range(CONCURRENCY)]

    async def run(executor: ThreadPoolExecutor) -> Cost:
        backend = await open_backend(
            "s3://bench/store",
            config=StoreConfig(),
            executor=executor,
            endpoint_url=endpoint,
            region="us-east-1",
            access_key_id="bench",
            secret_access_key="bench",
        )
        try:
            await backend.put("bench/10_warm", b"warm")

            async def get(key: str) -> None:
                buffer = idle.pop()  # as the store does: into memory that is used again
                await backend.get_into(key, buffer)
                idle.append(buffer)

            return {
                "put": await _metered_all([partial(backend.put, key, data) for key in keys]),
                "get": await _metered_all([partial(get, key) for key in keys]),
            }
        finally:
            await backend.aclose()

    with ThreadPoolExecutor(2) as executor:
        return asyncio.run(run(executor))


def _aiobotocore(endpoint: str, n_objects: int) -> Cost:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    data, keys = _payload(), _keys(n_objects)

    async def measure() -> Cost:
        config = AioConfig(max_pool_connections=CONCURRENCY)
        async with get_session().create_client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", config=config, **_CREDENTIALS
        ) as client:

            async def get(key: str) -> None:
                answer = await client.get_object(Bucket="bench", Key=key)
                async with answer["Body"] as body:
                    await body.read()

            await client.put_object(Bucket="bench", Key="10_warm", Body=b"warm")
            return {
                "put": await _metered_all(
                    [partial(client.put_object, Bucket="bench", Key=key, Body=data) for key in keys]
                ),
                "get": await _metered_all([partial(get, key) for key in keys]),
            }

    return asyncio.run(measure())


def _boto3(endpoint: str, n_objects: int) -> Cost:
    import boto3
    from botocore.config import Config

    data, keys = _payload(), _keys(n_objects)
    config = Config(max_pool_connections=CONCURRENCY)
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config, **_CREDENTIALS)
    client.put_object(Bucket="bench", Key="10_warm", Body=b"warm")
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return {
            "put": _metered(
                lambda: list(
                    pool.map(lambda key: client.put_object(Bucket="bench", Key=key, Body=data), keys)
                )
            ),
            "get": _metered(
                lambda: list(
                    pool.map(lambda key: client.get_object(Bucket="bench", Key=key)["Body"].read(), keys)
                )
            ),
        }


CLIENTS: dict[str, Callable[[str, int], Cost]] = {
    "ours": _ours,
    "aiobotocore": _aiobotocore,
    "boto3 in threads": _boto3,
}


def _round(client: str, endpoint: str, n_objects: int) -> Cost:
    done = subprocess.run(
        [sys.executable, "-m", "bench.s3_cost", "--child", client, endpoint, str(n_objects)],
        check=True,
        capture_output=True,
        text=True,
    )
    cost: Cost = json.loads(done.stdout)
    return cost


def measure(n_objects: int, rounds: int, *, seed: int = 0) -> dict[str, list[Cost]]:
    """Return the costs of each client, a round each."""
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.null_s3"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        if server.stdout is None:
            raise AssertionError("a pipe was asked for")
        endpoint = f"http://127.0.0.1:{int(server.stdout.readline())}"
        costs: dict[str, list[Cost]] = {client: [] for client in CLIENTS}
        order = random.Random(seed)
        for _ in range(rounds):
            for client in order.sample(list(CLIENTS), len(CLIENTS)):
                costs[client].append(_round(client, endpoint, n_objects))
    finally:
        server.communicate()
    return costs


def render(costs: dict[str, list[Cost]], n_objects: int) -> str:
    """Return the table, and whether the goals are met."""
    gigabytes = n_objects * OBJECT_BYTES / 1e9

    def median(client: str, verb: str, figure: str) -> float:
        return statistics.median(cost[verb][figure] for cost in costs[client]) / gigabytes

    lines = [
        "| client | PUT CPU s/GB | ratio to ours | PUT GB/s | GET CPU s/GB | ratio to ours | GET GB/s |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for client in costs:
        cells = [client]
        for verb in ("put", "get"):
            cpu = median(client, verb, "cpu_s")
            cells += [
                f"{cpu:.2f}",
                f"{cpu / median('ours', verb, 'cpu_s'):.2f}",
                f"{1 / median(client, verb, 'wall_s'):.2f}",
            ]
        lines.append("| " + " | ".join(cells) + " |")
    for verb, limit in GOALS.items():
        cpu = median("ours", verb, "cpu_s")
        lines.append(
            f"{verb.upper()} at most {limit} s/GB: {'met' if cpu <= limit else 'NOT met'} ({cpu:.2f})"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.s3_cost", description=__doc__)
    parser.add_argument("--objects", type=int, default=128, help="objects of 8 MiB (128: 1.07 GB)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="keep every figure there")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        client, endpoint, n_objects = options.child
        print(json.dumps(CLIENTS[client](endpoint, int(n_objects))))
        return
    costs = measure(options.objects, options.rounds)
    print(render(costs, options.objects))
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(
                {"machine": describe_machine("."), "objects": options.objects, "costs": costs}, file, indent=1
            )


if __name__ == "__main__":
    main()
