"""A real S3 server for a benchmark: SeaweedFS, if its program is here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["BUCKET", "CREDENTIALS", "REGION", "S3Server", "count_requests", "s3_server"]

BUCKET = "bench"
REGION = "us-east-1"
CREDENTIALS = {
    "aws_access_key_id": "key-of-the-benchmark",
    "aws_secret_access_key": "secret-of-the-benchmark",
}
_READY_S = 60.0


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server."""

    endpoint_url: str
    metrics_url: str

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which Metaflow uses it."""
        return {
            "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "METAFLOW_S3_ENDPOINT_URL": self.endpoint_url,
            "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{BUCKET}/metaflow",
        }


def count_requests(metrics_url: str) -> Counter[str] | None:
    """S3 requests that the server got by now, by their kind (GET, PUT, …); None without a server."""
    if not metrics_url:
        return None
    with urllib.request.urlopen(metrics_url, timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    counts: Counter[str] = Counter()
    for line in lines:
        if found := re.match(r'SeaweedFS_s3_request_total{.*type="(\w+)".*} (\S+)$', line):
            counts[found[1]] += int(float(found[2]))
    return counts


@contextlib.contextmanager
def s3_server() -> Iterator[S3Server | None]:
    """Run a server; None if there is no ``weed``."""
    program = shutil.which(
        "weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ckptstore-bench-s3-") as folder:
        identity = {
            "name": "bench",
            "credentials": [
                {
                    "accessKey": CREDENTIALS["aws_access_key_id"],
                    "secretKey": CREDENTIALS["aws_secret_access_key"],
                }
            ],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        Path(folder, "s3.json").write_text(json.dumps({"identities": [identity]}))
        port, metrics_port = _free_port(), _free_port()
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(
                _command(program, folder, port, metrics_port),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
            )
        try:
            _await_answer(process, port, Path(folder, "log"))
            yield S3Server(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}/metrics")
        finally:
            process.kill()
            process.wait()


def _command(program: str, folder: str, port: int, metrics_port: int) -> list[str]:
    others = {name: _free_port() for name in ("master", "volume", "filer", "admin")}
    return [
        program,
        f"-logdir={folder}",
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={port}",
        f"-metricsPort={metrics_port}",
        *(f"-{name}.port={other}" for name, other in others.items()),
        f"-s3.config={folder}/s3.json",
        f"-bucket={BUCKET}",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
    ]


def _free_port() -> int:
    """A port whose neighbour 10000 above, which the server takes for itself, is one too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port: int = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 10_000))
                return port


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until_s = time.monotonic() + _READY_S
    while time.monotonic() < until_s and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{BUCKET}", timeout=5).close()
        except urllib.error.HTTPError as answer:
            if answer.code == 403:  # it is there, and asks who we are
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}")
