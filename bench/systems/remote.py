"""Systems whose checkpoints lie on S3: our store, and a file that a client uploads."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
from typing import Any

from bench.s3_clients import boto3_client, s5cmd_command, s5cmd_environment
from bench.s3_server import BUCKET, CREDENTIALS, REGION
from bench.systems.base import System, Unavailable
from bench.systems.ours import Ours
from bench.workloads.compare import Values

__all__ = ["S3Files", "S3Ours", "stored_bytes"]


def stored_bytes(client: Any, prefix: str) -> int:
    """Sizes of all objects under the prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return sum(entry["Size"] for page in pages for entry in page.get("Contents", ()))


def _prefix(directory: str) -> str:
    return os.path.basename(directory.rstrip("/"))


class S3Ours(Ours):
    """`CheckpointStore` on a prefix of the bucket."""

    def __init__(self, directory: str, *, endpoint_url: str, **arguments: Any) -> None:
        self._client = boto3_client(endpoint_url)
        super().__init__(
            directory,
            url=f"s3://{BUCKET}/{_prefix(directory)}",
            options={
                "endpoint_url": endpoint_url,
                "region": REGION,
                "access_key_id": CREDENTIALS["aws_access_key_id"],
                "secret_access_key": CREDENTIALS["aws_secret_access_key"],
            },
            **arguments,
        )

    def stored_bytes(self) -> int:
        return stored_bytes(self._client, _prefix(self.directory))


class S3Files(System):
    """A file in a temporary place, written by torch.save or pickle, and a client that uploads it.

    A load downloads it whole and rebuilds the state; the file is removed after
    either, as its users have to.
    """

    def __init__(self, directory: str, *, endpoint_url: str, client: str, use_torch: bool) -> None:
        super().__init__(directory)
        self._boto3 = boto3_client(endpoint_url)
        self._prefix = _prefix(directory)
        self._torch: Any = importlib.import_module("torch") if use_torch else None
        self._mover = _MOVERS[client](self._boto3, endpoint_url)

    def save(self, values: Values) -> None:
        path = self.new_path(".file")
        with open(path, "wb") as file:
            if self._torch is None:
                pickle.dump(values, file, protocol=5)
            else:
                self._torch.save(values, file)
        self._mover.upload(path, self._key())
        os.unlink(path)

    def load(self) -> Values:
        path = self.last_path(".file")
        self._mover.download(self._key(), path)
        with open(path, "rb") as file:
            values: Values = (
                pickle.load(file) if self._torch is None else self._torch.load(file, weights_only=False)
            )
        os.unlink(path)
        return values

    def stored_bytes(self) -> int:
        return stored_bytes(self._boto3, self._prefix)

    def _key(self) -> str:
        return f"{self._prefix}/checkpoint-{self.n_saves}"


class _Boto3:
    """The TransferManager behind `upload_file` and `download_file`, with its defaults."""

    def __init__(self, client: Any, endpoint_url: str) -> None:
        self._client = client

    def upload(self, path: str, key: str) -> None:
        self._client.upload_file(path, BUCKET, key)

    def download(self, key: str, path: str) -> None:
        self._client.download_file(BUCKET, key, path)


class _S5cmd:
    """A process a transfer, with its defaults."""

    def __init__(self, client: Any, endpoint_url: str) -> None:
        command = s5cmd_command(endpoint_url)
        if command is None:
            raise Unavailable("there is no program s5cmd")
        self._command = command

    def upload(self, path: str, key: str) -> None:
        self._run("cp", path, f"s3://{BUCKET}/{key}")

    def download(self, key: str, path: str) -> None:
        self._run("cp", f"s3://{BUCKET}/{key}", path)

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            [*self._command, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            env=os.environ | s5cmd_environment(),
        )


class _Obstore:
    """`obstore.put` of the path, which goes in parts; `get` as a stream into the file."""

    def __init__(self, client: Any, endpoint_url: str) -> None:
        self._module: Any = importlib.import_module("obstore")
        self._store = importlib.import_module("obstore.store").S3Store(
            BUCKET,
            endpoint=endpoint_url,
            region=REGION,
            access_key_id=CREDENTIALS["aws_access_key_id"],
            secret_access_key=CREDENTIALS["aws_secret_access_key"],
            client_options={"allow_http": True},
        )

    def upload(self, path: str, key: str) -> None:
        with open(path, "rb") as file:
            self._module.put(self._store, key, file)

    def download(self, key: str, path: str) -> None:
        with open(path, "wb") as file:
            for part in self._module.get(self._store, key).stream(min_chunk_size=8 << 20):
                file.write(part)


class _Metaflow:
    """Metaflow's S3 client, as its datastore uses it: `put_files`, `get`."""

    def __init__(self, client: Any, endpoint_url: str) -> None:
        os.environ |= {
            "METAFLOW_S3_ENDPOINT_URL": endpoint_url,
            "AWS_ACCESS_KEY_ID": CREDENTIALS["aws_access_key_id"],
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS["aws_secret_access_key"],
            "AWS_DEFAULT_REGION": REGION,
            "USER": os.environ.get("USER", "bench"),
        }
        self._s3: Any = importlib.import_module("metaflow").S3

    def upload(self, path: str, key: str) -> None:
        with self._s3(s3root=f"s3://{BUCKET}") as s3:
            s3.put_files([(key, path)])

    def download(self, key: str, path: str) -> None:
        with self._s3(s3root=f"s3://{BUCKET}") as s3:
            os.rename(s3.get(key).path, path)


_MOVERS: dict[str, Any] = {"boto3": _Boto3, "s5cmd": _S5cmd, "obstore": _Obstore, "metaflow": _Metaflow}
