"""S3 clients as their users use them: what each makes of many objects of one size."""

from __future__ import annotations

import asyncio
import importlib
import io
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.s3_server import BUCKET, CREDENTIALS, REGION

__all__ = [
    "CLIENTS",
    "CONCURRENCY",
    "Client",
    "Cost",
    "Job",
    "boto3_client",
    "s5cmd_command",
    "s5cmd_environment",
]

CONCURRENCY = 8

Cost = dict[str, dict[str, float]]
"""put, get -> wall_s, cpu_s"""


@dataclass(frozen=True, slots=True)
class Job:
    """What a client has to do: put the payload under every key, get them all again."""

    endpoint_url: str
    keys: Sequence[str]
    payload: bytes


@dataclass(frozen=True, slots=True)
class Client:
    """A row of the registry."""

    run: Callable[[Job], Cost]
    needs: tuple[str, ...] = ()
    """Packages without which it is skipped."""


def boto3_client(endpoint_url: str, **config: Any) -> Any:
    """A client of the benchmark's server."""
    boto3: Any = importlib.import_module("boto3")
    botocore: Any = importlib.import_module("botocore.config")
    return boto3.client(
        "s3",
        endpoint_url=endpoint_url,
        region_name=REGION,
        config=botocore.Config(s3={"addressing_style": "path"}, **config),
        **CREDENTIALS,
    )


def s5cmd_command(endpoint_url: str) -> list[str] | None:
    """The program, its endpoint given; None if it is not here."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    program = shutil.which("s5cmd", path=places)
    return None if program is None else [program, "--endpoint-url", endpoint_url]


def s5cmd_environment() -> dict[str, str]:
    """What it reads from its environment."""
    return {name.upper(): value for name, value in CREDENTIALS.items()} | {"AWS_REGION": REGION}


def _cpu_s() -> float:
    """Of this process and of its children that ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _metered(what: Callable[[], object]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), _cpu_s()
    what()
    return {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_s() - cpu}


async def _metered_all(jobs: Sequence[Callable[[], Any]]) -> dict[str, float]:
    """Run the jobs, CONCURRENCY at once."""
    source = iter(jobs)

    async def work() -> None:
        for job in source:
            await job()

    wall, cpu = time.perf_counter(), _cpu_s()
    await asyncio.gather(*(work() for _ in range(CONCURRENCY)))
    return {"wall_s": time.perf_counter() - wall, "cpu_s": _cpu_s() - cpu}


def _ours(job: Job) -> Cost:
    from ckptstore import StoreConfig
    from ckptstore.backends import open_backend

    idle = [memoryview(bytearray(len(job.payload))) for _ in range(CONCURRENCY)]

    async def run(executor: ThreadPoolExecutor) -> Cost:
        backend = await open_backend(
            f"s3://{BUCKET}/store",
            config=StoreConfig(),
            executor=executor,
            endpoint_url=job.endpoint_url,
            region=REGION,
            access_key_id=CREDENTIALS["aws_access_key_id"],
            secret_access_key=CREDENTIALS["aws_secret_access_key"],
        )
        try:
            await backend.put("bench/10_warm", b"warm")

            async def get(key: str) -> None:
                buffer = idle.pop()  # as the store does: into memory that is used again
                await backend.get_into(key, buffer)
                idle.append(buffer)

            return {
                "put": await _metered_all([partial(backend.put, key, job.payload) for key in job.keys]),
                "get": await _metered_all([partial(get, key) for key in job.keys]),
            }
        finally:
            await backend.aclose()

    with ThreadPoolExecutor(2) as executor:
        return asyncio.run(run(executor))


def _aiobotocore(job: Job) -> Cost:
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    async def measure() -> Cost:
        config = AioConfig(max_pool_connections=CONCURRENCY)
        async with get_session().create_client(
            "s3", endpoint_url=job.endpoint_url, region_name=REGION, config=config, **CREDENTIALS
        ) as client:

            async def get(key: str) -> None:
                answer = await client.get_object(Bucket=BUCKET, Key=key)
                async with answer["Body"] as body:
                    await body.read()

            await client.put_object(Bucket=BUCKET, Key="10_warm", Body=b"warm")
            puts = [partial(client.put_object, Bucket=BUCKET, Key=key, Body=job.payload) for key in job.keys]
            return {
                "put": await _metered_all(puts),
                "get": await _metered_all([partial(get, key) for key in job.keys]),
            }

    return asyncio.run(measure())


def _in_threads(job: Job, put: Callable[[str], object], get: Callable[[str], object]) -> Cost:
    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return {
            "put": _metered(lambda: list(pool.map(put, job.keys))),
            "get": _metered(lambda: list(pool.map(get, job.keys))),
        }


def _boto3(job: Job) -> Cost:
    client = boto3_client(job.endpoint_url, max_pool_connections=CONCURRENCY)
    client.put_object(Bucket=BUCKET, Key="10_warm", Body=b"warm")
    return _in_threads(
        job,
        lambda key: client.put_object(Bucket=BUCKET, Key=key, Body=job.payload),
        lambda key: client.get_object(Bucket=BUCKET, Key=key)["Body"].read(),
    )


def _transfer_manager(job: Job) -> Cost:
    """`upload_fileobj` and `download_fileobj`, with the defaults of the TransferManager behind them."""
    # A transfer of more than 8 MiB has ten connections of its own.
    client = boto3_client(job.endpoint_url, max_pool_connections=10 * CONCURRENCY)
    client.put_object(Bucket=BUCKET, Key="10_warm", Body=b"warm")
    return _in_threads(
        job,
        lambda key: client.upload_fileobj(io.BytesIO(job.payload), BUCKET, key),
        lambda key: client.download_fileobj(BUCKET, key, io.BytesIO()),
    )


def _obstore(job: Job) -> Cost:
    obstore: Any = importlib.import_module("obstore")
    store = importlib.import_module("obstore.store").S3Store(
        BUCKET,
        endpoint=job.endpoint_url,
        region=REGION,
        access_key_id=CREDENTIALS["aws_access_key_id"],
        secret_access_key=CREDENTIALS["aws_secret_access_key"],
        client_options={"allow_http": True},
    )

    obstore.put(store, "10_warm", b"warm")
    # In threads: after its awaitables the interpreter's end aborts, now and then.
    return _in_threads(
        job,
        lambda key: obstore.put(store, key, job.payload),
        lambda key: obstore.get(store, key).bytes(),
    )


def _s5cmd(job: Job) -> Cost:
    """One process for all puts and one for all gets, files on both ends: it knows no memory."""
    command = s5cmd_command(job.endpoint_url)
    if command is None:
        raise ImportError("there is no program s5cmd")
    environment = os.environ | s5cmd_environment()
    with tempfile.TemporaryDirectory(prefix="ckptstore-bench-") as folder:
        names = [key.rpartition("/")[2] for key in job.keys]
        for name in names:
            Path(folder, name).write_bytes(job.payload)

        def run(lines: Sequence[str]) -> None:
            subprocess.run(
                [*command, "--numworkers", str(CONCURRENCY), "run"],
                input="\n".join(lines),
                text=True,
                check=True,
                stdout=subprocess.DEVNULL,
                env=environment,
            )

        puts = [f"cp {folder}/{name} s3://{BUCKET}/{key}" for name, key in zip(names, job.keys, strict=True)]
        gets = [f"cp s3://{BUCKET}/{key} {folder}/{name}" for name, key in zip(names, job.keys, strict=True)]
        return {"put": _metered(lambda: run(puts)), "get": _metered(lambda: run(gets))}


CLIENTS: Mapping[str, Client] = {
    "ours": Client(_ours, ("aiobotocore",)),
    "aiobotocore": Client(_aiobotocore, ("aiobotocore",)),
    "boto3 in threads": Client(_boto3, ("boto3",)),
    "boto3 TransferManager": Client(_transfer_manager, ("boto3",)),
    "obstore": Client(_obstore, ("obstore",)),
    "s5cmd": Client(_s5cmd, ("s5cmd",)),
}
