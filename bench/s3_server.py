"""A real S3 server for a benchmark: SeaweedFS, if its program is here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

__all__ = ["s3_server"]

_BUCKET = "bench"
_KEY, _SECRET = "key-of-the-benchmark", "secret-of-the-benchmark"
_READY_S = 60.0


@contextlib.contextmanager
def s3_server() -> Iterator[dict[str, str] | None]:
    """Run a server; give the environment in which Metaflow uses it, or None if there is no ``weed``."""
    program = shutil.which(
        "weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if program is None:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="ckptstore-bench-s3-") as folder:
        identity = {
            "name": "bench",
            "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        Path(folder, "s3.json").write_text(json.dumps({"identities": [identity]}))
        port = _free_port()
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(
                _command(program, folder, port), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
            )
        try:
            _await_answer(process, port, Path(folder, "log"))
            yield {
                "AWS_ACCESS_KEY_ID": _KEY,
                "AWS_SECRET_ACCESS_KEY": _SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
                "METAFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "METAFLOW_DATASTORE_SYSROOT_S3": f"s3://{_BUCKET}/metaflow",
            }
        finally:
            process.kill()
            process.wait()


def _command(program: str, folder: str, port: int) -> list[str]:
    others = {name: _free_port() for name in ("master", "volume", "filer", "admin")}
    return [
        program,
        f"-logdir={folder}",
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.port={port}",
        *(f"-{name}.port={other}" for name, other in others.items()),
        f"-s3.config={folder}/s3.json",
        f"-bucket={_BUCKET}",
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
            urllib.request.urlopen(f"http://127.0.0.1:{port}/{_BUCKET}", timeout=5).close()
        except urllib.error.HTTPError as answer:
            if answer.code == 403:  # it is there, and asks who we are
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}")
