"""The benchmark of S3 clients runs, and measures what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import s3_cost
from bench.s3_clients import CLIENTS

pytest.importorskip("aiobotocore")
pytest.importorskip("boto3")


def test_every_client_is_measured_and_compared_or_skipped_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "s3.json"
    assert s3_cost.main(["--objects", "2", "--rounds", "1", "--null-only", "--json", str(kept)]) == 0
    table = capsys.readouterr().out
    for client in CLIENTS:
        assert f"| {client} " in table or f"- {client} skipped: " in table
    assert "CPU of the client, PUT ≤ 0.45 s/GB: " in table
    assert "CPU of the client, GET, against boto3 ≤ 1x: " in table
    record = json.loads(kept.read_text())
    assert [row["verdict"] for row in record["goals"]].count("not measured") == 0
    (server,) = record["servers"].values()
    assert set(server["costs"]) | set(server["skipped"]) == set(CLIENTS)
    assert {"ours", "boto3 TransferManager"} <= set(server["costs"])
