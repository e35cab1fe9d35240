"""The benchmark of S3 clients runs, and measures what it says."""

from __future__ import annotations

import pytest

from bench import s3_cost

pytest.importorskip("aiobotocore")
pytest.importorskip("boto3")


def test_every_client_is_measured_and_compared(capsys: pytest.CaptureFixture[str]) -> None:
    s3_cost.main(["--objects", "2", "--rounds", "1"])
    table = capsys.readouterr().out
    for client in s3_cost.CLIENTS:
        assert f"| {client} |" in table
    assert "PUT at most" in table
    assert "GET at most" in table
