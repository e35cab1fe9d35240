"""Google's and Azure's storages for tests, as emulators that Metaflow's own clients talk to.

``gs``: the packages gcp-storage-emulator, google-cloud-storage and
google-cloud-secret-manager. ``azure``: azure-storage-blob, azure-identity and
azure-keyvault-secrets, and the commands azurite-blob (npm package azurite) and
openssl, for Azure's client sends tokens over TLS only. What is not installed
skips the test.
"""

from __future__ import annotations

import base64
import functools
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import seaweed

__all__ = ["azure_storage", "gs_storage"]

CONTAINER = "test"


def gs_storage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return Metaflow's gs storage over a prefix that nobody else uses."""
    pytest.importorskip("gcp_storage_emulator")
    pytest.importorskip("google.cloud.storage")
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage
    from metaflow.plugins.datastores.gs_storage import GSStorage
    from metaflow.plugins.gcp import gs_storage_client_factory as factory

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://localhost:{_gs_server()}")

    class Provider:
        @staticmethod
        @functools.cache
        def get_gs_storage_client() -> Any:
            return storage.Client(credentials=AnonymousCredentials(), project="test")

    monkeypatch.setattr(factory, "cached_provider_class", Provider)
    return GSStorage(f"gs://{CONTAINER}/{secrets.token_hex(6)}")


def azure_storage(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return Metaflow's azure storage over a prefix that nobody else uses."""
    pytest.importorskip("azure.storage.blob")
    pytest.importorskip("azure.identity")
    from azure.core.credentials import AccessToken
    from metaflow.plugins.azure import azure_credential, blob_service_client_factory
    from metaflow.plugins.datastores.azure_storage import AzureStorage

    port, certificate = _azure_server()
    endpoint = f"https://localhost:{port}/devstoreaccount1"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", certificate)
    monkeypatch.setattr(blob_service_client_factory, "AZURE_STORAGE_BLOB_SERVICE_ENDPOINT", endpoint)

    class Credential:
        def get_token(self, *scopes: str, **options: Any) -> AccessToken:
            return AccessToken(_token(), int(time.time()) + 3600)

    class Provider:
        @staticmethod
        def create_cacheable_azure_credential() -> Credential:
            return Credential()

    monkeypatch.setattr(azure_credential, "cached_provider_class", Provider)
    made = AzureStorage(f"{CONTAINER}/{secrets.token_hex(6)}")
    container = made.root_client.get_blob_container_client()
    if not container.exists():
        container.create_container()
    return made


@functools.cache
def _gs_server() -> int:
    from gcp_storage_emulator.server import create_server

    (port,) = seaweed._free_ports(1)
    create_server("localhost", port, in_memory=True, default_bucket=CONTAINER).start()
    return port


@functools.cache
def _azure_server() -> tuple[int, str]:
    program, openssl = shutil.which("azurite-blob"), shutil.which("openssl")
    if program is None or openssl is None:
        pytest.skip("no Azure emulator: azurite-blob or openssl is not installed")
    folder = Path(tempfile.mkdtemp(prefix="ckptstore-azurite-"))
    key, certificate = str(folder / "key.pem"), str(folder / "certificate.pem")
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", key]
    subprocess.run(
        [*command, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True,
        capture_output=True,
        timeout=60,
    )
    (port,) = seaweed._free_ports(1)
    options = ["--blobPort", str(port), "--location", str(folder), "--oauth", "basic", "--silent"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [
                program,
                *options,
                "--cert",
                certificate,
                "--key",
                key,
                "--skipApiVersionCheck",
                "--disableTelemetry",
            ],
            stdout=log,
            stderr=log,
            cwd=folder,
            start_new_session=True,
            preexec_fn=seaweed._die_with_parent,
        )
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        try:
            socket.create_connection(("localhost", port), timeout=1).close()
            return port, certificate
        except OSError:
            os.sched_yield()
    raise RuntimeError(f"the Azure emulator did not start:\n{(folder / 'log').read_text()}")


def _token() -> str:
    """A token as the emulator wants it: it looks at what is in it, not at the signature."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "iat": now - 60,
        "nbf": now - 60,
        "exp": now + 3600,
    }
    parts = [json.dumps(part).encode() for part in ({"alg": "RS256", "typ": "JWT"}, claims)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, b"none"))
