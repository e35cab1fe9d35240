"""``ckptstore doctor`` as an operator sees it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ckptstore.cli import check, command
from ckptstore.errors import UnavailableError


def ckptstore(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ckptstore", *args], capture_output=True, text=True, timeout=60
    )


def test_a_sound_storage_gives_a_table_and_exit_code_0(tmp_path: Path) -> None:
    done = ckptstore("doctor", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "read after write" in done.stdout


def test_json_is_one_object_a_line(tmp_path: Path) -> None:
    done = ckptstore("doctor", str(tmp_path), "--json")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"check", "verdict", "detail"} == set(found[0])
    assert {item["verdict"] for item in found} == {"ok"}


def test_a_wrong_url_is_wrong_usage() -> None:
    done = ckptstore("doctor", "http://169.254.169.254/")
    assert done.returncode == 2
    assert done.stderr.startswith("InvalidURLError")
    assert done.stdout == ""


def test_a_file_in_the_place_of_a_store_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    done = ckptstore("doctor", str(tmp_path / "file"))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_a_storage_that_fails_is_exit_code_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(url: str, **options: object) -> None:
        raise UnavailableError("the storage does not answer")

    monkeypatch.setattr(check, "examine", failing)
    result = CliRunner().invoke(command, ["doctor", str(tmp_path)])
    assert result.exit_code == 4
    assert "does not answer" in result.output


def test_a_missing_package_is_named_with_the_line_that_installs_it() -> None:
    code = "import sys; sys.modules['click'] = None; import ckptstore.__main__ as m; m.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "ckptstore[cli]" in done.stderr
